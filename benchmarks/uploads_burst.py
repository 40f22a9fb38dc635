"""Files that are created at once in as many directories, under `dedp up`: until all are seen, and until all are loaded.

The directories are there before, and watched. Each file is renamed into place. A file counts as seen when the sensor
has it in its cursor, and as loaded when its rows are in PostgreSQL. The peer is Airflow 3.3.2 with deferrable sensors,
one for each file, on a machine of the same kind: it saw the last of 100 files after 29.3 s, of 1,000 after 321 s.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

import systems
from systems import System, TimedOut

from dedp_assets import settings

# Files: seconds until all are seen, and until all are loaded.
LIMITS = {100: (3, 15), 1000: (3, 60)}
ROWS = 3
_SEEN = """
    SELECT count(DISTINCT client)
    FROM (
        SELECT client FROM dedp.upload_directories WHERE waiting > 0
        UNION ALL
        SELECT client FROM dedp.upload_files
    ) AS seen
"""
_LOADED = "SELECT count(*) FROM dedp.upload_records"


def burst(files: int, timeout: float, locations: Sequence[str]) -> tuple[float, float]:
    """Start the system, create the files, and wait.

    Args:
        files: how many.
        timeout: how long each wait may take, in s.
        locations: the modules of the code locations to run; all if there are none.

    Returns:
        The seconds until all files were seen, and until all were loaded.

    Raises:
        TimedOut: not all of them were.
    """
    clients = settings.landing() / "clients"
    folders = [clients / f"client{number:04}" for number in range(files)]
    for folder in folders:
        folder.mkdir(parents=True)
    with systems.under_dedp_up(locations) as system:
        _wait(system, "SELECT count(*) FROM dedp.upload_directories", files, timeout, "directories that are watched")
        text = "id,name,value\n" + "".join(f"{row},item,{row}\n" for row in range(ROWS))
        for folder in folders:
            (folder / ".part").write_text(text)
        began = time.monotonic()
        for folder in folders:
            os.replace(folder / ".part", folder / "orders.csv")
        _wait(system, _SEEN, files, timeout, "files that are seen")
        seen = time.monotonic() - began
        _wait(system, _LOADED, files * ROWS, timeout, "rows that are loaded")
        return seen, time.monotonic() - began


def _wait(system: System, query: str, wanted: int, timeout: float, what: str) -> None:
    systems.wait_until(
        lambda: system.count(query) >= wanted, timeout, lambda: f"{what}: {system.count(query)} of {wanted}", every=0.1
    )


def report(files: int, timeout: float, locations: Sequence[str] = ()) -> bool:
    """Measure so many files on a home of their own, and print the result. Returns whether the claim holds."""
    most_seen, most_loaded = LIMITS.get(files, (float("inf"), float("inf")))
    try:
        with systems.fresh_home():
            seen, loaded = burst(files, timeout, locations)
    except TimedOut as missing:
        print(f"{files:>5} files: {missing}: FAILS", flush=True)
        return False
    holds = seen <= most_seen and loaded <= most_loaded
    print(
        f"{files:>5} files: all seen after {seen:.1f} s (at most {most_seen}), all loaded after {loaded:.1f} s "
        f"(at most {most_loaded}): {'holds' if holds else 'FAILS'}",
        flush=True,
    )
    return holds


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--files", type=int, nargs="*", default=[100, 1000])
    arguments.add_argument("--timeout", type=float, default=600, help="of each wait, in s")
    given = arguments.parse_args()
    return all([report(files, given.timeout) for files in given.files])


if __name__ == "__main__":
    with systems.interruptible():
        held = main()
    sys.exit(0 if held else 1)
