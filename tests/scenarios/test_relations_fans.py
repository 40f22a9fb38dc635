"""Pipelines that start each other: one starts many, many start one. The examples of docs/relations.md, played."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster_scenario import Scenario

import dedp_assets

EXAMPLES = Path(dedp_assets.__file__).parent.parent / "examples" / "relations"
FOLLOWERS = ("statistics", "archive", "price_tags")
NO_NEWS = {"ops": {"prices": {"config": {"has_changed": False}}}}
DAY = "2024-01-02"


@pytest.fixture
def fan_out(scenario: Scenario) -> Scenario:
    scenario.load(str(EXAMPLES / "fan_out.py"))
    scenario.tick()
    return scenario


def test_one_pipeline_starts_three_others_many_times_and_only_for_the_supplier_that_has_news(fan_out: Scenario) -> None:
    for supplier in ("supermarket1", "supermarket2", "supermarket1"):
        fan_out.materialize("prices", partition=supplier)
        fan_out.run_until_quiet()
    for follower in FOLLOWERS:
        fan_out.expect(follower).materialized("supermarket1", "supermarket2", "supermarket1").by_automation()
    # The three of them share a run, because they are in one code location.
    fan_out.expect_runs().count(3 + 3)


def test_a_pipeline_that_finds_nothing_new_starts_nobody(fan_out: Scenario) -> None:
    fan_out.materialize("prices", partition="supermarket1", run_config=NO_NEWS)
    fan_out.run_until_quiet()
    fan_out.expect_job("__ASSET_JOB").succeeded(times=1)
    fan_out.expect_runs().count(1)


def test_a_follower_whose_run_fails_does_not_hold_up_the_others(fan_out: Scenario) -> None:
    fan_out.fail("archive")
    fan_out.materialize("prices", partition="supermarket1")
    fan_out.run_until_quiet()
    fan_out.expect("statistics").materialized("supermarket1")
    fan_out.expect("price_tags").materialized("supermarket1")
    fan_out.materialize("prices", partition="supermarket1")
    fan_out.run_until_quiet()
    fan_out.expect("archive").materialized("supermarket1")


def test_a_pipeline_that_was_paused_catches_up(fan_out: Scenario) -> None:
    fan_out.materialize("prices", partition="supermarket1")
    fan_out.run_until_quiet()
    fan_out.turn_off("follow_inputs")
    for supplier in ("supermarket1", "supermarket2", "supermarket1"):
        fan_out.materialize("prices", partition=supplier)
        fan_out.run_until_quiet()
    paused = fan_out.mark()
    fan_out.turn_on("follow_inputs")
    fan_out.run_until_quiet()
    # Once for each supplier, with what is there now.
    for follower in FOLLOWERS:
        fan_out.expect(follower).materialized("supermarket1", "supermarket2", since=paused, in_any_order=True)


@pytest.fixture
def fan_in(scenario: Scenario) -> Iterator[Scenario]:
    """Three pipelines in one code location, and in another one those that follow them."""
    scenario.start("2024-01-04 08:00")
    scenario.load(three=str(EXAMPLES / "three_pipelines.py"))
    scenario.load(followers=str(EXAMPLES / "fan_in.py"))
    for pipeline in ("sales", "stock", "weather"):
        scenario.takes(pipeline, hours=1)
    scenario.tick()
    yield scenario
    scenario.expect_runs().none_failed()
    scenario.expect_runs().none_under_way()


def ends(scenario: Scenario, *pipelines: str, day: str = DAY) -> None:
    """Each of these pipelines runs for a day, and ends at a time of its own."""
    for pipeline in pipelines:
        scenario.materialize(pipeline, partition=day)
        scenario.advance(hours=2)


def times(scenario: Scenario, *followers: str) -> list[int]:
    """How often each of the followers was materialized for the day."""
    key = {name: dg.AssetKey(name) for name in followers}
    records = (scenario.instance.fetch_materializations(key[name], limit=50).records for name in followers)
    return [len([record for record in found if record.partition_key == DAY]) for found in records]


ALL = ("report", "overview", "forecast", "settlement")


@pytest.mark.parametrize(
    "order", [("sales", "stock", "weather"), pytest.param(("weather", "sales", "stock"), marks=pytest.mark.slow)]
)
def test_all_of_these_any_of_these_two_of_three_in_any_order(fan_in: Scenario, order: tuple[str, ...]) -> None:
    seen = []
    for pipeline in order:
        ends(fan_in, pipeline)
        seen.append(times(fan_in, *ALL))
    assert seen == [[0, 1, 0, 0], [0, 2, 1, 0], [1, 3, 2, 1]]
    ends(fan_in, order[1])  # one of them runs again
    assert times(fan_in, *ALL) == [2, 4, 3, 1]
    ends(fan_in, order[0], order[2])  # and now the other two
    assert times(fan_in, *ALL) == [4, 6, 5, 2]


def test_pipelines_that_end_at_the_same_time_make_one_report(fan_in: Scenario) -> None:
    for pipeline in ("sales", "stock", "weather"):
        fan_in.materialize(pipeline, partition=DAY)
    fan_in.advance(hours=2)
    assert times(fan_in, *ALL) == [1, 1, 1, 1]


def test_each_day_waits_for_its_own_inputs(fan_in: Scenario) -> None:
    ends(fan_in, "sales", "stock")
    ends(fan_in, "weather", day="2024-01-03")
    fan_in.expect("report").not_materialized()
    fan_in.expect("overview").materialized(DAY, DAY, "2024-01-03")


def test_a_pipeline_that_is_added_later_gets_the_days_that_are_there(scenario: Scenario) -> None:
    scenario.start("2024-01-04 08:00")
    scenario.load(three=str(EXAMPLES / "three_pipelines.py"))
    for day in ("2024-01-01", DAY):
        for pipeline in ("sales", "stock", "weather"):
            scenario.materialize(pipeline, partition=day)
    scenario.materialize("sales", partition="2024-01-03")
    scenario.run_until_quiet()
    scenario.load(followers=str(EXAMPLES / "fan_in.py"))
    scenario.run_until_quiet()
    scenario.expect("report").materialized("2024-01-01", DAY, in_any_order=True).by_automation()
    scenario.expect("overview").materialized("2024-01-01", DAY, "2024-01-03", in_any_order=True)


def test_an_input_that_runs_again_while_the_report_runs_is_followed(fan_in: Scenario) -> None:
    ends(fan_in, "sales", "stock")
    fan_in.takes("report", hours=5)
    ends(fan_in, "weather", "sales")
    assert times(fan_in, "report") == [0]
    fan_in.advance(hours=12)
    assert times(fan_in, "report") == [2]
