"""Dagster's own tags say what has started a run."""

from dagster_scenario import Scenario

from dedp_assets.cookbook import run_origins, schedules


def test_the_tags_of_a_run_tell_what_airflow_writes_into_its_id(scenario: Scenario) -> None:
    scenario.start("2024-01-03 23:50")
    scenario.load(schedules.defs)
    scenario.turn_on()
    scenario.materialize("searches_of_the_day", partition="2024-01-02")
    scenario.backfill("searches_of_the_day", partitions=["2024-01-01"])
    scenario.at("23:59")
    scenario.at("2024-01-04 00:10")
    found = {
        (asset, run_origins.prefix_of(run.tags)) for run in scenario.timeline.runs.values() for asset in run.assets
    }
    assert found == {
        ("searches_of_the_day", "manual__"),
        ("searches_of_the_day", "backfill__"),
        ("caught_up", "asset_triggered__"),
        ("measured", "scheduled__"),
    }


def test_a_run_again_is_told_from_a_first_one() -> None:
    assert run_origins.prefix_of({"dagster/parent_run_id": "a", "dagster/schedule_name": "b"}) == "a run again"
