"""When runs were requested, and that no two of the same thing were under way at once."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioError

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


@dg.asset(partitions_def=DAYS)
def orders() -> None: ...


@dg.asset
def report() -> None: ...


NIGHTLY = dg.build_schedule_from_partitioned_job(
    dg.define_asset_job("nightly_job", [orders]),
    name="nightly",
    hour_of_day=2,
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
COMPANY = dg.Definitions(assets=[orders, report], jobs=[dg.define_asset_job("job", [report])], schedules=[NIGHTLY])


def false(expectation: Callable[..., Any], *arguments: Any, **named: Any) -> list[str]:
    """The lines of what a false expectation says, without the timeline."""
    with pytest.raises(AssertionError) as error:
        expectation(*arguments, **named)
    return str(error.value).split("\ntimeline")[0].splitlines()


def test_when_runs_were_requested_is_asked_for_apart_from_what_came_of_them(scenario: Scenario) -> None:
    scenario.start("2024-01-03 12:00")
    scenario.load(COMPANY)
    scenario.fail("orders")
    scenario.hold("orders", partition="2024-01-04")
    mark = scenario.mark("noon")
    scenario.at("2024-01-05 12:00")
    # One failed, one is held: both were requested.
    requested = scenario.expect("orders").requested("2024-01-03", "2024-01-04", since=mark).by_schedule("nightly")
    requested.requested_at("2024-01-04 02:00", "2024-01-05 02:00").requested_within(days=2)
    scenario.expect("orders").requested(times=2).nothing_else()
    scenario.expect_job("nightly_job").requested("2024-01-03", "2024-01-04")
    scenario.expect("report").not_requested()
    assert false(requested.requested_at, "2024-01-04 02:00") == [
        "expected orders to be requested at 2024-01-04 02:00:00 since 'noon' (2024-01-03 12:00:00), but 1 was not",
        "  run 2 at 2024-01-05 02:00:00, requested by schedule nightly",
    ]
    assert false(requested.requested_within, hours=14)[0] == (
        "expected orders to be requested within 14 h, until 2024-01-04 02:00:00 "
        "since 'noon' (2024-01-03 12:00:00), but 1 was not"
    )
    assert false(scenario.expect("orders").requested, "2024-01-02")[:2] == [
        "expected orders to be requested for 2024-01-02, but it was for 2024-01-03, 2024-01-04",
        "  no run was requested for 2024-01-02",
    ]
    assert false(scenario.expect("orders").not_requested)[0] == (
        "expected orders to be not requested, but it was for 2024-01-03, 2024-01-04"
    )
    assert false(scenario.expect_job("job").requested)[1] == "  no run was requested"
    with pytest.raises(ScenarioError, match=r"requested_within\(\.\.\.\) counts from a mark"):
        scenario.expect("orders").requested().requested_within(hours=1)
    with pytest.raises(ScenarioError, match="2 runs and 3 times"):
        requested.requested_at("2024-01-04 02:00", "2024-01-05 02:00", "2024-01-06 02:00")


def test_what_was_materialized_late_was_requested_in_time(scenario: Scenario) -> None:
    scenario.load(COMPANY)
    scenario.takes("report", hours=3)
    mark = scenario.mark()
    scenario.launch("job")
    scenario.advance(hours=4)
    scenario.expect("report").materialized(since=mark).requested_within(minutes=1).requested_at("2024-01-01 00:00")


def test_no_two_runs_of_the_same_partition_were_under_way_at_once(scenario: Scenario) -> None:
    scenario.start("2024-01-05")
    scenario.load(COMPANY)
    scenario.takes("orders", minutes=10)
    for day in ("2024-01-01", "2024-01-02"):
        scenario.materialize("orders", partition=day)
    scenario.advance(minutes=10)
    # It begins when the first one has ended.
    scenario.materialize("orders", partition="2024-01-01")
    scenario.advance(minutes=5)
    scenario.expect("orders").never_overlapped()
    assert false(scenario.expect("orders").never_overlapped, any_partition=True) == [
        "expected orders to be never under way twice at once, but it was",
        "  run 1 (orders [2024-01-01]) from 2024-01-05 00:00:00 to 2024-01-05 00:10:00, and "
        "run 2 (orders [2024-01-02]) from 2024-01-05 00:00:00 to 2024-01-05 00:10:00",
    ]
    mark = scenario.mark()
    scenario.materialize("orders", partition="2024-01-01")
    scenario.advance(minutes=1)
    assert false(scenario.expect("orders").never_overlapped) == [
        "expected orders to be never under way twice at once for the same partition, but it was",
        "  run 3 (orders [2024-01-01]) from 2024-01-05 00:10:30 on, and "
        "run 4 (orders [2024-01-01]) from 2024-01-05 00:15:30 on",
    ]
    scenario.advance(hours=1)
    scenario.expect("orders").never_overlapped(since=scenario.mark())
    assert "run 4 (orders [2024-01-01]) from" in false(scenario.expect("orders").never_overlapped, since=mark)[1]


def test_runs_of_one_job_at_once_and_one_after_another(scenario: Scenario) -> None:
    scenario.load(COMPANY)
    scenario.launch("job")
    scenario.launch("job")
    scenario.run_until_quiet()
    # Nothing takes time by itself: one begins when the other has ended.
    scenario.expect_job("job").never_overlapped()
    scenario.hold("report")
    scenario.launch("job")
    scenario.launch("job")
    scenario.run_until_quiet()
    assert false(scenario.expect_job("job").never_overlapped)[1].startswith("  run 3 (report) from 2024-01-01 00:0")


def test_a_killed_run_is_not_under_way_any_more(scenario: Scenario) -> None:
    scenario.load(COMPANY)
    scenario.kill("report")
    scenario.materialize("report")
    scenario.run_until_quiet()
    scenario.materialize("report")
    scenario.run_until_quiet()
    assert [run.status for run in scenario.timeline.runs.values()] == ["killed", "succeeded"]
    scenario.expect("report").never_overlapped()
