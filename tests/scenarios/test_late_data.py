"""The late-data integrator, played on a simulated clock: a real Delta table, a real Spark server.

Each test is a story of what happens to a day's data.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster_scenario import Scenario
from deltalake import DeltaTable

from dedp_assets import settings
from dedp_assets.cli import dedp
from dedp_assets.late_data_integrator import assets, contract
from tests.lake import Device, count_anew, read_counts, read_states

LOCATION = "jobs.late_data_integrator"
DEVICES, COUNTS, STATE, CONFIGURATION = (
    key.to_user_string()
    for key in (contract.DEVICES, contract.DEVICE_COUNTS, contract.PARTITIONS_STATE, contract.BACKFILLING_CONFIGURATION)
)
FIRST_SEVEN = [f"2024-01-0{number}" for number in range(1, 8)]
# Each day takes a query of Spark. Most stories need no more than these, of which the last one is not closed.
FIRST_FOUR = FIRST_SEVEN[:4]


@pytest.fixture
def scenario_settings() -> Path:
    """The deployment's own: its run queue, its pools, its monitoring, its retries."""
    return settings.REPOSITORY / "docker" / "dagster.yaml"


@pytest.fixture
def integrator(scenario: Scenario, spark_remote: str) -> Scenario:
    """On the morning of the ninth of January; nothing has arrived yet."""
    scenario.start("2024-01-09 08:00")
    scenario.load(LOCATION)
    scenario.run_until_quiet()
    return scenario


@pytest.fixture
def lake(integrator: Scenario) -> "Lake":
    return Lake(integrator)


@pytest.fixture
def processed(integrator: Scenario, lake: "Lake") -> Scenario:
    """Four days were loaded and the three that are closed have been processed."""
    lake.load(*FIRST_FOUR)
    integrator.run_until_quiet()
    return integrator


class Lake:
    """The table that others write, and what has come of it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.folder = Path(settings.data_uri())

    def load(self, *days: str) -> None:
        """As its users do: `dedp load-delta DAY...`"""
        done = CliRunner().invoke(dedp, ["load-delta", *days], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        self.scenario.happened(f"dedp load-delta {' '.join(days)}")

    @property
    def devices(self) -> DeltaTable:
        return DeltaTable(contract.uri(contract.DEVICES))

    def recount(self, day: str) -> Counter[Device]:
        return count_anew(contract.uri(contract.DEVICES), day)

    def counts(self, day: str) -> Counter[Device]:
        return read_counts(contract.uri(contract.DEVICE_COUNTS), day)

    def state(self) -> dict[str, tuple[bool, int | None]]:
        return read_states(contract.uri(contract.PARTITIONS_STATE))

    def runs_of(self, day: str) -> list[dg.DagsterRun]:
        """The runs of a day, oldest first."""
        runs = self.scenario.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": day}))
        return [*reversed(runs)]

    def latest_metadata(self, day: str) -> Mapping[str, dg.MetadataValue]:
        """What the UI shows of the day's latest materialization."""
        wanted = dg.AssetRecordsFilter(contract.DEVICE_COUNTS, asset_partitions=[day])
        (record,) = self.scenario.instance.fetch_materializations(wanted, limit=1).records
        assert record.asset_materialization
        return record.asset_materialization.metadata

    def written(self) -> int:
        """How often the counts have been written."""
        return DeltaTable(contract.uri(contract.DEVICE_COUNTS)).version()

    def configuration(self, day: str) -> str:
        return (self.folder / f"backfilling_configuration_{day}.json").read_text()


def test_the_walk_through_of_the_original(integrator: Scenario, lake: Lake) -> None:
    """From empty to the last JSON."""
    lake.load(*FIRST_SEVEN)
    files = [path for path in (lake.folder / "devices").rglob("*") if path.is_file()]
    folders = [path for path in (lake.folder / "devices").rglob("*") if path.is_dir()]
    assert (len(folders), len(files)) == (8, 14)

    integrator.run_until_quiet()
    integrator.expect(DEVICES).materialized(*FIRST_SEVEN)
    integrator.expect(COUNTS).materialized(*FIRST_SEVEN[:6], in_any_order=True).by_automation("follow_inputs")
    integrator.expect_runs().none_failed()
    integrator.expect_runs().no_slot_held_while_waiting()
    assert all(lake.counts(day) == lake.recount(day) for day in FIRST_SEVEN[:6])
    assert lake.counts("2024-01-07") == Counter()
    assert lake.state() == {day: (False, 6) for day in FIRST_SEVEN[:6]}

    integrator.stop_daemons("sensors", "automation")
    late = integrator.mark("late data, nobody is looking")
    lake.load("2024-01-02", "2024-01-03")
    integrator.materialize(COUNTS, STATE, CONFIGURATION, partition="2024-01-03")
    integrator.run_until_quiet()
    assert lake.configuration("2024-01-03") == '{"partitions":["event_time=2024-01-02"]}'
    assert lake.state()["2024-01-02"] == (False, 6)
    assert lake.state()["2024-01-03"] == (False, 8)

    integrator.start_daemons()
    integrator.run_until_quiet()
    assert len(lake.runs_of("2024-01-02")) == 2, "once when it was closed, once when it was late"
    integrator.expect(COUNTS).materialized("2024-01-03", "2024-01-02", "2024-01-03", since=late)
    assert lake.written() == 6 + 2, "the second run of the third found nothing to do"
    assert lake.counts("2024-01-02") == lake.recount("2024-01-02")
    assert lake.counts("2024-01-02").total() == 200


def test_late_data_re_runs_its_day_and_no_other_and_says_why(processed: Scenario, lake: "Lake") -> None:
    late = processed.mark("late data")
    lake.load("2024-01-02")
    processed.run_until_quiet()
    processed.expect(COUNTS).materialized("2024-01-02", since=late).by_automation("follow_inputs")
    run = lake.runs_of("2024-01-02")[-1]
    assert run.tags["dedp/late_commits"] == "4"
    assert "days" in run.tags["dedp/lateness"]
    metadata = lake.latest_metadata("2024-01-02")
    assert (metadata["input_rows_before"].value, metadata["input_rows"].value) == (100, 200)
    assert metadata["late_commits"].value == "4"
    hours = metadata["lateness_hours"].value
    assert isinstance(hours, float | int)
    assert hours > 24


def test_compaction_and_vacuum_are_not_late_data(processed: Scenario, lake: "Lake") -> None:
    lake.load("2024-01-02")
    processed.run_until_quiet()
    quiet = processed.mark("nothing but maintenance")
    lake.devices.optimize.compact()
    lake.devices.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    processed.happened("the table was compacted and vacuumed")
    processed.advance(hours=3)
    processed.expect(COUNTS).not_materialized(since=quiet)


def test_a_day_that_is_deleted_is_followed(processed: Scenario, lake: "Lake") -> None:
    lake.devices.delete("event_time = '2024-01-03'")
    processed.happened("the third of January is deleted")
    processed.run_until_quiet()
    assert lake.counts("2024-01-03") == Counter()
    assert lake.latest_metadata("2024-01-03")["input_rows"].value == 0


def test_data_that_lands_while_its_day_is_being_counted_is_counted_next(processed: Scenario, lake: "Lake") -> None:
    lake.load("2024-01-02")
    processed.hold(COUNTS, after=f"{assets.__name__}.count_devices", partition="2024-01-02")
    processed.run_until_quiet()
    assert lake.state()["2024-01-02"] == (True, 3)
    lake.load("2024-01-02")
    processed.run_until_quiet()
    processed.release()
    processed.run_until_quiet()
    assert lake.counts("2024-01-02") == lake.recount("2024-01-02")
    assert lake.counts("2024-01-02").total() == 300
    assert lake.state()["2024-01-02"] == (False, 5)


def test_a_run_that_fails_is_asked_for_again_without_a_new_commit(processed: Scenario, lake: "Lake") -> None:
    processed.fail(COUNTS, times=4, partition="2024-01-02")
    lake.load("2024-01-02")
    processed.run_until_quiet()
    assert lake.counts("2024-01-02").total() == 100
    processed.advance(minutes=10)
    assert lake.counts("2024-01-02").total() == 200
    assert "reconciliation" in lake.runs_of("2024-01-02")[-1].tags["dedp/cause"]
    assert lake.state()["2024-01-02"] == (False, 4)


def test_a_run_that_has_failed_for_good_is_not_processing(processed: Scenario, lake: "Lake") -> None:
    processed.turn_off("late_data_reconciled")
    processed.fail(COUNTS, times=4, after=f"{assets.__name__}.count_devices", partition="2024-01-02")
    lake.load("2024-01-02")
    processed.run_until_quiet()
    assert lake.runs_of("2024-01-02")[-1].status == dg.DagsterRunStatus.FAILURE
    assert lake.state()["2024-01-02"] == (False, 3)


def test_two_runs_that_end_at_once_leave_neither_day_processing(processed: Scenario, lake: "Lake") -> None:
    processed.turn_off("late_data_reconciled")
    lake.load("2024-01-02", "2024-01-03")
    processed.hold(CONFIGURATION, partition="2024-01-02")
    processed.run_until_quiet()
    # The run of the second has yet to write its file when that of the third says how far every day is.
    assert lake.runs_of("2024-01-02")[-1].status == dg.DagsterRunStatus.STARTED
    assert [lake.state()[day] for day in ("2024-01-02", "2024-01-03")] == [(False, 5), (False, 5)]
    assert lake.configuration("2024-01-03") == '{"partitions":[]}'


def test_a_daemon_that_was_down_misses_nothing(processed: Scenario, lake: "Lake") -> None:
    processed.stop_daemons()
    lake.load("2024-01-02", "2024-01-03", "2024-01-02")
    processed.advance(hours=12)
    back = processed.mark("the daemon is back")
    processed.start_daemons()
    processed.run_until_quiet()
    processed.expect(COUNTS).materialized("2024-01-02", "2024-01-03", since=back, in_any_order=True)
    assert all(lake.counts(day) == lake.recount(day) for day in FIRST_FOUR[:3])


@pytest.mark.slow
def test_three_days_at_a_time(integrator: Scenario, lake: "Lake") -> None:
    lake.load(*FIRST_SEVEN)
    integrator.hold(COUNTS, at="start")
    integrator.run_until_quiet()
    statuses = Counter(run.status.value for run in integrator.instance.get_runs())
    assert statuses == {"STARTED": 3, "QUEUED": 3}
    assert sum(processing for processing, _ in lake.state().values()) in (0, 6)
    integrator.release()
    integrator.run_until_quiet()
    integrator.expect(COUNTS).materialized(*FIRST_SEVEN[:6], in_any_order=True)


def test_many_days_at_once_are_one_run(integrator: Scenario, lake: "Lake") -> None:
    integrator.turn_off("follow_inputs", "late_data_reconciled")
    lake.load(*FIRST_SEVEN)
    integrator.run_until_quiet()
    integrator.backfill(COUNTS, partitions=FIRST_SEVEN[:6])
    integrator.run_until_quiet()
    assert len(integrator.timeline.runs) == 1
    assert lake.written() == 1
    assert all(lake.counts(day) == lake.recount(day) for day in FIRST_SEVEN[:6])
