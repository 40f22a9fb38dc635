"""One pipeline starts another one, and one follows another one."""

import pytest
from dagster_scenario import Scenario

from jobs import cookbook

DAYS = ("2024-01-01", "2024-01-02")


@pytest.fixture
def playing(scenario: Scenario) -> Scenario:
    scenario.start("2024-01-05 08:00")
    scenario.load(cookbook.defs)
    return scenario


def test_a_pipeline_starts_another_one_and_hands_over_its_parameters(playing: Scenario) -> None:
    playing.turn_on("replenish_after_stocktaking")
    playing.run_until_quiet()
    config = {"shop": "ghent"}
    playing.launch("stocktaking", run_config={"ops": {"count_stock": {"config": config}}})
    playing.run_until_quiet()
    playing.expect_job("replenishment").succeeded(times=1)
    (run,) = [run for run in playing.timeline.runs.values() if run.job == "replenishment"]
    assert run.config == {"ops": {"order_goods": {"config": config}}}


def test_a_pipeline_that_fails_starts_nobody(playing: Scenario) -> None:
    playing.turn_on("replenish_after_stocktaking")
    playing.run_until_quiet()
    playing.fail("count_stock")
    playing.launch("stocktaking")
    playing.run_until_quiet()
    playing.expect_job("replenishment").not_requested()


def test_a_pipeline_follows_each_day_of_another_one_and_an_old_day_again(playing: Scenario) -> None:
    playing.turn_on("follow_orders")
    playing.run_until_quiet()
    for day in DAYS:
        playing.report("cookbook_orders", day)
    playing.run_until_quiet()
    playing.expect("billing").materialized(*DAYS, in_any_order=True).by_automation()

    cleared = playing.mark("the orders of an old day are made again")
    playing.report("cookbook_orders", DAYS[0])
    playing.run_until_quiet()
    playing.expect("billing").materialized(DAYS[0], since=cleared).by_automation()
