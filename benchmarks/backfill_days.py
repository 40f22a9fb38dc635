"""A backfill of 200 closed days as one run, compared with a run for each day, in seconds per day.

Each run has a process of its own, as when Dagster launches it. All runs share a warm Spark server. The time that a run
waits in Dagster's queue is not counted.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path

from lake import append_each
from measuring import seconds

from dedp_assets.late_data_integrator.tables import open_counts
from dedp_assets.resources import embedded_spark
from dedp_assets.resources_from_settings import LakeFromSettings

AT_LEAST = 20
ROWS = 1000

RUN = """
import sys
import dagster as dg
from jobs.late_data_integrator import defs

first, last = sys.argv[1:]
days = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
job = defs.resolve_implicit_global_asset_job_def()
with dg.DagsterInstance.ephemeral() as instance:
    done = job.execute_in_process(
        instance=instance, partition_key=first if first == last else None, tags={} if first == last else days
    )
assert done.success
"""


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--days", type=int, default=200)
    arguments.add_argument("--single", type=int, default=5, help="how many days to run one by one")
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    with contextlib.ExitStack() as stack:
        os.environ["DEDP_HOME"] = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["DEDP_SPARK_REMOTE"] = stack.enter_context(embedded_spark.server(Path(os.environ["DEDP_HOME"])))
        measure(given.days, 1)  # warms the server up
        taken = [measure(given.days, given.single) for _ in range(given.rounds)]
    together, single = (statistics.median(part) for part in zip(*taken, strict=True))
    print(f"one run of {given.days} days  {together:7.3f} s a day   n={given.rounds}")
    print(f"a run for each day    {single:7.3f} s a day   n={given.rounds} x {given.single}")
    ratio = single / together
    print(f"ratio {ratio:.0f}, at least {AT_LEAST} claimed: {'holds' if ratio >= AT_LEAST else 'FAILS'}")
    return bool(ratio >= AT_LEAST)


def measure(together: int, single: int) -> tuple[float, float]:
    """Return the seconds per day on a new table: for `together` days in one run, and the median of `single` runs."""
    with tempfile.TemporaryDirectory() as lake:
        os.environ["DEDP_DATA_URI"] = lake
        days = [(date(2024, 1, 1) + timedelta(days=day)).isoformat() for day in range(together + single)]
        append_each(days, ROWS)
        by_one = [run(day, day) for day in days[together:]]
        in_one = run(days[0], days[together - 1])
        assert open_counts(LakeFromSettings()).rows_counted(days) == dict.fromkeys(days, ROWS)
        return in_one / together, statistics.median(by_one)


def run(first: str, last: str) -> float:
    """Return how long a run of the days from `first` to `last` takes, in seconds."""
    command = [sys.executable, "-c", RUN, first, last]
    repository = Path(__file__).parent.parent
    return seconds(lambda: subprocess.run(command, cwd=repository, stderr=subprocess.DEVNULL, check=True))


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
