"""When the clock strikes."""

import pytest
from dagster_scenario import Scenario


def hours(scenario: Scenario) -> list[str]:
    return [run.tags["hour"] for run in scenario.timeline.runs.values()]


def test_the_quotes_of_a_day_are_bought_at_six_the_next_morning(market: Scenario) -> None:
    market.at("05:59:59")
    market.expect("quotes").not_materialized()
    market.at("06:05")
    market.expect("quotes").materialized("2024-03-26").by_schedule("buy_every_day")


def test_it_is_six_in_berlin_in_winter_and_in_summer(market: Scenario) -> None:
    market.start("2024-03-30 05:55")
    market.advance(days=1, hours=2)
    bought = [event.at.isoformat() for event in market.timeline.events if event.kind == "materialized"]
    assert bought == ["2024-03-30T06:00:00+01:00", "2024-03-31T06:00:00+02:00"]


@pytest.mark.parametrize(
    ("day", "next_day", "readings", "at_two"),
    [
        ("2024-03-31", "2024-04-01", 23, []),
        ("2024-10-27", "2024-10-28", 25, ["02:15 CEST", "02:15 CET"]),
    ],
    ids=["when summer time begins", "when it ends"],
)
def test_the_cold_store_is_read_every_hour_of_the_day(
    cold_store: Scenario, day: str, next_day: str, readings: int, at_two: list[str]
) -> None:
    cold_store.start(day)
    cold_store.at(next_day)
    cold_store.expect_runs(job="read_cold_store").count(readings).by_schedule("every_hour")
    assert [hour for hour in hours(cold_store) if hour.startswith("02:")] == at_two


def test_a_reading_that_is_late_says_which_hour_it_is_of(cold_store: Scenario) -> None:
    cold_store.tick()
    with cold_store.daemons_down():
        cold_store.advance(hours=1)
        cold_store.expect_runs().count(0)
    cold_store.run_until_quiet()
    assert hours(cold_store) == ["00:15 CET"]


def test_of_the_days_that_the_scheduler_slept_through_dagster_makes_up_for_the_last_one_only(market: Scenario) -> None:
    market.at("06:05")
    with market.daemons_down("schedules"):
        market.at("2024-03-30 08:00")
        market.expect("quotes").materialized("2024-03-26")
    back = market.mark("the scheduler is back")
    market.run_until_quiet()
    market.expect("quotes").materialized("2024-03-29", since=back).by_schedule("buy_every_day")

    noticed = market.mark("somebody notices")
    market.backfill("quotes", partitions=["2024-03-27", "2024-03-28"])
    market.run_until_quiet()
    market.expect("quotes").materialized("2024-03-27", "2024-03-28", since=noticed).by_backfill()


def test_on_a_holiday_the_schedule_is_turned_off(market: Scenario) -> None:
    market.turn_off("buy_every_day")
    market.at("2024-03-28 05:00")
    market.expect("quotes").not_materialized()
    market.turn_on("buy_every_day")
    market.at("2024-03-28 06:05")
    market.expect("quotes").materialized("2024-03-27").by_schedule("buy_every_day")
