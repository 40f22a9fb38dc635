"""Which days of the user intake are behind, and what a tick does while the API is up or not."""

from collections.abc import Iterator
from datetime import datetime, timezone

import dagster as dg
import pytest

from dedp_assets.user_intake import contract
from dedp_assets.user_intake.raw_copies import write_copy
from jobs import user_intake
from sensors.pipelines.user_intake import days_behind, users_api_up
from tests.ticks import SensorTicks
from tests.user_api import Api, send, user, user_api


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    with user_api() as running:
        running.users = [user(1)]
        monkeypatch.setenv("DEDP_USERS_API", f"{running.url}?key=secret")
        yield running


@pytest.fixture
def tick(instance: dg.DagsterInstance) -> SensorTicks:
    return SensorTicks(users_api_up, instance, definitions=user_intake.defs, records_events=True)


def today() -> str:
    return contract.day_of(datetime.now(timezone.utc))


def copy_of_today() -> None:
    write_copy(contract.raw_copy(today()), datetime.now(timezone.utc), [[{"email": "a@x.org"}]])


def test_days_are_behind_if_another_version_is_stored_or_dagster_does_not_know_that_it_is() -> None:
    copies = {"2024-01-01": "a", "2024-01-02": "b", "2024-01-03": "c", "2024-01-04": "d"}
    stored = {"2024-01-01": "a", "2024-01-02": "old", "2024-01-04": "d", "2023-12-31": "x"}
    reported = {"2024-01-01", "2024-01-02", "2023-12-31"}
    assert days_behind(copies, stored, reported) == {
        "2024-01-02": "b",
        "2024-01-03": "c",
        "2024-01-04": "not reported: d",
    }


def test_while_the_api_is_up_and_today_is_not_fetched_a_tick_requests_it_once(api: Api, tick: SensorTicks) -> None:
    (request,) = tick().run_requests
    assert (request.partition_key, request.asset_selection) == (today(), [contract.RAW, contract.USERS])
    again = tick()
    assert again.run_requests == []
    assert "it is requested again at" in again.message
    assert len(api.asked) == 1


def test_a_tick_whose_cursor_was_lost_requests_the_same_run(api: Api, tick: SensorTicks) -> None:
    first = tick().run_requests
    tick.cursor = None
    assert [request.run_key for request in tick().run_requests] == [request.run_key for request in first]


def test_an_api_that_is_not_up_is_named_and_requested_as_soon_as_it_is(api: Api, tick: SensorTicks) -> None:
    api.answers = [send(503)]
    down = tick()
    assert (down.run_requests, down.message) == ([], f"error: {api.url}: the API answers 503")
    assert len(tick().run_requests) == 1


def test_a_fetched_day_asks_the_api_nothing(api: Api, tick: SensorTicks) -> None:
    copy_of_today()
    assert f"{today()} was fetched at" in tick().message
    assert api.asked == []


def test_a_copy_that_dagster_does_not_know_is_reported_once(api: Api, tick: SensorTicks) -> None:
    copy_of_today()
    (contract.raw_folder() / "somebody's folder").mkdir()
    (event,) = tick().events
    assert (event.asset_key, event.partition) == (contract.RAW, today())
    assert tick().events == []


def test_without_the_setting_a_tick_says_so(tick: SensorTicks) -> None:
    assert tick().message == "DEDP_USERS_API is not set, so no users are fetched"


def test_a_setting_that_is_no_url_is_the_message_of_the_tick(
    tick: SensorTicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_USERS_API", "localhost")
    assert tick().message.startswith("error: DEDP_USERS_API is not the URL of an endpoint")
