"""How long until Dagster's daemon looks: from a rename, and from an event, to the tick; and what it does at idle.

    .venv/bin/python benchmarks/doorbell.py [--trials 9] [--idle 60]

The daemon is started in turn with the doorbell and without it (DEDP_DOORBELL=off is the stock daemon), on the two code
locations of the isolated sequencer, with its own PostgreSQL and DEDP_HOME.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import psutil
from dagster._core.scheduler.instigation import TickData

from dedp_assets import local_stack, settings
from dedp_assets.isolated_sequencer.contract import DEVICES_FILE

_GIVE_UP_SECONDS = 300


class Daemon(NamedTuple):
    """A running daemon and its instance."""

    process: psutil.Process
    instance: dg.DagsterInstance

    def ticks(self, sensor: str) -> list[TickData]:
        """The ticks of a sensor, the last one first."""
        for state in self.instance.all_instigator_state():
            if state.instigator_name == sensor:
                found = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=500)
                return [tick.tick_data for tick in found]
        return []

    def first_tick_after(self, sensor: str, at: float) -> float | None:
        begins = [tick.timestamp for tick in self.ticks(sensor) if tick.timestamp >= at]
        return min(begins, default=None)

    def cpu_seconds(self) -> float:
        """The processor time of the daemon and its code servers until now."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(each.cpu_times()[:2]) for each in family if each.is_running())


@contextmanager
def daemon(doorbell: str) -> Iterator[Daemon]:
    """Run a daemon with everything that it needs, all of its own."""
    with tempfile.TemporaryDirectory(prefix="doorbell-") as home:
        os.environ.update(DEDP_HOME=home, DEDP_START="2024-01-01", DEDP_SETTLE_SECONDS="0.5", DEDP_DOORBELL=doorbell)
        workspace = Path(home) / "workspace.yaml"
        workspace.write_text(
            "load_from:\n  - python_module: jobs.devices_loader\n  - python_module: jobs.devices_aggregator\n"
        )
        (settings.landing() / "devices").mkdir(parents=True)
        with local_stack.environment() as shared, open(Path(home) / "daemon.log", "wb") as log:
            local_stack.create_instance_schema(shared)
            os.environ.update({name: shared[name] for name in ("DAGSTER_HOME", "DEDP_DAGSTER_STORAGE")})
            process = subprocess.Popen(
                [sys.executable, "-m", "dedp_assets.doorbell", "-w", str(workspace)],
                cwd=settings.REPOSITORY,
                env=shared,
                stdout=log,
                stderr=log,
            )
            try:
                with dg.DagsterInstance.get() as instance:
                    running = Daemon(psutil.Process(process.pid), instance)
                    wait_for(lambda: running.ticks("devices_landed") and running.ticks("follow_inputs"))
                    yield running
            finally:
                stop(psutil.Process(process.pid))


def stop(daemon: psutil.Process) -> None:
    """End a daemon, and then what it leaves behind: code servers, and runs."""
    family = [daemon, *daemon.children(recursive=True)]
    daemon.terminate()
    psutil.wait_procs([daemon], timeout=60)
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(family, timeout=10)


def wait_for(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + _GIVE_UP_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"nothing came within {_GIVE_UP_SECONDS} s")
        time.sleep(0.2)


def trial(running: Daemon, day: str) -> tuple[float, float]:
    """Seconds from a rename to the tick of the file sensor, and from the copy's event to the automation tick."""
    folder = settings.landing() / "devices" / day
    folder.mkdir()
    draft = folder / "dataset.csv.tmp"
    draft.write_text(f"type;full_name;version\nphone;Acme {day};1\n")
    time.sleep(3)  # what the new folder rang for is over, and so is the tick of it
    wait_for(lambda: all(tick.end_timestamp for tick in running.ticks("devices_landed")))
    time.sleep(1)
    renamed = time.time()
    draft.rename(folder / "dataset.csv")
    wait_for(lambda: running.first_tick_after("devices_landed", renamed))
    event = dg.AssetRecordsFilter(DEVICES_FILE, asset_partitions=[day])
    wait_for(lambda: running.instance.fetch_materializations(event, limit=1).records)
    (copied,) = running.instance.fetch_materializations(event, limit=1).records
    wait_for(lambda: running.first_tick_after("follow_inputs", copied.timestamp))
    file_tick = running.first_tick_after("devices_landed", renamed)
    automation_tick = running.first_tick_after("follow_inputs", copied.timestamp)
    assert file_tick is not None
    assert automation_tick is not None
    active = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    time.sleep(1)
    wait_for(lambda: not running.instance.get_runs(dg.RunsFilter(statuses=active)))
    return file_tick - renamed, automation_tick - copied.timestamp


def idle(running: Daemon, seconds: float) -> tuple[int, float]:
    """Ticks of all sensors, and processor time of all processes (s), over some time in which nothing happens."""
    time.sleep(5)
    began, before = time.time(), running.cpu_seconds()
    time.sleep(seconds)
    ticks = [
        tick
        for state in running.instance.all_instigator_state()
        for tick in running.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=500)
        if tick.timestamp >= began
    ]
    return len(ticks), running.cpu_seconds() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=9)
    parser.add_argument("--idle", type=float, default=60)
    asked = parser.parse_args()
    print(f"{'':10} {'rename -> tick':>22} {'event -> automation tick':>26} {'at idle':>30}")
    for doorbell in ("on", "off"):
        with daemon(doorbell) as running:
            first = date(2024, 1, 2)
            trials = [trial(running, (first + timedelta(days=n)).isoformat()) for n in range(asked.trials)]
            ticks, processor = idle(running, asked.idle)
        columns = [f"{statistics.median(each):.2f} s (max {max(each):.2f})" for each in zip(*trials, strict=True)]
        share = f"{ticks} ticks, {100 * processor / asked.idle:.1f} % of a core"
        print(f"{doorbell:10} {columns[0]:>22} {columns[1]:>26} {share:>30}")


if __name__ == "__main__":
    main()
