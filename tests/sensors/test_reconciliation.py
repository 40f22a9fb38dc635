"""What stays behind is requested again, with ever longer pauses, and no wrong clock delays it."""

from collections.abc import Callable, Collection

import dagster as dg
import pytest

from dedp_assets.errors import TransientError
from sensors.reconciliation import (
    INTERVAL_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Observation,
    Waiting,
    from_json,
    plan_requests,
    range_requests,
    reconciling_sensor,
    to_json,
)
from tests.ticks import SensorTicks

NOW = 1_800_000_000.0
TARGETS = [dg.AssetKey(["dedp", "devices_raw"])]


def no_run(minute: int) -> Collection[str]:
    return ()


def minutes_of_requests(
    input_at: Callable[[int], str],
    *,
    minutes: int,
    clock_error_at: Callable[[int], float] = lambda minute: 0.0,
    in_progress_at: Callable[[int], Collection[str]] = no_run,
) -> list[int]:
    """The minutes in which a partition is requested that is behind its input all the time."""
    waiting: dict[str, Waiting] = {}
    requested = []
    for minute in range(minutes):
        now = NOW + 60 * minute + clock_error_at(minute)
        plan = plan_requests({"day": input_at(minute)}, waiting, in_progress_at(minute), now)
        waiting = plan.waiting
        requested += [minute for _ in plan.requests]
    return requested


def test_it_is_requested_after_a_minute_and_then_after_ever_longer_pauses_of_at_most_an_hour() -> None:
    requested = minutes_of_requests(lambda minute: "a", minutes=400)
    assert requested == [1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]
    assert requested[-1] - requested[-2] == LONGEST_PAUSE_SECONDS // INTERVAL_SECONDS


def test_a_new_input_is_requested_after_a_minute_however_often_the_one_before_has_failed() -> None:
    assert minutes_of_requests(lambda minute: "a" if minute < 20 else "b", minutes=24) == [1, 3, 7, 15, 21, 23]


def test_an_input_that_changes_every_minute_is_requested_all_the_same() -> None:
    assert minutes_of_requests(str, minutes=10) == [1, 3, 5, 7, 9]


def test_while_a_run_is_under_way_nothing_is_requested() -> None:
    def in_progress(minute: int) -> Collection[str]:
        return {"day"} if minute < 8 else ()

    assert minutes_of_requests(lambda minute: "a", minutes=10, in_progress_at=in_progress) == [8]


@pytest.mark.parametrize("hours", [1, 24, 24 * 365])
def test_a_clock_that_is_set_back_delays_nothing(hours: int) -> None:
    def set_back(minute: int) -> float:
        return 0 if minute < 2 else -3600 * hours

    requested = minutes_of_requests(lambda minute: "a", minutes=64, clock_error_at=set_back)
    assert requested == [1, 4, 8, 16, 32]


def test_what_is_not_behind_any_more_is_forgotten() -> None:
    waiting = {"day": Waiting("a", 3, NOW + 60)}
    assert plan_requests({}, waiting, (), NOW).waiting == {}


def test_partitions_that_follow_one_another_share_a_run_with_a_key_of_its_own() -> None:
    order = ["1", "2", "3", "5"]
    waiting = {day: Waiting("a", 0, NOW) for day in order}
    later = {day: Waiting("a", 1, NOW + 120) for day in order}
    first = range_requests(waiting, TARGETS, ["0", "1", "2", "3", "4", "5"], at_most=2)
    again = range_requests(later, TARGETS, ["0", "1", "2", "3", "4", "5"], at_most=2)
    assert [request.partition_key for request in first] == [None, "3", "5"]
    assert first[0].tags["dagster/asset_partition_range_end"] == "2"
    assert not {request.run_key for request in first} & {request.run_key for request in again}


def test_a_stored_cursor_stays_readable() -> None:
    assert from_json('{"2024-01-01": ["a", 2, 1800000000.0]}') == {"2024-01-01": Waiting("a", 2, NOW)}
    assert from_json(to_json({"day": Waiting("a", 2, NOW)})) == {"day": Waiting("a", 2, NOW)}
    assert from_json(None) == from_json("garbled") == from_json("[]") == {}


def test_a_pipeline_that_cannot_be_observed_keeps_what_waits_and_is_observed_by_the_next_tick(
    instance: dg.DagsterInstance,
) -> None:
    is_away = False

    def observe(context: dg.SensorEvaluationContext, notes: list[str]) -> Observation:
        notes.append("one file can't be loaded")
        if is_away:
            raise TransientError("the database is away")
        return Observation({"day": "a"}, ())

    ticks = SensorTicks(reconciling_sensor("some", TARGETS, observe, description=""), instance)
    before = ticks().cursor
    assert from_json(before).keys() == {"day"}
    is_away = True
    away = ticks()
    assert away.message == "error: the database is away; one file can't be loaded"
    assert away.cursor == before
    is_away = False
    assert ticks().message == "1 behind their input: day; one file can't be loaded"
