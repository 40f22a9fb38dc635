"""30 simulated days of the sequencer, with a file and a late file each day, compared with the time of their runs alone.

The scenario has both code locations and real PostgreSQL. The rest of the time is Dagster's daemons, which evaluate
sensors and conditions at every arrival, at every midnight and at the nightly checks.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from unittest.mock import patch

import psycopg2
from dagster_scenario import Scenario
from dagster_scenario import runs as runs_
from measuring import seconds

from dedp_assets.resources import embedded_postgres

AT_MOST = 4


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--days", type=int, default=30)
    days = arguments.parse_args().days
    with tempfile.TemporaryDirectory() as folder, embedded_postgres.server_lease(Path(folder) / "postgres") as dsn:
        os.environ |= {"DEDP_HOME": folder, "DEDP_START": "2024-01-01", "DEDP_POSTGRES_DSN": dsn}
        with Scenario(start="2024-01-02 00:00") as scenario:
            scenario.load("jobs.devices_loader", "jobs.devices_aggregator")
            with time_the_runs() as alone:
                took = seconds(lambda: play(scenario, Path(folder) / "landing" / "devices", days))
            scenario.expect_runs().none_failed()
            runs = len(scenario.timeline.runs)
        connection = psycopg2.connect(dsn)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(DISTINCT load_id), count(*) FROM dedp.devices_raw")
            assert cursor.fetchone() == (days, 2 * days), "every day has its late version"
        connection.close()
    ratio = took / sum(alone)
    print(f"{days} days      {took:5.1f} s   {took / days:.2f} s a day")
    print(f"{runs} runs alone {sum(alone):5.1f} s   {sum(alone) / runs:.3f} s a run")
    print(f"ratio         {ratio:.2f}, at most {AT_MOST} claimed: {'holds' if ratio <= AT_MOST else 'FAILS'}")
    return ratio <= AT_MOST


@contextlib.contextmanager
def time_the_runs() -> Iterator[list[float]]:
    """How long each run takes within the `with`, without what leads to it."""
    taken: list[float] = []
    execute = runs_.execute
    with patch.object(runs_, "execute", lambda *run: taken.append(seconds(lambda: execute(*run)))):
        yield taken


def play(scenario: Scenario, folder: Path, days: int) -> None:
    """Each day's file comes the morning after, and again, with a line more, in the evening."""
    landing = scenario.folder(folder)
    for number in range(days):
        day = (date(2024, 1, 1) + timedelta(days=number)).isoformat()
        scenario.at("06:00")
        landing.drop(f"{day}/dataset.csv", "type;full_name;version\nlenovo;ThinkPad;1\n")
        scenario.at("18:00")
        landing.rewrite(f"{day}/dataset.csv", "type;full_name;version\nlenovo;ThinkPad;1\nlenovo;ThinkPad;2\n")
    scenario.run_until_quiet()


if __name__ == "__main__":
    # Dagster logs every look of a sensor to stderr.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = main()
    sys.exit(0 if held else 1)
