"""A long timeline is shortened, and what a false expectation asks about stays in it."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


@dg.asset(partitions_def=DAYS)
def orders() -> None: ...


@dg.asset
def other() -> None: ...


@dg.sensor(target=other, default_status=dg.DefaultSensorStatus.RUNNING)
def looking() -> dg.SkipReason:
    return dg.SkipReason(reasons[-1])


@dg.sensor(target=other, default_status=dg.DefaultSensorStatus.RUNNING)
def also_looking() -> dg.SkipReason:
    return dg.SkipReason("nothing")


reasons = ["no file yet"]
nightly = dg.ScheduleDefinition(
    name="nightly", cron_schedule="0 1 * * *", job=dg.define_asset_job("night", [other]), execution_timezone="UTC"
)


@pytest.fixture
def long(scenario: Scenario) -> Scenario:
    """A run of one partition, one of another asset, and then very much that is of no interest."""
    scenario.start("2024-01-10")
    scenario.load(dg.Definitions(assets=[orders, other], sensors=[looking, also_looking], schedules=[nightly]))
    for number in range(30):
        scenario.happened(f"before {number}")
    scenario.materialize("orders", partition="2024-01-05")
    for day in range(1, 8):
        scenario.materialize("orders", partition=f"2024-01-0{day}")
    scenario.launch("night")
    scenario.run_until_quiet()
    for number in range(100):
        scenario.happened(f"after {number}")
    return scenario


def shown(expectation: Callable[..., Any], *arguments: Any, **named: Any) -> list[str]:
    """The timeline that a false expectation shows."""
    with pytest.raises(AssertionError) as error:
        expectation(*arguments, **named)
    return str(error.value).split("\ntimeline")[1].splitlines()[1:]


def about(lines: list[str], text: str) -> list[str]:
    return [line.split()[2] for line in lines if text in line]


def test_lines_about_the_partition_in_question_are_never_cut_or_counted(long: Scenario) -> None:
    lines = shown(long.expect("orders").failed, "2024-01-05")
    for run in ("run 1 ", "run 6 "):
        assert about(lines, run) == ["requested", "started", "materialized", "succeeded"]
    assert about(lines, "run 2 ") == []
    assert len(lines) < 80
    # So are those of partitions that were not to be there.
    assert len(about(shown(long.expect("orders").materialized, "2024-01-05", "2024-01-05"), "run 2 ")) == 4


def test_lines_about_the_asset_the_job_and_the_run_in_question_are_never_cut(long: Scenario) -> None:
    for expectation in (
        long.expect("other").failed,
        long.expect_job("night").failed,
        long.expect("other").materialized().by_sensor,
        long.expect_job("night").succeeded().by_schedule,
    ):
        assert about(shown(expectation), "run 9 ") == ["requested", "started", "materialized", "succeeded"]
    lines = shown(long.expect("orders").not_materialized)
    assert about(lines, "8 times: orders [") == ["requested", "started", "materialized", "succeeded"]


def test_lines_about_the_sensor_or_schedule_in_question_are_never_cut(long: Scenario) -> None:
    assert about(shown(long.expect_sensor("looking").failed), "looking skipped: no file yet") == ["sensor"]
    assert about(shown(long.expect("orders").materialized, times=1), "looking skipped: no file yet") == []
    long.fail("nightly", error="the calendar is away")
    long.turn_on("nightly")
    long.at("01:00")
    for number in range(100):
        long.happened(f"later {number}")
    assert about(shown(long.expect_schedule("nightly").requested), "the calendar is away") == ["schedule"]
