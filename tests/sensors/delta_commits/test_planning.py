"""Each day that changed is reported once; what can never be reported is named, and stops nothing else."""

from dataclasses import replace

import pytest

from dedp_assets.delta.commits import Snapshot
from sensors.delta_commits.cursor import Cursor
from sensors.delta_commits.observing import TableState
from tests.sensors.delta_commits.made_commits import commit, observed, plan_for, reported, unchanged
from tests.sensors.delta_commits.world import FIRST, FOURTH, SECOND, THIRD


def files(**days: str) -> dict[str, tuple[str, ...]]:
    """The files of a snapshot, from keywords such as d2024_01_01="ab": a day, and one letter for each file."""
    return {day[1:].replace("_", "-"): tuple(f"/lake/{name}" for name in names) for day, names in days.items()}


def test_each_day_that_commits_changed_is_reported_once_with_the_latest_of_its_versions() -> None:
    plan = plan_for(observed(commit(3, FIRST), commit(4, SECOND), commit(5, FIRST, THIRD)))
    assert reported(plan) == {FIRST: 5, SECOND: 4, THIRD: 5}
    assert [found.version for found in plan.changes[0].commits] == [3, 5]
    assert plan.notes == [f"3 days changed: {FIRST} (version 5), {SECOND} (version 4), {THIRD} (version 5)"]


def test_a_tick_without_commits_reports_nothing_and_moves_nothing() -> None:
    cursor = Cursor("table", 7, "mark", {FIRST: 11}, {"2024-02-01": 7})
    plan = plan_for(unchanged(7), cursor)
    assert (plan.changes, plan.cursor) == ([], cursor)


def test_the_same_state_gives_the_same_events_again() -> None:
    cursor = Cursor("table", 2, "mark", {FIRST: 11})
    found = observed(commit(3, FIRST), commit(4, SECOND))
    assert plan_for(found, cursor) == plan_for(found, cursor)


def test_a_day_that_has_not_begun_waits_and_is_reported_when_it_has() -> None:
    first = plan_for(observed(commit(1, "2024-02-02"), commit(2, "2024-02-02", FIRST)))
    assert reported(first) == {FIRST: 2}
    assert first.cursor.waiting == {"2024-02-02": 2}
    assert first.notes[-1] == "1 day after today, 2024-01-31 (UTC), will be reported once the day has begun: 2024-02-02"
    second = plan_for(unchanged(2), first.cursor, last="2024-02-01")
    assert (reported(second), second.cursor.waiting) == ({}, {"2024-02-02": 2})
    third = plan_for(unchanged(2), second.cursor, last="2024-02-02")
    assert (reported(third), third.cursor.waiting) == ({"2024-02-02": 2}, {})
    assert reported(plan_for(unchanged(2), third.cursor, last="2024-02-02")) == {}


def test_a_day_that_waited_and_changed_again_is_reported_by_its_latest_version() -> None:
    waiting = plan_for(observed(commit(1, "2024-02-02"))).cursor
    plan = plan_for(observed(commit(2, "2024-02-02")), waiting, last="2024-02-02")
    assert reported(plan) == {"2024-02-02": 2}


UNUSABLE = {
    "": "rows without event_time",
    "not-a-date": "'not-a-date' is not a day like 2024-01-31",
    "2024-1-2": "'2024-1-2' is not a day like 2024-01-31",
    "20240102": "'20240102' is not a day like 2024-01-31",
    "2024-02-30": "'2024-02-30' is not a day like 2024-01-31",
    "2024-W01-1": "'2024-W01-1' is not a day like 2024-01-31",
    "2024-01-02 00:00:00": "'2024-01-02 00:00:00' is not a day like 2024-01-31",
    "10000-01-01": "'10000-01-01' is not a day like 2024-01-31",
    "2023-12-31": "2023-12-31 is before the first partition, 2024-01-01",
}


@pytest.mark.parametrize(("value", "reason"), UNUSABLE.items())
def test_what_is_no_partition_is_named_and_stops_nothing_else(value: str, reason: str) -> None:
    plan = plan_for(observed(commit(1, value, SECOND), commit(2, value)))
    assert reported(plan) == {SECOND: 1}
    assert plan.cursor.waiting == {}
    assert plan.notes[-1] == f"1 partition never reported: {reason}"


def test_what_is_no_partition_is_still_named_in_later_ticks_as_long_as_it_is_there() -> None:
    first = plan_for(observed(commit(1, "", "not-a-date", "2023-12-31", SECOND)))
    message = (
        "3 partitions never reported: rows without event_time, 2023-12-31 is before the first partition, "
        "2024-01-01, 'not-a-date' is not a day like 2024-01-31"
    )
    assert first.notes[-1] == message
    assert plan_for(unchanged(1), first.cursor).notes == [message]
    gone = replace(commit(2, ""), fingerprint_changes={"": -10})
    assert "rows without" in plan_for(observed(gone), first.cursor).notes[-1]
    later = plan_for(unchanged(2), plan_for(observed(gone), first.cursor).cursor)
    assert later.notes[-1].startswith("2 partitions never reported: 2023-12-31")


def test_many_names_are_counted_and_some_are_named() -> None:
    plan = plan_for(observed(commit(1, *(f"day {number:02}" for number in range(25)))))
    (note,) = plan.notes
    assert note.startswith("25 partitions never reported: 'day 00'")
    assert note.endswith(", and 5 more")
    assert note.count("is not a day") == 20


def test_a_comparison_reports_what_differs_also_what_is_gone() -> None:
    before = Snapshot("table", 3, files(d2024_01_01="ab", d2024_01_02="cd", d2024_01_03="e"), "/lake")
    now = Snapshot("table", 9, files(d2024_01_01="ba", d2024_01_02="cx", d2024_01_04="f"), "/lake")
    cursor = Cursor("table", 3, "mark", before.fingerprints())
    plan = plan_for(TableState("table", 9, "mark 9", snapshot=now, has_log_gap=True), cursor)
    assert reported(plan) == {SECOND: 9, THIRD: 9, FOURTH: 9}
    assert [change.files for change in plan.changes] == [2, 0, 1]
    assert plan.cursor == Cursor("table", 9, "mark 9", now.fingerprints())


def test_a_comparison_after_some_commits_reports_both_and_each_day_once() -> None:
    now = Snapshot("table", 9, files(d2024_01_01="a", d2024_01_02="b", d2024_01_03="c"), "/lake")
    cursor = Cursor("table", 3, "mark", {THIRD: now.fingerprint(THIRD)})
    plan = plan_for(
        TableState("table", 9, "mark", [commit(4, FIRST), commit(5, SECOND)], now, has_log_gap=True), cursor
    )
    assert reported(plan) == {FIRST: 9, SECOND: 9}
    assert [found.version for found in plan.changes[1].commits] == [5]
    assert plan.cursor.fingerprints == now.fingerprints()
    assert not plan.cursor.touched


def test_after_a_gap_a_day_that_commits_have_touched_is_reported_whatever_they_seemed_to_say() -> None:
    now = Snapshot("table", 9, files(d2024_01_01="a", d2024_01_02="b"), "/lake")
    cursor = Cursor("table", 3, "mark", now.fingerprints(), touched=frozenset({SECOND}))
    assert reported(plan_for(TableState("table", 9, "mark", snapshot=now, has_log_gap=True), cursor)) == {SECOND: 9}
    assert reported(plan_for(TableState("table", 9, "mark", snapshot=now), cursor)) == {}


def test_a_snapshot_reports_what_no_commit_said() -> None:
    now = Snapshot("table", 3, files(d2024_01_01="a", d2024_01_02="b"), "/lake")
    cursor = Cursor("table", 3, "mark", {FIRST: now.fingerprint(FIRST)})
    plan = plan_for(TableState("table", 3, "mark", snapshot=now), cursor)
    assert reported(plan) == {SECOND: 3}
    assert plan.notes[0].startswith(
        "1 partition of /lake changed at or before version 3, but no commit that was read says so"
    )
    assert plan.cursor == Cursor("table", 3, "mark", now.fingerprints())


def test_a_table_made_anew_reports_also_what_the_old_one_had_and_it_has_not() -> None:
    old = Cursor("old table", 30, "mark", {FIRST: 1, SECOND: 2, "not-a-date": 3, "2024-02-02": 4}, {"2024-02-02": 9})
    plan = plan_for(observed(commit(0, SECOND), commit(1, THIRD), is_recreated=True), old)
    assert reported(plan) == {FIRST: 1, SECOND: 0, THIRD: 1}
    left = Cursor("table", 1, "mark", {SECOND: 1, THIRD: 10}, {"2024-02-02": 1}, frozenset({SECOND, THIRD}))
    assert plan.cursor == left
