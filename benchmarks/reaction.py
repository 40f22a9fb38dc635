"""How long it takes from an event to what follows it, under `dedp up`, with the time of each stage on the way.

Each part is a kind of event; `--only` chooses some. The first one is measured under stock `dagster dev`, too, in turns
with `dedp up`. A part warms up before it counts, and each trial waits until no run is under way, and for a random time
beyond that, so that no loop of a daemon is always met at the same moment.
"""

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, timezone

import dagster as dg
import devices
import lake
import stages
import systems
import uploads_burst
from measuring import claim
from systems import System, TimedOut

from dedp_assets import settings
from dedp_assets.isolated_sequencer import contract
from dedp_assets.late_data_integrator.tables import open_counts
from dedp_assets.partition_runs import partitions_of
from dedp_assets.promotions import contract as promotions
from dedp_assets.promotions import generator
from dedp_assets.resources_from_settings import LakeFromSettings

# In seconds: at most so much in the median, and for a renamed file also in 95 % of the trials.
RENAMED, RENAMED_P95, OF_STOCK = 2.0, 3.0, 0.15
LATE_COMMIT = 4.0
BURST_FILES, BURST = 30, 6.0
SUPPLIER = 2.5

WARM_UPS = 2
# The first trial of a part also waits for what starts with its first use, such as Spark's server.
_WARM_UP_SECONDS = 300

_REFRESHED = """
    SELECT count(*) FROM dedp.devices_loads WHERE load_id = ANY (%s) AND folded AND rows_loaded = %s
"""
_MEASURED = "SELECT count(*) FROM dedp.promotion_metrics WHERE supplier = %s AND day = %s"


class Trials:
    """The trials of a part, one after the other.

    Args:
        system: what is measured.
        timeout: how long a trial may take, in s.
    """

    def __init__(self, system: System, timeout: float) -> None:
        self.system = system
        self._timeout = timeout
        self._random = random.Random(7)

    def run(self, trial: Callable[[int, float], float], count: int) -> Iterator[float]:
        """Do the warm-ups and then the trials, and yield the seconds of each; infinity for one that timed out.

        Args:
            trial: does one trial, and returns how long it took in s. Takes its number, and how long it may take in s.
            count: how many trials count.
        """
        for number in range(WARM_UPS + count):
            warms_up = number < WARM_UPS
            try:
                self._wait_until_quiet()
                took = trial(number, _WARM_UP_SECONDS if warms_up else self._timeout)
            except TimedOut as missing:
                print(f"trial {number - WARM_UPS}: {missing}", flush=True)
                took = float("inf")
            if not warms_up:
                yield took

    def _wait_until_quiet(self) -> None:
        systems.wait_until(self.system.is_quiet, _WARM_UP_SECONDS, lambda: "runs are still under way", every=0.2)
        time.sleep(1 + self._random.uniform(0, 5))


def renamed(trials: Trials, count: int, first: date) -> tuple[list[float], list[list[float]]]:
    """A file that is renamed into place, until the totals are refreshed.

    Returns:
        The seconds of each trial, and the moments of those that did not time out.
    """
    system, days = trials.system, devices.days(first, WARM_UPS + count)
    moments: list[list[float]] = []

    def trial(number: int, seconds: float) -> float:
        day = days[number]
        file = devices.file_of(settings.landing() / "devices", day)
        draft = devices.write_draft(file)
        time.sleep(1)
        began = time.time()
        os.replace(draft, file)
        wait_for_totals(system, [day], seconds, lambda: stages.missing([began, *moments_of_runs(system, day)]))
        refreshed = time.time()
        systems.wait_until(system.is_quiet, seconds, lambda: "the end of the runs")
        reached = [began, *moments_of_runs(system, day), refreshed]
        if number >= WARM_UPS and len(reached) == len(stages.MOMENTS):
            moments.append(reached)
        return refreshed - began

    return list(trials.run(trial, count)), moments


def wait_for_totals(system: System, days: Sequence[str], seconds: float, missing: Callable[[], str]) -> None:
    """Wait until the totals have the whole files of these days. Raises TimedOut."""
    loads = [contract.load_id(day) for day in days]
    systems.wait_until(lambda: system.count(_REFRESHED, loads, devices.ROWS) == len(days), seconds, missing)


def moments_of_runs(system: System, day: str) -> list[float]:
    """The moments of `stages.MOMENTS` that the runs of a day have reached, without the first and the last one."""
    found: list[float] = []
    for key in (contract.DEVICES_FILE, contract.DEVICES_RAW):
        records = [
            record
            for record in system.instance.get_run_records(limit=100)
            if key in (record.dagster_run.asset_selection or ())
            and day in partitions_of(record.dagster_run, contract.LOADS)
        ]
        if not records:
            break
        first = min(records, key=lambda record: record.create_timestamp)
        found.append(first.create_timestamp.timestamp())
        logged: dict[dg.DagsterEventType, float] = {}
        for entry in system.instance.all_logs(first.dagster_run.run_id):
            if entry.dagster_event:
                logged.setdefault(entry.dagster_event.event_type, entry.timestamp)
        wanted = [dg.DagsterEventType.PIPELINE_STARTING, dg.DagsterEventType.STEP_START]
        if key == contract.DEVICES_FILE:
            wanted.append(dg.DagsterEventType.ASSET_MATERIALIZATION)
        found += [logged[each] for each in wanted if each in logged]
    return found


def in_place(trials: Trials, count: int, first: date) -> list[float]:
    """A file that is written in place, with a pause in its middle: from its last byte until the totals have it."""
    system, days = trials.system, devices.days(first, WARM_UPS + count)

    def trial(number: int, seconds: float) -> float:
        day, text = days[number], devices.text()
        with open(devices.file_of(settings.landing() / "devices", day), "w") as stream:
            stream.write(text[: len(text) // 2])
            stream.flush()
            time.sleep(0.5)
            stream.write(text[len(text) // 2 :])
        began = time.time()
        wait_for_totals(system, [day], seconds, lambda: stages.missing([began, *moments_of_runs(system, day)]))
        return time.time() - began

    return list(trials.run(trial, count))


def burst(trials: Trials, count: int, first: date) -> list[float]:
    """Files of as many days that are renamed into place at once, until the totals have all of them."""
    system, days = trials.system, devices.days(first, (WARM_UPS + count) * BURST_FILES)

    def trial(number: int, seconds: float) -> float:
        arriving = days[number * BURST_FILES : (number + 1) * BURST_FILES]
        files = [devices.file_of(settings.landing() / "devices", day) for day in arriving]
        drafts = [devices.write_draft(file) for file in files]
        time.sleep(1)
        began = time.time()
        devices.rename(drafts, files)

        def missing() -> str:
            loads = [contract.load_id(day) for day in arriving]
            return f"totals of {len(loads) - system.count(_REFRESHED, loads, devices.ROWS)} of {len(loads)} files"

        wait_for_totals(system, arriving, seconds, missing)
        took = time.time() - began
        since = dg.RunsFilter(created_after=datetime.fromtimestamp(began, timezone.utc))
        # A run for each file is what makes a burst slow.
        print(f"{BURST_FILES} files: {took:.1f} s, {system.instance.get_runs_count(since)} runs", flush=True)
        return took

    return list(trials.run(trial, count))


def late_commit(trials: Trials, count: int) -> list[float]:
    """A commit with late data for a day that is counted, until the counts have it. Spark's server is warm."""
    day, rows = "2024-01-02", 100
    lake.append(day, rows)
    lake.append("2024-01-03", rows)  # closes the day before

    def trial(number: int, seconds: float) -> float:
        if number:
            lake.append(day, 1)
        began = time.time()

        def counted() -> int:
            return open_counts(LakeFromSettings()).rows_counted([day]).get(day, 0)

        systems.wait_until(
            lambda: counted() == rows + number, seconds, lambda: f"{rows + number - counted()} rows", every=0.1
        )
        return time.time() - began

    return list(trials.run(trial, count))


def supplier(trials: Trials, count: int, first: date) -> list[float]:
    """A supplier's last file, the marker, until the metrics of the delivery are there."""
    system, days, names = trials.system, devices.days(first, WARM_UPS + count), settings.suppliers()

    def trial(number: int, seconds: float) -> float:
        name, day = names[number % len(names)], days[number]
        lines = [offer.line for offer in generator.offers(name, date.fromisoformat(day), 100)]
        generator.write_delivery(promotions.landing_folder() / name / day, lines, files=2)
        began = time.time()
        systems.wait_until(lambda: system.count(_MEASURED, name, day) == 1, seconds, lambda: f"metrics of {name} {day}")
        return time.time() - began

    return list(trials.run(trial, count))


def main() -> bool:
    parts = ("renamed", "in-place", "late-commit", "burst", "supplier", "uploads")
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART", help=", ".join(parts))
    arguments.add_argument("--trials", type=int, default=16, help="of each part; of bursts a fifth")
    arguments.add_argument("--stock-trials", type=int, default=8, help="under `dagster dev`; 0 leaves it out")
    arguments.add_argument("--turns", type=int, default=2, help="how often to change between the two")
    arguments.add_argument("--uploads", type=int, nargs="+", default=[100, 1000], help="how many at once")
    arguments.add_argument(
        "--locations", nargs="+", default=[], help="only these, as jobs.devices_loader; default: all"
    )
    arguments.add_argument("--timeout", type=float, default=120, help="of a trial, in s")
    given = arguments.parse_args()
    held = []
    if "renamed" in given.only:
        held += _compare_renamed(given.trials, given.stock_trials, given.turns, given.timeout, given.locations)
    if {"in-place", "burst", "late-commit", "supplier"} & set(given.only):
        with systems.fresh_home(), systems.under_dedp_up(given.locations) as system:
            held += _measure(Trials(system, given.timeout), given.only, given.trials)
    if "uploads" in given.only:
        held += [uploads_burst.report(files, given.timeout, given.locations) for files in given.uploads]
    return all(held)


def _compare_renamed(count: int, stock_count: int, turns: int, timeout: float, locations: Sequence[str]) -> list[bool]:
    kinds: dict[str, tuple[Callable[[Sequence[str]], AbstractContextManager[System]], int]] = {
        "dedp up": (systems.under_dedp_up, count),
        "stock dagster dev": (systems.under_dagster_dev, stock_count),
    }
    kinds = {name: kind for name, kind in kinds.items() if kind[1]}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    moments: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for turn in range(turns):
        for name, (start, trials) in kinds.items():
            share = trials // turns + (turn < trials % turns)
            with systems.fresh_home(), start(locations) as system:
                print(f"{name}: ready after {system.started_after:.1f} s", flush=True)
                taken, reached = renamed(Trials(system, timeout), share, date(2024, 1, 1))
            seconds[name] += taken
            moments[name] += reached
    for name, reached in moments.items():
        if reached:
            print(f"\na renamed file -> totals, {name}, {len(reached)} trials, in s", *stages.table(reached), sep="\n")
    print()
    ours = seconds["dedp up"]
    held = [
        claim("a renamed file -> totals, median", statistics.median(ours), RENAMED),
        claim("a renamed file -> totals, 95 % of the trials", stages.p95(ours), RENAMED_P95),
    ]
    if stock := seconds.get("stock dagster dev"):
        ratio = statistics.median(ours) / statistics.median(stock)
        held.append(claim("a renamed file -> totals, against stock dagster dev", ratio, OF_STOCK, unit=""))
    return held


def _measure(trials: Trials, only: Sequence[str], count: int) -> list[bool]:
    def judge(what: str, seconds: list[float], at_most: float) -> bool:
        spread = f"(p95 {stages.p95(seconds):.2f} s, n={len(seconds)})"
        return claim(f"{what}, median {spread}", statistics.median(seconds), at_most)

    held = []
    if "in-place" in only:
        at_most = RENAMED + settings.settle_seconds()
        held.append(
            judge(
                "a file written in place -> totals, settling included",
                in_place(trials, count, date(2024, 3, 1)),
                at_most,
            )
        )
    if "burst" in only:
        taken = burst(trials, max(1, count // 5), date(2024, 6, 1))
        held.append(judge(f"{BURST_FILES} files at once -> totals of all", taken, BURST))
    if "supplier" in only:
        held.append(judge("a supplier's last file -> metrics", supplier(trials, count, date(2024, 3, 1)), SUPPLIER))
    if "late-commit" in only:
        held.append(judge("a late Delta commit -> counts, Spark warm", late_commit(trials, count), LATE_COMMIT))
    return held


if __name__ == "__main__":
    with systems.interruptible():
        held = main()
    sys.exit(0 if held else 1)
