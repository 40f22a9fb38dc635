"""Each complete version of a file that lands is requested once, for the right days; nothing else is."""

from datetime import date, timedelta
from typing import Any

import pytest

from dedp_assets.landing.dated import UNDATED
from dedp_assets.landing.versions import FileVersion, Seen
from sensors.landed_files.cursor import Cursor
from sensors.landed_files.planning import MAX_DAYS_PER_RUN
from tests.sensors.landed_files.made import (
    DAYS,
    NOW,
    SETTLE,
    KnownCopies,
    copy_of_own,
    copy_of_undated,
    plan_for,
    requested_days,
    version,
)

CLAIMS = {
    "an empty folder asks for nothing": ({}, {}, []),
    "a dated file is for its own day alone": ({"2024-01-02": version(1)}, {}, [["2024-01-02"]]),
    "the undated file is for every day that may take it": (
        {UNDATED: version(1)},
        {"undated_due": DAYS[2:]},
        [["2024-01-03", "2024-01-04", "2024-01-05"]],
    ),
    "the undated file is not for days that were taken in": (
        {UNDATED: version(1)},
        {"materialized": {"2024-01-01", "2024-01-05"}},
        [["2024-01-02", "2024-01-03", "2024-01-04"]],
    ),
    "neighbours share a run whichever file they take": (
        {UNDATED: version(1), "2024-01-03": version(2)},
        {},
        [DAYS],
    ),
    "a gap parts two runs": (
        {"2024-01-01": version(1), "2024-01-02": version(1), "2024-01-04": version(1)},
        {},
        [["2024-01-01", "2024-01-02"], ["2024-01-04"]],
    ),
    "a dated file is taken again for a day that was taken in": (
        {"2024-01-02": version(1)},
        {"materialized": set(DAYS)},
        [["2024-01-02"]],
    ),
    "a dated file of a day before the undated file's first is taken": (
        {"2024-01-01": version(1)},
        {"undated_due": DAYS[3:]},
        [["2024-01-01"]],
    ),
    "a day that is not over waits": ({"2024-01-06": version(1), UNDATED: version(2)}, {"undated_due": []}, []),
    "a day before the first partition is never taken": ({"2023-12-31": version(1)}, {}, []),
    "nothing is due before the first day is over": ({UNDATED: version(1), "2024-01-01": version(1)}, {"due": []}, []),
    "an empty file is a placeholder and waits": ({"2024-01-02": version(1, size=0)}, {}, []),
    "a file that was renamed into place need not settle": (
        {"2024-01-02": version(1), "2024-01-03": version(1), "2024-01-04": version(1, size=0)},
        {"settle": SETTLE, "renamed": {"2024-01-02", "2024-01-04"}},
        [["2024-01-02"]],
    ),
    "an empty file of its own keeps a day from the undated one": (
        {"2024-01-02": version(1, size=0), UNDATED: version(2)},
        {"undated_due": DAYS[:2]},
        [["2024-01-01"]],
    ),
    "a day whose own file can't be taken does not take the undated one": (
        {UNDATED: version(1)},
        {"unusable": {"2024-01-02"}, "undated_due": DAYS[:3]},
        [["2024-01-01"], ["2024-01-03"]],
    ),
    "a copy that has the content of the file is not made again": (
        {"2024-01-02": version(1)},
        {"copies": KnownCopies(same={("2024-01-02", version(1))})},
        [],
    ),
    "a copy of another version of the day's own file is made again": (
        {"2024-01-02": version(2)},
        {"copies": KnownCopies({"2024-01-02": copy_of_own("2024-01-02", 1)}), "materialized": DAYS},
        [["2024-01-02"]],
    ),
    "a day that had a file of its own does not take the undated one": (
        {UNDATED: version(2)},
        {"copies": KnownCopies({"2024-01-02": copy_of_own("2024-01-02", 1)}), "undated_due": ["2024-01-02"]},
        [],
    ),
    "a day that took an earlier version of the undated file keeps it": (
        {UNDATED: version(2)},
        {"copies": KnownCopies({day: copy_of_undated(1) for day in DAYS}), "materialized": DAYS},
        [],
    ),
    "a day that took the undated file while it was shorter takes all of it": (
        {UNDATED: version(2)},
        {
            "copies": KnownCopies({day: copy_of_undated(1) for day in DAYS}, grown={("2024-01-03", version(2))}),
            "materialized": DAYS,
        },
        [["2024-01-03"]],
    ),
    "a day whose load failed takes the next version of the undated file": (
        {UNDATED: version(2)},
        {
            "copies": KnownCopies({day: copy_of_undated(1) for day in DAYS}, refused={"2024-01-04"}),
            "materialized": DAYS,
        },
        [["2024-01-04"]],
    ),
    "a day whose load failed does not take the same content again": (
        {UNDATED: version(2)},
        {
            "copies": KnownCopies({DAYS[0]: copy_of_undated(1)}, refused={DAYS[0]}, same={(DAYS[0], version(2))}),
            "materialized": DAYS,
        },
        [],
    ),
    "a copy that does not say where it came from is left alone": (
        {UNDATED: version(1)},
        {"copies": KnownCopies(without_source=set(DAYS[:4]))},
        [["2024-01-05"]],
    ),
}


@pytest.mark.parametrize(("files", "situation", "expected"), CLAIMS.values(), ids=CLAIMS)
def test_a_first_tick_requests_just_these_days(
    files: dict[str, FileVersion], situation: dict[str, Any], expected: list[list[str]]
) -> None:
    assert requested_days(plan_for(files, **situation)) == expected


def test_what_was_requested_is_not_requested_again() -> None:
    files = {UNDATED: version(1), "2024-01-03": version(2)}
    first = plan_for(files)
    assert requested_days(first) == [DAYS]
    assert requested_days(plan_for(files, first.cursor)) == []


@pytest.mark.parametrize("day", ["2024-01-02", UNDATED], ids=["the day's own", "undated"])
def test_a_file_is_complete_once_we_have_seen_it_unchanged_for_long_enough(day: str) -> None:
    files = {day: version(1)}
    first = plan_for(files, settle=SETTLE)
    second = plan_for(files, first.cursor, settle=SETTLE, now=NOW + 1.9)
    third = plan_for(files, second.cursor, settle=SETTLE, now=NOW + 2)
    expected = [["2024-01-02"]] if day else [DAYS]
    assert [requested_days(each) for each in (first, second, third)] == [[], [], expected]


def test_how_old_a_file_claims_to_be_does_not_count() -> None:
    # A writer that keeps the source's time of change while it writes: each look finds an old file, and a longer one.
    cursor = Cursor()
    for number in range(20):
        growing = FileVersion(100 + number, modified_ns=0, changed_ns=number, inode=1)
        plan = plan_for({"2024-01-02": growing}, cursor, settle=SETTLE, now=NOW + number)
        assert requested_days(plan) == []
        cursor = plan.cursor
    assert requested_days(plan_for({"2024-01-02": growing}, cursor, settle=SETTLE, now=NOW + 30)) == [["2024-01-02"]]


def test_a_file_that_grew_between_two_ticks_starts_waiting_anew() -> None:
    first = plan_for({"2024-01-02": version(1)}, settle=SETTLE)
    second = plan_for({"2024-01-02": version(2)}, first.cursor, settle=SETTLE, now=NOW + 2)
    assert requested_days(first) == requested_days(second) == []
    third = plan_for({"2024-01-02": version(2)}, second.cursor, settle=SETTLE, now=NOW + 4)
    assert requested_days(third) == [["2024-01-02"]]


def test_a_clock_that_is_set_back_while_a_file_settles_costs_no_more_than_the_settle_time() -> None:
    files = {"2024-01-02": version(1)}
    first = plan_for(files, settle=SETTLE)
    second = plan_for(files, first.cursor, settle=SETTLE, now=NOW - 3600)
    third = plan_for(files, second.cursor, settle=SETTLE, now=NOW - 3600 + SETTLE)
    assert [requested_days(each) for each in (first, second, third)] == [[], [], [["2024-01-02"]]]


def test_a_file_that_was_taken_in_is_not_said_to_be_incomplete_whatever_its_times_are() -> None:
    files = {"2024-01-02": version(1)._replace(modified_ns=round((NOW + 86_400) * 1e9))}
    first = plan_for(files)
    assert plan_for(files, first.cursor, settle=SETTLE).notes == []


@pytest.mark.parametrize("what", FileVersion._fields)
def test_a_rewritten_dated_file_is_requested_under_a_new_run_key(what: str) -> None:
    first = plan_for({"2024-01-02": version(1)})
    second = plan_for({"2024-01-02": version(1)._replace(**{what: 2})}, first.cursor)
    assert requested_days(second) == [["2024-01-02"]]
    assert second.requests[0].run_key != first.requests[0].run_key


def test_an_earlier_version_that_comes_back_is_requested_under_a_run_key_of_its_own() -> None:
    cursor, keys = Cursor(), []
    for number in (1, 2, 1, 2, 1):
        plan = plan_for({"2024-01-02": version(number)}, cursor)
        cursor = plan.cursor
        keys += [request.run_key for request in plan.requests]
    assert len(set(keys)) == 5


def test_a_cursor_that_was_lost_begins_run_keys_of_its_own() -> None:
    first = plan_for({"2024-01-02": version(1)})
    again = plan_for({"2024-01-02": version(1)}, Cursor.from_json("lost"), now=NOW + 60)
    assert first.requests[0].run_key != again.requests[0].run_key


def test_a_lost_cursor_requests_nothing_that_was_taken_in() -> None:
    files = {UNDATED: version(1), "2024-01-02": version(2)}
    copies = KnownCopies({day: copy_of_undated(1) for day in DAYS} | {"2024-01-02": copy_of_own("2024-01-02", 2)})
    assert requested_days(plan_for(files, Cursor(), copies, materialized=DAYS)) == []


def test_a_request_names_the_file_and_the_version_of_each_day() -> None:
    (request,) = plan_for({UNDATED: version(1), "2024-01-02": version(2)}, undated_due=DAYS[:3]).requests
    assert request.sources == {
        "2024-01-01": "dataset.csv",
        "2024-01-02": "2024-01-02/dataset.csv",
        "2024-01-03": "dataset.csv",
    }
    assert request.complete == {"dataset.csv": version(1), "2024-01-02/dataset.csv": version(2)}


def test_a_rewritten_undated_file_is_for_the_days_that_were_not_taken_in() -> None:
    first = plan_for({UNDATED: version(1)})
    second = plan_for({UNDATED: version(2)}, first.cursor, materialized=set(DAYS[:3]))
    assert requested_days(second) == [DAYS[3:]]
    assert requested_days(plan_for({UNDATED: version(3)}, second.cursor, materialized=set(DAYS))) == []


def test_the_undated_file_is_for_each_further_day_as_that_ends() -> None:
    first = plan_for({UNDATED: version(1)}, due=DAYS[:3])
    second = plan_for({UNDATED: version(1)}, first.cursor, due=DAYS[:4], materialized=set(DAYS[:3]))
    assert requested_days(first) == [DAYS[:3]]
    assert requested_days(second) == [DAYS[3:4]]


def test_a_dated_file_that_came_early_is_taken_when_its_day_is_over() -> None:
    files = {"2024-01-05": version(1)}
    first = plan_for(files, due=DAYS[:4], settle=SETTLE)
    second = plan_for(files, first.cursor, due=DAYS[:4], settle=SETTLE, now=NOW + 10)
    assert requested_days(second) == []
    assert second.notes == ["2024-01-05/dataset.csv waits: its day (UTC) is not over"]
    assert requested_days(plan_for(files, second.cursor, due=DAYS, settle=SETTLE, now=NOW + 11)) == [["2024-01-05"]]


def test_a_file_that_vanished_and_came_back_unchanged_is_the_same_version() -> None:
    first = plan_for({"2024-01-02": version(1)})
    second = plan_for({}, first.cursor)
    third = plan_for({"2024-01-02": version(1)}, second.cursor)
    assert requested_days(second) == requested_days(third) == []


def test_a_burst_becomes_runs_of_a_bounded_number_of_days() -> None:
    days = [(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in range(2 * MAX_DAYS_PER_RUN + 1)]
    plan = plan_for({day: version(1) for day in days}, due=days)
    assert requested_days(plan) == [
        days[:MAX_DAYS_PER_RUN],
        days[MAX_DAYS_PER_RUN : 2 * MAX_DAYS_PER_RUN],
        days[2 * MAX_DAYS_PER_RUN :],
    ]
    assert len({request.run_key for request in plan.requests}) == 3


def test_notes_name_what_waits_and_pass_on_what_went_wrong() -> None:
    plan = plan_for(
        {"2024-01-02": version(1), UNDATED: version(2), "2024-01-03": version(4, size=0), "2023-01-01": version(3)},
        Cursor(seen={"2023-01-01": Seen(version(3), NOW - 60)}),
        settle=SETTLE,
        problems=["something is odd"],
    )
    assert plan.notes == [
        "something is odd",
        "2024-01-02/dataset.csv is not complete yet: changed less than 2 s ago",
        "dataset.csv is not complete yet: changed less than 2 s ago",
        "2024-01-03/dataset.csv is empty: waits for its content",
        "2023-01-01/dataset.csv is older than the first partition, 2024-01-01: it is not copied",
    ]
