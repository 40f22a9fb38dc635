"""Days whose copies are behind the files are requested, whatever events were missed."""

from dedp_assets.landing.dated import UNDATED
from sensors.landed_files.cursor import Cursor
from sensors.landed_files.planning import compares_copies
from tests.sensors.landed_files.made import (
    DAYS,
    NOW,
    KnownCopies,
    copy_of_undated,
    plan_for,
    plan_of_comparison,
    requested_days,
    version,
)


def test_a_day_whose_run_failed_is_requested_again_and_ever_more_seldom() -> None:
    files = {"2024-01-02": version(1)}
    cursor, asked = plan_for(files).cursor, []
    for minute in range(1, 32):
        plan = plan_of_comparison(cursor, files, minutes=minute)
        cursor = plan.cursor
        asked += [minute for _ in plan.requests]
    assert asked == [2, 4, 8, 16]
    assert all("reconciliation" in request.cause for request in plan.requests)


def test_a_day_whose_run_is_under_way_is_not_requested_again() -> None:
    files = {"2024-01-02": version(1)}
    cursor = plan_for(files).cursor
    for minute in range(1, 10):
        plan = plan_of_comparison(cursor, files, minutes=minute, in_progress={"2024-01-02"})
        cursor = plan.cursor
        assert plan.requests == []


def test_an_undated_file_that_a_day_took_while_it_was_shorter_is_noticed_whatever_was_missed() -> None:
    copies = KnownCopies({DAYS[0]: copy_of_undated(1)}, grown={(DAYS[0], version(2))})
    # What was asked for is the longer version; what came of it is the shorter one.
    cursor = Cursor(began=1, undated=version(2))
    files = {UNDATED: version(2)}
    first = plan_of_comparison(cursor, files, copies, minutes=1, materialized=DAYS)
    second = plan_of_comparison(first.cursor, files, copies, minutes=2, materialized=DAYS)
    assert requested_days(second) == [[DAYS[0]]]


def test_a_copy_that_dagster_does_not_know_of_is_reported_to_it_and_not_made_again() -> None:
    copies = KnownCopies({day: copy_of_undated(1) for day in DAYS[:2]})
    plan = plan_of_comparison(Cursor(), {UNDATED: version(2)}, copies, minutes=1, materialized=DAYS[1:])
    assert plan.unreported == {DAYS[0]: copy_of_undated(1)}
    assert plan.requests == []


def test_a_minute_has_to_pass_between_two_comparisons_also_when_the_clock_is_set_back() -> None:
    compared = plan_of_comparison(Cursor(), {}, minutes=0).cursor
    assert not compares_copies(compared, NOW + 59)
    assert compares_copies(compared, NOW + 60)
    assert compares_copies(compared, NOW - 1)
