"""Files that are created at once in as many directories, under `dedp up`: until all are seen, and until all are loaded.

The directories are there before, and watched. Each file is renamed into place. A file counts as seen when the sensor
has it in its cursor, and as loaded when its rows are in PostgreSQL. The peer is Airflow 3.3.2 with deferrable sensors,
one for each file, on a machine of the same kind: it saw the last of 100 files after 29.3 s, of 1,000 after 321 s.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psycopg2

from dedp_assets import local_stack, settings

# Files: seconds until all are seen, and until all are loaded.
LIMITS = {100: (12, 30), 1000: (12, 120)}
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


def burst(files: int) -> tuple[float, float]:
    """Start the system, create the files, and wait.

    Returns:
        The seconds until all files were seen, and until all were loaded.
    """
    clients = settings.landing() / "clients"
    folders = [clients / f"client{number:04}" for number in range(files)]
    for folder in folders:
        folder.mkdir(parents=True)
    with (
        local_stack.running(local_stack.free_port()) as stack,
        closing(psycopg2.connect(stack.environment["DEDP_POSTGRES_DSN"])) as database,
    ):
        database.autocommit = True
        _wait(database, "SELECT count(*) FROM dedp.upload_directories", files)
        text = "id,name,value\n" + "".join(f"{row},item,{row}\n" for row in range(ROWS))
        for folder in folders:
            (folder / ".part").write_text(text)
        began = time.monotonic()
        for folder in folders:
            os.replace(folder / ".part", folder / "orders.csv")
        _wait(database, _SEEN, files)
        seen = time.monotonic() - began
        _wait(database, _LOADED, files * ROWS)
        return seen, time.monotonic() - began


def _wait(database: psycopg2.extensions.connection, query: str, wanted: int) -> None:
    while True:
        with database.cursor() as cursor:
            try:
                cursor.execute(query)
                if cursor.fetchall()[0][0] >= wanted:
                    return
            except psycopg2.errors.UndefinedTable:
                pass  # the first tick makes the tables
        time.sleep(0.2)


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--files", type=int, nargs="*", default=[100, 1000])
    held = True
    for files in arguments.parse_args().files:
        with tempfile.TemporaryDirectory(prefix="dedp-bench-") as folder:
            Path(folder).chmod(0o755)  # the database's user has to get in
            os.environ["DEDP_HOME"] = f"{folder}/home"
            settings.make_home()
            seen, loaded = burst(files)
        most_seen, most_loaded = LIMITS.get(files, (float("inf"), float("inf")))
        holds = seen <= most_seen and loaded <= most_loaded
        held = held and holds
        print(
            f"{files:>5} files: all seen after {seen:.1f} s (at most {most_seen}), all loaded after {loaded:.1f} s "
            f"(at most {most_loaded}): {'holds' if holds else 'FAILS'}"
        )
    return held


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
