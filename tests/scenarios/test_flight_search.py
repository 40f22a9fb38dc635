"""Stories of flight searches, on a simulated clock: files that land, late, twice, rewritten, and during a run."""

from pathlib import Path

import pytest
from dagster_scenario import Scenario

from dedp_assets import settings
from dedp_assets.flight_search import contract
from dedp_assets.resources.spark import SparkUnreachable
from tests.dedp_assets.flight_search.landed import event, lines, rows, search_ids

pytestmark = pytest.mark.slow

SEARCHES, PER_ROUTE, PER_HOUR = (
    key.to_user_string() for key in (contract.SEARCHES, contract.PER_ROUTE, contract.PER_HOUR)
)


@pytest.fixture
def scenario_settings() -> Path:
    """The deployment's own: its run queue, its pools, its retries."""
    return settings.REPOSITORY / "docker" / "dagster.yaml"


@pytest.fixture
def searching(scenario: Scenario, spark_remote: str) -> Scenario:
    """The code location is at work, and the landing folder is empty."""
    scenario.start("2024-01-09 08:00")
    contract.landing_folder().mkdir(parents=True)
    scenario.load("jobs.flight_search")
    return scenario


def searches_by_day() -> dict[str, int]:
    """How many searches the aggregation by hour has of each day."""
    found: dict[str, int] = {}
    for day, number in rows(contract.PER_HOUR, "day", "searches"):
        found[day.isoformat()] = found.get(day.isoformat(), 0) + number
    by_route = {day.isoformat(): number for day, _, number in rows(contract.PER_ROUTE, "day", "origin", "searches")}
    assert found == by_route
    return found


def test_late_events_refresh_their_days_and_a_file_that_comes_twice_or_is_rewritten_doubles_nothing(
    searching: Scenario,
) -> None:
    folder = searching.folder(contract.landing_folder())
    folder.drop("monday.jsonl", lines(event("s1", "2024-01-08"), event("s2", "2024-01-08")))
    searching.run_until_quiet()
    searching.expect(SEARCHES).materialized("2024-01-08").by_sensor("flight_searches_landed")
    for key in (PER_ROUTE, PER_HOUR):
        searching.expect(key).materialized("2024-01-08").by_automation("follow_inputs")
    assert searches_by_day() == {"2024-01-08": 2}

    late = searching.mark("events of three days, two of them late")
    folder.drop(
        "tuesday.jsonl", lines(event("s3", "2024-01-09", 1), event("s4", "2024-01-08"), event("s5", "2024-01-03"))
    )
    searching.run_until_quiet()
    days = ["2024-01-03", "2024-01-08", "2024-01-09"]
    searching.expect(SEARCHES).materialized(*days, since=late, in_any_order=True)
    for key in (PER_ROUTE, PER_HOUR):
        searching.expect(key).materialized(*days, since=late, in_any_order=True)
    assert searches_by_day() == {"2024-01-03": 1, "2024-01-08": 3, "2024-01-09": 1}

    again = searching.mark("a file again, under another name; another one is rewritten, with one event more")
    folder.drop("copy.jsonl", lines(event("s1", "2024-01-08"), event("s2", "2024-01-08")))
    folder.rewrite(
        "monday.jsonl", lines(event("s6", "2024-01-02"), event("s2", "2024-01-08"), event("s1", "2024-01-08"))
    )
    searching.run_until_quiet()
    # The run is named after the first file, so it looks at that day, too, and finds nothing to do there.
    searching.expect(PER_HOUR).materialized("2024-01-02", "2024-01-08", since=again, in_any_order=True)
    assert searches_by_day() == {"2024-01-02": 1, "2024-01-03": 1, "2024-01-08": 3, "2024-01-09": 1}
    searching.expect_runs().none_failed()
    searching.expect_runs().no_slot_held_while_waiting()


def test_what_lands_or_is_rewritten_while_a_run_is_under_way_is_taken_in_by_the_next_one(searching: Scenario) -> None:
    folder = searching.folder(contract.landing_folder())
    folder.drop("a.jsonl", lines(event("s1", "2024-01-08")))
    searching.hold(SEARCHES, at="end")
    searching.run_until_quiet()
    folder.drop("b.jsonl", lines(event("s2", "2024-01-08")))
    folder.rewrite("a.jsonl", lines(event("s1", "2024-01-08"), event("s3", "2024-01-07")))
    searching.advance(minutes=5)
    searching.release()
    searching.run_until_quiet()
    assert searches_by_day() == {"2024-01-07": 1, "2024-01-08": 2}
    searching.expect_runs().none_failed()


def test_a_run_that_is_killed_after_its_commit_loses_no_day(searching: Scenario) -> None:
    folder = searching.folder(contract.landing_folder())
    searching.kill(SEARCHES, at="end")
    folder.drop("a.jsonl", lines(event("s1", "2024-01-08"), event("late", "2024-01-03")))
    searching.advance(minutes=10)
    searching.run_until_quiet()
    assert searches_by_day() == {"2024-01-03": 1, "2024-01-08": 1}


def test_while_spark_is_away_files_wait_and_none_is_lost(searching: Scenario) -> None:
    folder = searching.folder(contract.landing_folder())
    searching.fail(SEARCHES, error=SparkUnreachable("the Spark server is away"), times=5)
    folder.drop("a.jsonl", lines(event("s1", "2024-01-08")))
    searching.advance(minutes=30)
    searching.run_until_quiet()
    assert searches_by_day() == {"2024-01-08": 1}
    assert search_ids() == ["s1"]
