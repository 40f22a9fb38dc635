"""A day waits for the day before, and a failure stops those after it."""

from dagster_scenario import Scenario

from dedp_assets.cookbook import depends_on_past

DAYS = ("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04")


def test_a_backfill_runs_the_days_in_order(scenario: Scenario) -> None:
    scenario.start("2024-01-08 08:00")
    scenario.load(depends_on_past.defs)
    scenario.backfill("balance", partitions=DAYS)
    scenario.advance(minutes=30)
    scenario.expect("balance").materialized(*DAYS).by_backfill()


def test_a_day_that_fails_stops_the_days_after_it(scenario: Scenario) -> None:
    scenario.start("2024-01-08 08:00")
    scenario.load(depends_on_past.defs)
    scenario.fail("balance", partition="2024-01-03")
    scenario.backfill("balance", partitions=DAYS)
    scenario.advance(minutes=30)
    scenario.expect("balance").materialized("2024-01-01", "2024-01-02")
    scenario.expect("balance").failed("2024-01-03")
