"""The late-data integrator in the real running system: from the first load to late data, outages and kills."""

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from deltalake import DeltaTable

from dedp_assets.late_data_integrator import contract
from tests.lake import count_anew, read_counts, read_states
from tests.scenarios.system import System, temporary_home

pytestmark = pytest.mark.slow

DAYS = [f"2024-01-0{number}" for number in range(1, 8)]
CLOSED, SECOND, THIRD, FOURTH = DAYS[:6], *DAYS[1:4]


class Integrator(System):
    """The running system, as who loads and reads Delta tables sees it."""

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    def is_counted(self, day: str) -> bool:
        """Whether the counts of a day are those of its devices now."""
        return read_counts(str(self.lake / "device_counts"), day) == count_anew(str(self.lake / "devices"), day)

    def state(self) -> dict[str, tuple[bool, int | None]]:
        return read_states(str(self.lake / "partitions_state"))

    def runs(self, *days: str) -> list[dg.RunRecord]:
        """The runs that count these days, oldest first."""
        found = self.instance.get_run_records()[::-1]
        counting = [found for found in found if contract.DEVICE_COUNTS in (found.dagster_run.asset_selection or ())]
        return [found for found in counting if found.dagster_run.tags["dagster/partition"] in days]

    def wait_until_counted(self, *days: str) -> None:
        """Wait until those days are counted, by runs that are all over and have said so."""
        self.wait_until(lambda: all(map(self.is_counted, days)))
        self.wait_until(lambda: all(run.dagster_run.is_finished for run in self.runs(*days)))
        self.wait_until(lambda: {self.state()[day][0] for day in days} == {False})

    def spark(self) -> psutil.Process:
        """The Spark server that all runs share."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "java" and any(str(self.home) in word for word in process.cmdline()):
                    return process
        raise LookupError(f"there is no java for {self.home}")


@pytest.fixture
def system() -> Iterator[Integrator]:
    with temporary_home() as home:
        system = Integrator(home)
        yield system
        system.down()


def has_failed(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    assert run
    return run.is_failure


def most_at_once(runs: list[dg.RunRecord]) -> int:
    """How many of the runs were under way at the same time."""
    return max(
        sum(other.start_time <= run.start_time < other.end_time for other in runs)  # type: ignore[operator]
        for run in runs
    )


def test_late_data_while_everything_is_down_and_a_run_that_is_killed(
    system: Integrator, left_running: Callable[[Path], list[str]]
) -> None:
    system.up()
    system.dedp("load-delta", *DAYS)
    system.wait_until(lambda: DeltaTable.is_deltatable(str(system.lake / "device_counts")))
    system.wait_until_counted(*CLOSED)
    assert [run.dagster_run.status.value for run in system.runs(*DAYS)] == ["SUCCESS"] * 6
    assert most_at_once(system.runs(*DAYS)) <= 3
    assert system.state() == {day: (False, 6) for day in CLOSED}

    system.down()
    assert left_running(system.home) == []
    system.dedp("load-delta", SECOND, THIRD)
    command = ["dagster", "asset", "materialize", "-m", "jobs.late_data_integrator"]
    system.dedp("exec", "--", *command, "--select", "lake/device_counts*", "--partition", THIRD)
    configuration = system.lake / f"backfilling_configuration_{THIRD}.json"
    assert configuration.read_text() == f'{{"partitions":["event_time={SECOND}"]}}'
    assert system.state() == {**{day: (False, 6) for day in CLOSED}, THIRD: (False, 8)}
    assert left_running(system.home) == []

    system.up()
    system.wait_until_counted(SECOND, THIRD)
    assert len(system.runs(SECOND)) == 2, "when it was closed, and when it was late"

    spark = system.spark()
    spark.suspend()  # and with it every run, in the middle
    system.dedp("load-delta", FOURTH)
    system.wait_until(lambda: system.state()[FOURTH] == (True, 6))
    killed = system.runs(FOURTH)[-1].dagster_run
    psutil.Process(system.process_of(killed)).send_signal(signal.SIGKILL)
    system.wait_until(lambda: has_failed(system.instance, killed.run_id))
    assert not system.is_counted(FOURTH)
    spark.resume()
    system.wait_until_counted(FOURTH)
    system.wait_until(lambda: not any(processing for processing, _ in system.state().values()))
    assert system.state()[FOURTH] == (False, 9)
    assert len(system.runs(SECOND)) == 2
    assert DeltaTable(str(system.lake / "device_counts")).version() == 6 + 2 + 1

    system.down()
    assert left_running(system.home) == []
