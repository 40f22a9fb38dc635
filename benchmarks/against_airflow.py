"""The isolated sequencer here and in Apache Airflow: the same files, in the same run, one system after the other.

Airflow runs it in two forms. With sensors: both DAGs have a run for each day, which waits with deferrable sensors that
look every second. With assets: a watcher that looks every second starts the loader, and partitioned assets start the
aggregator; no run waits. Both are in `benchmarks/airflow/dags`. Ours runs under `dedp up`, with the two code locations
of the sequencer alone.

Airflow has its default settings but for those in `airflow_system.py`. A system is started twice, and the second start
counts: the first one makes databases. Idle memory and CPU are measured after the reactions, before anything runs in
parallel.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Protocol

import airflow_system
import dagster as dg
import devices
import footprint
import systems
from airflow_system import Airflow, Lab
from measuring import claim

from dedp_assets import settings
from dedp_assets.isolated_sequencer import contract

WARM_UPS = 2
DAYS = 30
# At most so much of the better one of Airflow's two forms.
CLAIMS = {
    "reaction, s": 0.6,
    "burst of 30 files, s": 1.0,
    "backfill of 30 days, s": 1.0,
    "memory at idle, MiB": 0.5,
    "CPU at idle, % of a core": 1.0,
    "start, s": 1.0,
}
# Shown beside them; nothing is claimed.
SHOWN = ("processes", "CPU of PostgreSQL at idle, % of a core")
# Until the sensors wait, and until everything has ended. Neither is measured.
_QUIET_SECONDS = 600

_OURS_REFRESHED = """
    SELECT count(*) FROM dedp.devices_loads
    WHERE load_id = ANY (%s) AND folded AND rows_loaded = %s AND loaded_at > to_timestamp(%s)
"""
# In Airflow's tables: how many loads are in every total. Each file has the same devices.
_TOTALS = "SELECT CASE WHEN count(*) = %s THEN min(all_occurrences) END FROM dedp.devices_aggregates"
_WAITING = """
    SELECT count(*)
    FROM task_instance
    JOIN dag_run USING (dag_id, run_id)
    WHERE task_instance.state = 'deferred' AND logical_date = ANY (%s::timestamptz[])
"""
# Tasks and not runs: Airflow notes the end of a run later than that of its last task, so in the next trial.
_ENDED = """
    SELECT count(*) FROM task_instance
    WHERE dag_id = 'devices_aggregator' AND task_id = 'refresh_aggregates' AND state = 'success'
        AND start_date > to_timestamp(%s)
"""
_STATES = """
    SELECT string_agg(format('%s %s %s', number, state, name), ', ')
    FROM (
        SELECT count(*) AS number, COALESCE(state, 'waiting') AS state, dag_id || '.' || task_id AS name
        FROM task_instance GROUP BY state, dag_id, task_id ORDER BY name, state
    ) AS task
"""
_BACKFILL = """
    mutation ($backfill: LaunchBackfillParams!) {
        launchPartitionBackfill(backfillParams: $backfill) {
            __typename
            ... on LaunchBackfillSuccess { backfillId }
            ... on PythonError { message }
        }
    }
"""


class Sequencer(Protocol):
    """The pipelines in one of the systems that are compared."""

    landing: Path

    def expect(self, days: Sequence[str]) -> None:
        """Make ready for the files of these days, if anything has to wait for them."""

    def has_totals(self, days: Sequence[str], since: float) -> bool:
        """Whether the totals have the loads of these days, all of them loaded since then."""

    def is_quiet(self) -> bool:
        """Whether nothing is under way."""

    def backfill(self, first: str, last: str) -> Callable[[], bool]:
        """Start to load days again. Returns what says whether it has ended."""

    def states(self) -> str:
        """What is done, under way and failed, for a trial that timed out."""

    def idle(self, seconds: float) -> list[footprint.Footprint]:
        """What its processes cost at idle, and what those of PostgreSQL do."""


class Ours:
    """The pipelines under `dedp up`."""

    def __init__(self, system: systems.System) -> None:
        self._system = system
        self.landing = settings.landing() / "devices"

    def expect(self, days: Sequence[str]) -> None:
        pass

    def has_totals(self, days: Sequence[str], since: float) -> bool:
        loads = [contract.load_id(day) for day in days]
        return self._system.count(_OURS_REFRESHED, loads, devices.ROWS, since) == len(days)

    def is_quiet(self) -> bool:
        return self._system.is_quiet()

    def backfill(self, first: str, last: str) -> Callable[[], bool]:
        began = time.time()
        days = contract.LOADS.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))
        keys = (contract.DEVICES_FILE, contract.DEVICES_RAW, contract.DEVICES_AGGREGATES)
        answer = self._system.graphql(
            _BACKFILL,
            backfill={"assetSelection": [{"path": key.path} for key in keys], "partitionNames": list(days)},
        )["launchPartitionBackfill"]
        if "backfillId" not in answer:
            raise RuntimeError(f"the backfill does not start: {answer}")
        return lambda: self.has_totals(days, began) and self.is_quiet()

    def states(self) -> str:
        return self._system.states()

    def idle(self, seconds: float) -> list[footprint.Footprint]:
        home, roots = settings.home(), [self._system.process.pid]
        return footprint.idle(
            [lambda: footprint.with_descendants(roots, str(home)), lambda: footprint.of_server(home / "postgres/data")],
            seconds,
        )


class InAirflow:
    """What both forms in Airflow have in common."""

    def __init__(self, airflow: Airflow, lab: Lab) -> None:
        self._airflow, self._lab = airflow, lab
        self.landing = lab.landing
        with airflow.devices.cursor() as cursor:
            cursor.execute("TRUNCATE dedp.devices_raw, dedp.devices_aggregates")
        self._loaded: set[str] = set()

    def has_totals(self, days: Sequence[str], since: float) -> bool:
        wanted = len(self._loaded | set(days))
        found = airflow_system.count(self._airflow.devices, _TOTALS, devices.ROWS) == wanted
        if found:
            self._loaded |= set(days)
        return found

    def is_quiet(self) -> bool:
        return self._airflow.is_quiet()

    def states(self) -> str:
        return self._airflow.text(_STATES)

    def idle(self, seconds: float) -> list[footprint.Footprint]:
        pids, data = [process.pid for process in self._airflow.processes], self._lab.postgres_data
        return footprint.idle([lambda: footprint.with_descendants(pids), lambda: footprint.of_server(data)], seconds)


class WithSensors(InAirflow):
    """Airflow with sensors: a run of each DAG has to wait for the file of its day."""

    def expect(self, days: Sequence[str]) -> None:
        for day in days:
            self._airflow.trigger("devices_loader", day)
            self._airflow.trigger("devices_aggregator", day)
        dates = [f"{day}T00:00:00Z" for day in days]
        systems.wait_until(
            lambda: self._airflow.count(_WAITING, dates) == 2 * len(days),
            _QUIET_SECONDS,
            lambda: f"{self._airflow.count(_WAITING, dates)} of {2 * len(days)} sensors wait",
            every=0.2,
        )

    def backfill(self, first: str, last: str) -> Callable[[], bool]:
        began = time.time()
        asked = {"from_date": first, "to_date": last, "max_active_runs": DAYS, "reprocess_behavior": "completed"}
        for dag in ("devices_loader", "devices_aggregator"):
            self._airflow.post("/backfills", {"dag_id": dag, **asked})
        return lambda: self._airflow.count(_ENDED, began) == DAYS


class WithAssets(InAirflow):
    """Airflow with a watcher and partitioned assets: nothing waits."""

    def expect(self, days: Sequence[str]) -> None:
        pass

    def backfill(self, first: str, last: str) -> Callable[[], bool]:
        began = time.time()
        self._airflow.trigger("devices_backfill", first=first, last=last)
        return lambda: self._airflow.count(_ENDED, began) == DAYS


@contextmanager
def ours() -> Iterator[tuple[Sequencer, float]]:
    locations = ("jobs.devices_loader", "jobs.devices_aggregator")
    with systems.fresh_home():
        with systems.under_dedp_up(locations):
            pass
        with systems.under_dedp_up(locations) as system:
            yield Ours(system), system.started_after


@contextmanager
def in_airflow(form: str, kind: type[WithSensors] | type[WithAssets]) -> Iterator[tuple[Sequencer, float]]:
    with airflow_system.lab() as lab:
        with lab.running(form):
            pass
        with lab.running(form) as airflow:
            yield kind(airflow, lab), airflow.started_after


def measure(sequencer: Sequencer, trials: int, bursts: int, idle_seconds: float, timeout: float) -> dict[str, float]:
    """Every row of the table for one system, but its start."""
    numbers = random.Random(7)

    def react(days: Sequence[str]) -> float:
        sequencer.expect(days)
        files = [devices.file_of(sequencer.landing, day) for day in days]
        drafts = [devices.write_draft(file) for file in files]
        time.sleep(1 + numbers.uniform(0, 5))
        began = time.time()
        devices.rename(drafts, files)
        systems.wait_until(lambda: sequencer.has_totals(days, began), timeout, lambda: f"totals of {len(days)} days")
        return time.time() - began

    def backfill() -> float:
        began = time.time()
        systems.wait_until(sequencer.backfill(many[0], many[DAYS - 1]), timeout, lambda: "the end of the backfill")
        return time.time() - began

    def seconds(what: str, trials: Sequence[Callable[[], float]], warm_ups: int = 0) -> float:
        taken = [_timed(sequencer, trial) for trial in trials]
        print(f"  {what}: {' '.join(f'{each:.1f}' for each in taken)} (warm-ups: {warm_ups})", flush=True)
        return statistics.median(taken[warm_ups:])

    single = devices.days(date(2024, 1, 1), WARM_UPS + trials)
    many = devices.days(date(2024, 3, 1), DAYS * bursts)
    each_burst = [many[first : first + DAYS] for first in range(0, len(many), DAYS)]
    found = {"reaction, s": seconds("reactions", [partial(react, [day]) for day in single], WARM_UPS)}
    sequencer.expect(["2024-02-29"])  # at idle, the next file is waited for
    time.sleep(min(idle_seconds, 20))
    processes, postgres = sequencer.idle(idle_seconds)
    print("  memory, MiB:", *(f"{size:.0f} {title};" for size, title in processes.each), flush=True)
    return found | {
        "memory at idle, MiB": processes.mebibytes,
        "CPU at idle, % of a core": processes.cpu_percent,
        "processes": len(processes.each),
        "CPU of PostgreSQL at idle, % of a core": postgres.cpu_percent,
        "burst of 30 files, s": seconds("bursts", [partial(react, days) for days in each_burst]),
        "backfill of 30 days, s": seconds("backfills", [backfill] * bursts),
    }


def _timed(sequencer: Sequencer, trial: Callable[[], float]) -> float:
    """Do a trial, and wait until nothing is under way. Returns its seconds, or infinity if it timed out."""
    try:
        took = trial()
        systems.wait_until(sequencer.is_quiet, _QUIET_SECONDS, lambda: "runs are still under way", every=0.2)
    except systems.TimedOut as missing:
        print(f"  {missing}; {sequencer.states()}", flush=True)
        return float("inf")
    return took


def main() -> bool:
    kinds = {
        "Airflow, sensors": lambda: in_airflow("sensors", WithSensors),
        "Airflow, assets": lambda: in_airflow("assets", WithAssets),
        "dedp up": ours,
    }
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=15, help="reactions in each system")
    arguments.add_argument("--bursts", type=int, default=3, help="bursts and backfills in each system")
    arguments.add_argument("--idle", type=float, default=60, help="how long to measure idle systems, in s")
    arguments.add_argument("--timeout", type=float, default=300, help="of a trial, in s")
    arguments.add_argument("--only", nargs="+", choices=list(kinds), default=list(kinds), metavar="SYSTEM")
    given = arguments.parse_args()
    found: dict[str, dict[str, float]] = {}
    for name in given.only:
        print(name, flush=True)
        with kinds[name]() as (sequencer, start):
            rows = measure(sequencer, given.trials, given.bursts, given.idle, given.timeout)
        found[name] = rows | {"start, s": start}
    return report(found)


def report(found: dict[str, dict[str, float]]) -> bool:
    """Print the table and, if all systems were measured, the claims. Returns whether all of them hold."""
    print("", f"| | {' | '.join(found)} |", f"| --- |{' ---: |' * len(found)}", sep="\n")
    for row in [*CLAIMS, *SHOWN]:
        print(f"| {row} | {' | '.join(f'{rows[row]:.1f}' for rows in found.values())} |")
    if "dedp up" not in found or len(found) < 2:
        return True
    print()
    ours = found.pop("dedp up")
    held = []
    for row, at_most in CLAIMS.items():
        best, form = min((rows[row], name) for name, rows in found.items())
        held.append(claim(f"{row}: against {form}", ours[row] / best, at_most, unit=""))
    return all(held)


if __name__ == "__main__":
    with systems.interruptible():
        held = main()
    sys.exit(0 if held else 1)
