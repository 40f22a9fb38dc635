"""The memory of the Python process that counts a day of 50 million rows, compared with a day of 1,000 rows.

The rows stay in Spark. Only the counts come to Python.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

from lake import append

AT_MOST = 1.1
DAY = "2024-01-02"

RUN = """
import json, re, sys, time
from pathlib import Path
import dagster as dg
from dedp_assets.late_data_integrator import assets
from dedp_assets.resources_from_settings import LakeFromSettings
from dedp_assets.resources_from_settings import SparkFromSettings

began = time.monotonic()
done = dg.materialize(
    [assets.devices, assets.device_counts],
    partition_key=sys.argv[1],
    resources={"lake": LakeFromSettings(), "spark": SparkFromSettings()},
)
metadata = done.asset_materializations_for_node("lake__device_counts")[0].metadata
print(json.dumps({
    "rows": metadata["input_rows"].value,
    # Not ru_maxrss, which counts what the parent had when this process was forked.
    "mebibytes": int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024,
    "seconds": time.monotonic() - began,
}))
"""


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=50_000_000)
    rows = arguments.parse_args().rows
    small, large = peak(1000), peak(rows)
    ratio = large / small
    print(f"ratio {ratio:.2f}, at most {AT_MOST} claimed: {'holds' if ratio <= AT_MOST else 'FAILS'}")
    return ratio <= AT_MOST


def peak(rows: int) -> float:
    """The highest memory (MiB) of a process that counts a day of so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DEDP_HOME"] = folder
        append(DAY, rows)
        done = subprocess.run([sys.executable, "-c", RUN, DAY], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"] == rows
    print(f"{rows:>11,} rows  {found['mebibytes']:6.0f} MiB at most in Python  {found['seconds']:6.1f} s")
    return float(found["mebibytes"])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
