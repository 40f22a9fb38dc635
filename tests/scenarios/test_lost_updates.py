"""Updates that Dagster's own conditions lose, each in its smallest schedule, and that `on_input_change` does not.

The source's value is what someone else wrote; the output is the value that the last run read. An update is lost when
everything is at rest and the output is older than the source.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario

from sensors.automation import automation_sensor, on_input_change

DAYS = dg.DailyPartitionsDefinition("2024-01-01")

Condition = dg.AutomationCondition[Any]


def eager() -> Condition:
    """What Dagster recommends."""
    return dg.AutomationCondition.eager()


def eager_in_any_window() -> Condition:
    """What Dagster's documentation suggests for late partitions."""
    return dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())


def updated_since_requested() -> Condition:
    """What one would write oneself."""
    changed = dg.AutomationCondition.newly_missing() | dg.AutomationCondition.any_deps_updated()
    return (
        changed.since(dg.AutomationCondition.newly_requested())
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.in_progress()
    )


class Pipeline:
    """A source that someone else writes, and an output that follows it by a condition."""

    def __init__(self, scenario: Scenario, folder: Path, condition: Condition) -> None:
        self.scenario = scenario
        self.written: dict[str, str] = {}
        self.read: dict[str, str] = {}

        @dg.asset(partitions_def=DAYS, deps=["source"], automation_condition=condition)
        def report(context: dg.AssetExecutionContext) -> None:
            self.read[context.partition_key] = self.written[context.partition_key]

        scenario.load(
            dg.Definitions(
                assets=[dg.AssetSpec("source", partitions_def=DAYS), report],
                sensors=[automation_sensor()],
                executor=dg.in_process_executor,
            )
        )

    def write(self, day: str, value: str) -> None:
        """Someone else writes a value into a day of the source, and says so."""
        self.written[day], self.last = value, (day, value)
        self.scenario.report("source", day, data_version=value)

    @property
    def lost(self) -> dict[str, str]:
        """The values that nobody will read any more."""
        return {day: value for day, value in self.written.items() if self.read.get(day) != value}


@pytest.fixture
def pipeline(scenario: Scenario, tmp_path: Path) -> Callable[[Condition], Pipeline]:
    """A pipeline by a condition, at the ninth of January, with its first seven days loaded and processed."""

    def start(condition: Condition) -> Pipeline:
        scenario.start("2024-01-09 08:00")
        pipeline = Pipeline(scenario, tmp_path, condition)
        scenario.tick()  # the condition has seen the world as it was
        for day in range(1, 8):
            pipeline.write(f"2024-01-0{day}", "first")
            # By hand, so that every condition starts from the same state.
            scenario.materialize("report", partition=f"2024-01-0{day}")
        scenario.run_until_quiet()
        assert pipeline.lost == {}
        return pipeline

    return start


def late_data_in_an_old_partition(pipeline: Pipeline) -> None:
    """The third of January changes, six days late."""
    pipeline.write("2024-01-03", "late")
    pipeline.scenario.run_until_quiet()


def an_update_while_the_run_is_under_way(pipeline: Pipeline) -> None:
    """A run has read the source and is still computing, over several ticks, when the source changes again."""
    scenario = pipeline.scenario
    pipeline.write("2024-01-08", "first")
    scenario.hold("report", at="end", partition="2024-01-08")
    scenario.run_until_quiet()
    if "2024-01-08" not in pipeline.read:
        scenario.materialize("report", partition="2024-01-08")
        scenario.run_until_quiet()
    pipeline.write("2024-01-08", "while it ran")
    scenario.run_until_quiet()
    scenario.release()
    scenario.run_until_quiet()


def an_update_between_the_request_and_the_next_tick(pipeline: Pipeline) -> None:
    """A run was requested, has started and read the source; the source changes before the condition looks again."""
    scenario = pipeline.scenario
    pipeline.write("2024-01-08", "first")
    scenario.advance(seconds=30)
    assert pipeline.read["2024-01-08"] == "first"
    pipeline.write("2024-01-08", "before the next tick")
    scenario.run_until_quiet()


LOST = [
    (eager, late_data_in_an_old_partition),
    (eager_in_any_window, an_update_while_the_run_is_under_way),
    (updated_since_requested, an_update_between_the_request_and_the_next_tick),
]
SCHEDULES = [
    late_data_in_an_old_partition,
    an_update_while_the_run_is_under_way,
    an_update_between_the_request_and_the_next_tick,
]


@pytest.mark.parametrize(("condition", "schedule"), LOST, ids=lambda function: function.__name__)
def test_dagsters_condition_loses_an_update(
    pipeline: Callable[[Condition], Pipeline],
    condition: Callable[[], Condition],
    schedule: Callable[[Pipeline], None],
) -> None:
    started = pipeline(condition())
    schedule(started)
    started.scenario.expect_runs().none_under_way()
    assert started.lost == dict([started.last]), started.scenario.timeline


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda function: function.__name__)
def test_on_input_change_loses_none(
    pipeline: Callable[[Condition], Pipeline], schedule: Callable[[Pipeline], None]
) -> None:
    started = pipeline(on_input_change())
    schedule(started)
    started.scenario.expect_runs().none_under_way()
    started.scenario.expect_runs().none_failed()
    assert started.lost == {}, started.scenario.timeline
