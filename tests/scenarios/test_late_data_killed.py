"""Runs of the late-data integrator that die, or meet: what is written is whole, and the next run does what is left.

Each run is a process of its own, a fork that does what `dagster asset materialize` does; real Delta, real Spark.
"""

import platform
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import psutil
import pytest
from deltalake import DeltaTable

from dedp_assets.delta.log import DeltaLog
from dedp_assets.late_data_integrator import contract, producer
from dedp_assets.late_data_integrator.tables import open_counts, open_devices_log
from dedp_assets.resources_from_settings import LakeFromSettings
from jobs.late_data_integrator import defs
from sensors import reconciliation
from sensors.pipelines.late_data_integrator import TARGETS, devices_committed, late_data_reconciled
from tests import forks
from tests.lake import Device, count_anew, read_counts, read_states
from tests.scenarios import killed_run
from tests.ticks import SensorTicks
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

# What the process of a run has imported when it starts.
OF_A_RUN = ("dagster._cli", "jobs.late_data_integrator", "pyspark.sql.connect.dataframe", "pandas")

DAYS = [f"2024-01-0{number}" for number in range(1, 8)]
DAY = DAYS[1]

SELECTED = ",".join(key.to_user_string() for key in TARGETS)

COMMITTED = list(killed_run.STEPS).index("the commit has its name")
TOLD = list(killed_run.STEPS).index("Dagster knows of the counts")


@pytest.fixture(scope="module")
def prepared(spark_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with seven days of devices, one of which has been counted and is late."""
    home = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEDP_HOME", str(home))
        patch.setenv("DEDP_SPARK_REMOTE", spark_server)
        patch.delenv("DEDP_DATA_URI", raising=False)
        (home / "dagster").mkdir()
        (home / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        system = System(home)
        system.load(*DAYS)
        with system.instance() as instance:
            SensorTicks(devices_committed, instance, resources={"lake": LakeFromSettings()}, records_events=True)()
            materialize(instance, DAY)
        system.load(DAY)
    return home


@pytest.fixture
def system(prepared: Path, own_home: Path, spark_remote: str, monkeypatch: pytest.MonkeyPatch) -> "System":
    """The test's own copy of it."""
    shutil.copytree(prepared, own_home, dirs_exist_ok=True)
    monkeypatch.setenv("DAGSTER_HOME", str(own_home / "dagster"))
    return System(own_home)


class System:
    """A home without a daemon, its tables, and runs that its user starts."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def load(self, *days: str) -> None:
        """100 devices for each day, in a commit each."""
        for day in days:
            producer.load(contract.uri(contract.DEVICES), date.fromisoformat(day), producer.generated(100))

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(self.home / "dagster")) as instance:
            yield instance

    def start(self, *partition: str, select: str = SELECTED, stop_at: str = "") -> "Run":
        """`dagster asset materialize`; `partition`: its options for that."""
        mark = self.home / f"there {time.monotonic_ns()}"
        command = ["killed_run.py", stop_at, str(mark), "asset", "materialize"]
        selected = ["-m", "jobs.late_data_integrator", "--select", select, *partition]
        said = self.home / f"said {mark.name}"
        said.touch()
        # In its home, by which it is found if it is left running.
        main = f"{killed_run.__name__}:main"
        process = forks.start(main, [*command, *selected], said, said, self.home, imports=OF_A_RUN)
        return Run(process, mark, said)

    def version(self, key: dg.AssetKey) -> int:
        return DeltaTable(contract.uri(key)).version()

    def commits(self, after: int) -> list[list[str]]:
        """Which days each commit to the counts has written, after a version."""
        return [sorted(commit.changes) for commit in DeltaLog(contract.uri(contract.DEVICE_COUNTS)).commits(after)]

    def counts(self, day: str) -> Counter[Device]:
        return read_counts(contract.uri(contract.DEVICE_COUNTS), day)

    def recount(self, day: str, version: int | None = None) -> Counter[Device]:
        return count_anew(contract.uri(contract.DEVICES), day, version)

    def recorded(self, day: str) -> int | None:
        """The version of the input that a day's counts reflect, as they say themselves."""
        known = open_counts(LakeFromSettings()).recorded(open_devices_log(LakeFromSettings()).snapshot().table_id, day)
        return known and known.version

    def state(self) -> dict[str, tuple[bool, int | None]]:
        return read_states(contract.uri(contract.PARTITIONS_STATE))

    def configuration(self, day: str) -> str | None:
        path = Path(f"{contract.uri(contract.BACKFILLING_CONFIGURATION)}_{day}.json")
        return path.read_text() if path.exists() else None


@dataclass
class Run:
    """A run in a process of its own, which stops at a step if it was told to."""

    process: forks.Fork
    mark: Path
    output: Path

    @property
    def said(self) -> str:
        return self.output.read_text()

    def wait_until_there(self) -> None:
        """Until it has stopped at its step, or was killed there."""
        wait_until(lambda: self.mark.exists() or self.process.poll() is not None)
        assert self.process.poll() in (None, -signal.SIGSYS), self.said

    def kill(self) -> None:
        self.process.kill()
        self.mark.unlink(missing_ok=True)  # Spark may go on

    def go_on(self) -> None:
        self.mark.unlink()

    def succeeds(self) -> str:
        """Waits for its end; returns what it said."""
        assert self.process.wait() == 0, self.said
        return self.said


def materialize(instance: dg.DagsterInstance, day: str) -> None:
    """The same in this process, where Spark is imported already."""
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, partition_key=day, asset_selection=TARGETS).success


def behind(instance: dg.DagsterInstance) -> set[str]:
    """The days that a tick of the reconciling sensor finds behind their input."""
    return set(
        reconciliation.from_json(
            SensorTicks(late_data_reconciled, instance, resources={"lake": LakeFromSettings()})().cursor
        )
    )


@pytest.mark.parametrize("step", killed_run.STEPS)
def test_a_run_killed_at_any_step_leaves_old_or_new_counts_and_the_next_run_does_what_is_left(
    system: System, step: str, left_running: Callable[[Path], list[str]]
) -> None:
    if killed_run.STEPS[step][0] in killed_run.SYSTEM_CALLS and (sys.platform, platform.machine()) != (
        "linux",
        "x86_64",
    ):
        pytest.skip("the numbers of system calls are those of Linux on x86-64")
    number = list(killed_run.STEPS).index(step)
    old, new = system.recorded(DAY), system.version(contract.DEVICES)
    written = system.version(contract.DEVICE_COUNTS)

    run = system.start("--partition", DAY, stop_at=step)
    run.wait_until_there()
    assert system.state()[DAY][0] == (number < list(killed_run.STEPS).index("Dagster knows of the counts"))
    run.kill()
    wait_until(lambda: not left_running(system.home))

    assert system.recorded(DAY) == (new if number >= COMMITTED else old)
    assert system.counts(DAY) == system.recount(DAY, system.recorded(DAY))
    assert system.counts(DAY).total() == (200 if number >= COMMITTED else 100)
    with system.instance() as instance:
        assert (DAY in behind(instance)) == (number < TOLD)
        assert system.state() == {DAY: (False, system.recorded(DAY))}

        materialize(instance, DAY)
        assert system.version(contract.DEVICE_COUNTS) == written + 1
        assert system.counts(DAY) == system.recount(DAY)
        assert system.state() == {DAY: (False, new)}
        assert system.configuration(DAY) == '{"partitions":[]}'
        assert DAY not in behind(instance)


def test_a_run_killed_with_a_spark_server_of_its_own_leaves_no_java(
    system: System, left_running: Callable[[Path], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEDP_SPARK_REMOTE")
    run = system.start("--partition", DAY, stop_at="Spark computes")
    run.wait_until_there()
    assert any("java" in process for process in left_running(system.home))
    run.process.kill()
    wait_until(lambda: not left_running(system.home))


def test_a_run_whose_spark_server_is_killed_tries_again_with_another_one(
    system: System, left_running: Callable[[Path], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEDP_SPARK_REMOTE")
    run = system.start("--partition", DAY, stop_at="Spark computes")
    run.wait_until_there()
    (java,) = (process for process in psutil.Process(run.process.pid).children(recursive=True) if is_java(process))
    java.kill()
    run.go_on()
    said = run.succeeds()
    assert "STEP_UP_FOR_RETRY" in said
    assert system.counts(DAY) == system.recount(DAY)
    assert system.state() == {DAY: (False, system.version(contract.DEVICES))}
    wait_until(lambda: not left_running(system.home))


def test_a_run_that_finds_no_spark_server_names_it_and_the_next_run_counts(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as gone:
        gone.setenv("DEDP_SPARK_REMOTE", "sc://localhost:1")
        run = system.start("--partition", DAY)
    assert run.process.wait() == 1
    assert "the Spark Connect server at sc://localhost:1 can't be used" in run.said
    assert system.counts(DAY).total() == 100
    system.start("--partition", DAY).succeeds()
    assert system.counts(DAY) == system.recount(DAY)
    assert system.state() == {DAY: (False, system.version(contract.DEVICES))}


def is_java(process: psutil.Process) -> bool:
    return bool(process.name() == "java")


def test_of_two_runs_of_a_day_at_once_one_writes_and_the_other_has_nothing_to_do(system: System) -> None:
    written = system.version(contract.DEVICE_COUNTS)
    slow = system.start("--partition", DAY, stop_at="the counts were computed")
    slow.wait_until_there()
    fast = system.start("--partition", DAY)
    assert f"{DAY}: counted 200 rows (before: 100)" in fast.succeeds()
    slow.go_on()
    assert f"{DAY}: nothing to do" in slow.succeeds()
    assert system.version(contract.DEVICE_COUNTS) == written + 1
    assert system.counts(DAY) == system.recount(DAY)
    assert system.state() == {DAY: (False, system.version(contract.DEVICES))}


def test_of_two_runs_of_overlapping_ranges_each_writes_what_the_other_has_not(system: System) -> None:
    written = system.version(contract.DEVICE_COUNTS)
    slow = system.start("--partition-range", f"{DAYS[0]}...{DAYS[3]}", stop_at="the counts were computed")
    slow.wait_until_there()
    system.start("--partition-range", f"{DAYS[2]}...{DAYS[5]}").succeeds()
    slow.go_on()
    slow.succeeds()
    assert system.commits(after=written) == [DAYS[2:6], DAYS[:2]]
    assert all(system.counts(day) == system.recount(day) for day in DAYS[:6])
    assert system.state() == {day: (False, system.version(contract.DEVICES)) for day in DAYS[:6]}


def test_a_range_of_days_is_one_commit_and_a_second_run_of_it_is_none(system: System) -> None:
    written = system.version(contract.DEVICE_COUNTS)
    for _ in range(2):
        system.start("--partition-range", f"{DAYS[0]}...{DAYS[5]}", select="lake/device_counts*").succeeds()
        assert system.commits(after=written) == [DAYS[:6]]
    assert all(system.counts(day) == system.recount(day) for day in DAYS[:6])
    assert system.state() == {day: (False, system.version(contract.DEVICES)) for day in DAYS[:6]}
