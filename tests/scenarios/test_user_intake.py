"""Stories of the user intake on a simulated clock: an API that is down, late or slow, and runs that are killed."""

from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from dagster_scenario import Scenario
from dagster_scenario.world.http import Endpoint

from dedp_assets.user_intake import contract
from tests.user_api import user

RAW, USERS = "users/raw", "users/users"
UP, RECONCILED = "users_api_up", "users_reconciled"

Query = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def api(scenario: Scenario) -> Endpoint:
    """An API with three users."""
    endpoint = scenario.http("the API")
    fill(endpoint, [user(number) for number in range(3)])
    return endpoint


@pytest.fixture
def intake(scenario: Scenario, api: Endpoint, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """The code location is at work from eight o'clock on."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    monkeypatch.setenv("DEDP_USERS_API", f"{api.url}/api/")
    scenario.start("2024-01-03 08:00")
    scenario.load("jobs.user_intake")
    return scenario


@pytest.fixture
def query(dsn: str) -> Query:
    def run(sql: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(dsn)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()
        finally:
            connection.close()

    return run


def fill(api: Endpoint, users: list[Any]) -> None:
    """From now on the API has these users."""
    api.answer("/api/?page=1&results=1", {"results": users[:1]})
    for page in range(len(users) // 100 + 1):
        api.answer(f"/api/?page={page + 1}&results=100", {"results": users[100 * page : 100 * (page + 1)]})


def fetches(api: Endpoint) -> int:
    """How often the first page was asked for in order to take it in."""
    return sum(request.query == {"page": "1", "results": "100"} for request in api.requests)


def test_each_day_is_taken_in_once_as_soon_as_it_begins(intake: Scenario, api: Endpoint, query: Query) -> None:
    intake.advance(minutes=5)
    intake.expect(USERS).materialized("2024-01-03").by_sensor(UP)
    intake.advance(days=2)
    intake.expect(RAW).materialized("2024-01-03", "2024-01-04", "2024-01-05")
    intake.expect(USERS).materialized("2024-01-03", "2024-01-04", "2024-01-05")
    assert fetches(api) == 3
    assert len(api.requests) == 6, "one question whether it is up, and one page, on each day"
    assert query("SELECT username FROM dedp.users ORDER BY 1") == [("ann0",), ("ann1",), ("ann2",)]
    intake.expect_runs().no_slot_held_while_waiting()


def test_an_api_that_is_down_for_two_days_holds_no_slot_and_is_taken_in_when_it_is_back(
    intake: Scenario, api: Endpoint, query: Query
) -> None:
    api.stop()
    intake.advance(days=2)
    intake.expect(RAW).not_materialized()
    intake.expect_sensor(UP).waiting()
    assert "refused. Is the API up, and DEDP_USERS_API right?" in str(intake.timeline)
    fill(api, [user(number) for number in range(250)])
    api.start()
    intake.advance(minutes=2)
    intake.expect(USERS).materialized("2024-01-05").by_sensor(UP)
    assert query("SELECT count(*) FROM dedp.users") == [(250,)]
    intake.expect_runs().no_slot_held_while_waiting()


@pytest.mark.slow
def test_an_api_that_comes_up_late_in_the_day_is_taken_in_on_that_day(intake: Scenario, api: Endpoint) -> None:
    api.stop()
    intake.at("2024-01-03 23:50")
    api.start()
    intake.advance(minutes=5)
    intake.expect(USERS).materialized("2024-01-03").by_sensor(UP)


@pytest.mark.slow
def test_an_api_that_fails_only_when_it_is_asked_for_pages_is_asked_ever_more_seldom(
    intake: Scenario, api: Endpoint, query: Query
) -> None:
    api.fail("/api/?page=1&results=100", status=500)
    intake.advance(minutes=33, every_tick=True)
    intake.expect(RAW).not_materialized()
    runs = fetches(api) // 5
    assert fetches(api) == 5 * runs, "each run asks five times"
    assert runs == 5, "after 0, 2, 6, 14 and 30 minutes"
    api.recover("/api/?page=1&results=100")
    intake.advance(minutes=32)
    intake.expect(USERS).materialized("2024-01-03").by_sensor(UP)
    assert query("SELECT count(*) FROM dedp.users") == [(3,)]


@pytest.mark.slow
def test_a_page_that_fails_a_few_times_costs_no_run(intake: Scenario, api: Endpoint) -> None:
    api.fail("/api/?page=1&results=100", status=None, times=2)
    intake.advance(minutes=10)
    intake.expect(USERS).materialized("2024-01-03")
    intake.expect_runs().none_failed()


def test_a_second_fetch_of_the_day_by_hand_changes_what_has_changed(
    intake: Scenario, api: Endpoint, query: Query
) -> None:
    intake.advance(minutes=5)
    fill(api, [user(0), user(1, location={"country": "Denmark"}), user(2)])
    intake.materialize(RAW, USERS, partition="2024-01-03")
    intake.advance(minutes=10)
    intake.expect(USERS).materialized("2024-01-03", "2024-01-03")
    assert query("SELECT inserted, updated, unchanged FROM dedp.users_intakes") == [(0, 1, 2)]


@pytest.mark.slow
def test_a_fetch_alone_by_hand_is_followed_by_the_users(intake: Scenario, api: Endpoint, query: Query) -> None:
    intake.advance(minutes=5)
    fill(api, [user(9)])
    intake.materialize(RAW, partition="2024-01-03")
    intake.advance(minutes=5)
    intake.expect(USERS).materialized("2024-01-03", "2024-01-03")
    assert query("SELECT count(*) FROM dedp.users") == [(4,)]


def test_an_old_day_by_hand_does_not_overwrite_today(intake: Scenario, api: Endpoint, query: Query) -> None:
    intake.advance(minutes=5)
    fill(api, [user(0, location={"country": "Denmark"}), user(7)])
    intake.materialize(RAW, USERS, partition="2024-01-01")
    intake.advance(minutes=5)
    assert query("SELECT username, country FROM dedp.users ORDER BY 1") == [
        *((f"ann{number}", "Norway") for number in (0, 1, 2, 7)),
    ]
    assert query("SELECT inserted, superseded FROM dedp.users_intakes ORDER BY day") == [(1, 1), (3, 0)]


KILLED_AT = {
    "after the fetch, before the copy": (RAW, "dedp_assets.user_intake.assets.write_copy"),
    "after the copy, before the users": (USERS, "dedp_assets.user_intake.assets.store"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("asset", "before"), KILLED_AT.values(), ids=KILLED_AT)
def test_a_run_that_is_killed_is_made_good_without_a_person(
    intake: Scenario, api: Endpoint, query: Query, asset: str, before: str
) -> None:
    intake.kill(asset, before=before)
    intake.advance(minutes=5)
    assert query("SELECT count(*) FROM dedp.users") == [(3,)]
    assert query("SELECT received, stored FROM dedp.users_intakes") == [(3, 3)]
    assert fetches(api) == (2 if asset == RAW else 1), "what was fetched is not fetched again"
    intake.expect(USERS).materialized("2024-01-03")


@pytest.mark.slow
@pytest.mark.parametrize("asset", [RAW, USERS])
def test_a_run_that_is_killed_before_it_could_tell_is_told_of_later(
    intake: Scenario, api: Endpoint, query: Query, asset: str
) -> None:
    after = {RAW: "write_copy", USERS: "store"}[asset]
    intake.kill(asset, after=f"dedp_assets.user_intake.assets.{after}")
    intake.advance(minutes=5)
    intake.expect(RAW).materialized("2024-01-03")
    intake.expect(USERS).materialized("2024-01-03")
    assert fetches(api) == 1
    assert query("SELECT count(*) FROM dedp.users") == [(3,)]


@pytest.mark.slow
def test_everything_was_down_for_three_days_and_the_present_day_is_taken_in(
    intake: Scenario, api: Endpoint, query: Query
) -> None:
    intake.advance(minutes=5)
    with intake.daemons_down():
        intake.advance(days=3)
        fill(api, [user(number) for number in range(5)])
    intake.advance(minutes=5)
    intake.expect(USERS).materialized("2024-01-03", "2024-01-06")
    assert query("SELECT count(*) FROM dedp.users") == [(5,)]


@pytest.mark.slow
def test_a_lost_raw_copy_of_an_old_day_is_nothing_to_worry_about(intake: Scenario, api: Endpoint) -> None:
    intake.advance(minutes=5)
    intake.at("2024-01-04 08:00")
    contract.raw_copy("2024-01-03").unlink()
    intake.advance(hours=1)
    intake.expect(USERS).materialized("2024-01-03", "2024-01-04")
    intake.expect_runs().none_failed()


def test_without_a_setting_the_location_loads_and_its_sensor_says_that_it_does_nothing(
    scenario: Scenario, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    scenario.start("2024-01-03 08:00")
    scenario.load("jobs.user_intake")
    scenario.advance(hours=1)
    scenario.expect(RAW).not_materialized()
    scenario.expect_sensor(UP).waiting()
    assert "DEDP_USERS_API is not set, so no users are fetched" in str(scenario.timeline)
