"""What stays behind is asked for again, ever more seldom, and never because a clock was wrong."""

import dagster as dg
import pytest

from sensors.reconciliation import INTERVAL_SECONDS, LONGEST_PAUSE_SECONDS, Waiting, decide, range_requests

NOW = 1_800_000_000.0
TARGETS = [dg.AssetKey(["dedp", "devices_raw"])]


def minutes_of_requests(inputs, *, minutes, clock=lambda minute: 0.0, in_progress=lambda minute: ()):
    """The minutes in which a partition is asked for, that is behind `inputs(minute)`."""
    waiting, asked = {}, []
    for minute in range(minutes):
        now = NOW + 60 * minute + clock(minute)
        decision = decide({"day": inputs(minute)}, waiting, in_progress(minute), now)
        waiting = decision.waiting
        asked += [minute for _ in decision.request]
    return asked


def test_it_is_asked_for_after_a_minute_and_then_after_ever_longer_pauses_of_at_most_an_hour():
    asked = minutes_of_requests(lambda minute: "a", minutes=400)
    assert asked == [1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]
    assert asked[-1] - asked[-2] == LONGEST_PAUSE_SECONDS // INTERVAL_SECONDS


def test_a_new_input_is_asked_for_after_a_minute_however_often_the_one_before_has_failed():
    assert minutes_of_requests(lambda minute: "a" if minute < 20 else "b", minutes=24) == [1, 3, 7, 15, 21, 23]


def test_an_input_that_changes_every_minute_is_asked_for_all_the_same():
    assert minutes_of_requests(str, minutes=10) == [1, 3, 5, 7, 9]


def test_while_a_run_is_under_way_nothing_is_asked_for():
    assert minutes_of_requests(
        lambda minute: "a", minutes=10, in_progress=lambda minute: {"day"} if minute < 8 else ()
    ) == [8]


@pytest.mark.parametrize("hours", [1, 24, 24 * 365])
def test_a_clock_that_is_set_back_delays_nothing(hours):
    back = minutes_of_requests(lambda minute: "a", minutes=64, clock=lambda minute: 0 if minute < 2 else -3600 * hours)
    assert back == [1, 4, 8, 16, 32]


def test_what_is_not_behind_any_more_is_forgotten():
    waiting = {"day": Waiting("a", 3, NOW + 60)}
    assert decide({}, waiting, (), NOW).waiting == {}


def test_partitions_that_follow_one_another_share_a_run_with_a_key_of_its_own():
    order = ["1", "2", "3", "5"]
    waiting = {day: Waiting("a", 0, NOW) for day in order}
    later = {day: Waiting("a", 1, NOW + 120) for day in order}
    first = range_requests(waiting, TARGETS, ["0", "1", "2", "3", "4", "5"], at_most=2)
    again = range_requests(later, TARGETS, ["0", "1", "2", "3", "4", "5"], at_most=2)
    assert [request.partition_key for request in first] == [None, "3", "5"]
    assert first[0].tags["dagster/asset_partition_range_end"] == "2"
    assert not {request.run_key for request in first} & {request.run_key for request in again}
