"""A schedule runs an interval when it has passed; a condition also those before."""

import dagster as dg
from dagster_scenario import Scenario

from dedp_assets.cookbook import schedules


def test_the_first_run_is_when_the_first_interval_has_passed(scenario: Scenario) -> None:
    scenario.start("2021-01-01 09:55")
    scenario.load(schedules.defs)
    scenario.turn_on("measure_schedule")
    scenario.at("10:09")
    scenario.expect("measured").not_materialized()
    scenario.at("10:10")
    scenario.expect("measured").materialized("2021-01-01 10:00").by_schedule()


def test_without_catch_up_a_paused_schedule_goes_on_with_the_interval_that_has_just_passed(scenario: Scenario) -> None:
    scenario.start("2021-01-01 10:15")
    scenario.load(schedules.defs)
    scenario.turn_on("measure_schedule")
    scenario.at("10:20")
    scenario.turn_off("measure_schedule")
    scenario.at("11:05")
    scenario.turn_on("measure_schedule")
    scenario.at("11:10")
    scenario.expect("measured").materialized("2021-01-01 10:10", "2021-01-01 11:00").by_schedule()


def test_with_catch_up_every_interval_since_the_start_date_is_run_also_after_a_pause(scenario: Scenario) -> None:
    scenario.start("2024-01-04 08:00")
    scenario.load(schedules.defs)
    scenario.turn_on("catch_up")
    scenario.run_until_quiet()
    scenario.expect("caught_up").materialized("2024-01-01", "2024-01-02", "2024-01-03", in_any_order=True)
    scenario.turn_off("catch_up")
    scenario.at("2024-01-07 08:00")
    resumed = scenario.mark("on again")
    scenario.turn_on("catch_up")
    scenario.run_until_quiet()
    late = ("2024-01-04", "2024-01-05", "2024-01-06")
    scenario.expect("caught_up").materialized(*late, since=resumed, in_any_order=True).by_automation()


def test_a_backfill_runs_exactly_the_days_that_are_named(scenario: Scenario) -> None:
    scenario.start("2024-01-08 08:00")
    scenario.load(schedules.defs)
    days = ("2024-01-02", "2024-01-05")
    scenario.backfill("searches_of_the_day", partitions=days)
    scenario.run_until_quiet()
    scenario.expect("searches_of_the_day").materialized(*days, in_any_order=True).by_backfill()


def test_a_query_has_the_interval_of_its_day_and_one_task_is_tested_by_itself() -> None:
    # This is also how one task is tested: no scheduler, no database.
    result = dg.materialize([schedules.searches_of_the_day], partition_key="2024-01-02")
    (done,) = result.asset_materializations_for_node("searches_of_the_day")
    sql = str(done.metadata["sql"].value)
    assert "searched_at >= '2024-01-02 00:00:00+00:00' AND searched_at < '2024-01-03 00:00:00+00:00'" in sql


def test_a_task_is_called_as_a_function() -> None:
    schedules.measured(dg.build_asset_context(partition_key="2021-01-01 10:00"))


def test_a_schedule_changes_under_its_name_and_keeps_what_was_run(scenario: Scenario) -> None:
    def every(cron: str) -> dg.Definitions:
        @dg.asset
        def clock() -> None: ...

        job = dg.define_asset_job("tell_time", [clock])
        return dg.Definitions([clock], schedules=[dg.ScheduleDefinition(job=job, cron_schedule=cron)])

    scenario.start("2024-01-01 08:30")
    scenario.load(shop=every("0 * * * *"))
    scenario.turn_on("tell_time_schedule")
    scenario.at("09:00")
    scenario.expect("clock").materialized(times=1)
    scenario.load(shop=every("*/15 * * * *"))
    scenario.at("09:30")
    scenario.expect("clock").materialized(times=3).by_schedule("tell_time_schedule")
