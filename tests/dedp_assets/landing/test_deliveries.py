"""Which deliveries a tick takes, and which it reports as missing: the rule over plain values."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest

from dedp_assets.landing.deliveries import (
    LARGE_BYTES,
    OLD_FOLDERS_PER_TICK,
    RUN_GRACE_SECONDS,
    Cursor,
    Key,
    Plan,
    Situation,
    closed_windows,
    folders_to_scan,
    is_day,
    plan_deliveries,
    state_of,
    told_once,
    version_of,
)
from dedp_assets.landing.directories import Scan
from dedp_assets.landing.versions import FileVersion

NORTH, SOUTH = ("north", "2024-01-05"), ("south", "2024-01-05")
NOW = 1_000_000.0


def file(changed: int = 1, size: int = 10) -> FileVersion:
    return FileVersion(size, 0, changed, 1)


def folder(marker: int | None = 5, failure: str = "", **files: FileVersion) -> Scan:
    """A folder whose files are all of the same age, unless they say it; the marker is younger."""
    named = {f"data-{name}.csv": version for name, version in files.items()}
    return Scan(named, {} if marker is None else {"_SUCCESS": marker}, failure=failure)


def plan(
    scans: Mapping[Key, Scan],
    taken: Mapping[Key, Mapping[str, FileVersion]] | None = None,
    cursor: Cursor | None = None,
    *,
    now: float = NOW,
    closed: tuple[str, ...] = (),
    in_progress: tuple[Key, ...] = (),
    free_runs: int = 4,
) -> Plan:
    situation = Situation(
        now, 2.0, ("north", "south"), closed, closed[-1] if closed else "", set(in_progress), free_runs
    )
    return plan_deliveries(scans, taken or {}, cursor or Cursor(), situation)


def requested(made: Plan) -> list[list[Key]]:
    return [[delivery.key for delivery in request.deliveries] for request in made.requests]


def test_a_folder_is_ready_with_a_data_file_and_a_marker_that_is_not_older() -> None:
    assert state_of(folder(a=file())) == "complete"
    assert state_of(folder(marker=1, a=file(1))) == "complete"
    assert state_of(folder(marker=1, a=file(2), b=file(1))) == "changing"
    assert state_of(folder(None, a=file())) == "no marker"
    assert state_of(folder()) == "no data"
    assert state_of(folder(a=file(size=0))) == "no data"
    assert state_of(folder(a=file(size=0), b=file())) == "complete"
    assert state_of(folder(failure="it hangs")) == "unreadable"


def test_a_complete_delivery_is_requested_once_and_again_only_after_growing_pauses() -> None:
    scans = {NORTH: folder(a=file())}
    first = plan(scans)
    assert requested(first) == [[NORTH]]
    now, moments = NOW, []
    cursor = first.cursor
    for _ in range(720):
        now += 5
        made = plan(scans, cursor=cursor, now=now)
        cursor = made.cursor
        moments += [now - NOW] if made.requests else []
    assert moments == [RUN_GRACE_SECONDS * factor for factor in (1, 3, 7, 15, 31)]


def test_what_was_taken_is_not_taken_again_until_a_file_changes_comes_or_goes() -> None:
    scan = folder(a=file(), b=file())
    assert requested(plan({NORTH: scan}, {NORTH: scan.files})) == []
    for other in (folder(a=file(), b=file(3)), folder(a=file(), b=file(), c=file()), folder(a=file())):
        assert requested(plan({NORTH: other}, {NORTH: scan.files})) == [[NORTH]]


def test_what_was_taken_stays_when_its_folder_is_cleared_or_loses_its_marker() -> None:
    taken = {NORTH: folder(a=file()).files}
    for cleared in (folder(), folder(None, a=file(9)), folder(None)):
        made = plan({NORTH: cleared}, taken)
        assert (requested(made), made.cursor.waiting, made.notes) == ([], {}, [])


def test_a_file_after_the_marker_has_to_rest_and_each_change_begins_the_wait_again() -> None:
    first = plan({NORTH: folder(marker=1, a=file(2))})
    assert requested(first) == []
    second = plan({NORTH: folder(marker=1, a=file(3))}, cursor=first.cursor, now=NOW + 5)
    assert requested(second) == []
    third = plan({NORTH: folder(marker=1, a=file(3))}, cursor=second.cursor, now=NOW + 6)
    assert requested(third) == []
    fourth = plan({NORTH: folder(marker=1, a=file(3))}, cursor=third.cursor, now=NOW + 7)
    assert requested(fourth) == [[NORTH]]
    assert fourth.requests[0].deliveries[0].ready_since == NOW + 7


def test_a_clock_that_is_set_back_lets_nothing_wait_until_the_old_time() -> None:
    scans = {NORTH: folder(marker=1, a=file(2))}
    cursor = plan(scans).cursor
    back = plan(scans, cursor=cursor, now=NOW - 7200)
    assert requested(plan(scans, cursor=back.cursor, now=NOW - 7190)) == [[NORTH]]


def test_a_delivery_that_a_run_is_taking_waits_also_in_another_version() -> None:
    cursor = plan({NORTH: folder(a=file())}).cursor
    changed = {NORTH: folder(a=file(3))}
    waiting = plan(changed, cursor=cursor, now=NOW + 5, in_progress=(NORTH,))
    assert requested(waiting) == []
    assert requested(plan(changed, cursor=waiting.cursor, now=NOW + 10)) == [[NORTH]]


def test_deliveries_share_a_run_but_a_large_one_keeps_nobody_waiting() -> None:
    earlier = ("south", "2024-01-04")
    scans = {NORTH: folder(a=file(size=LARGE_BYTES + 1)), SOUTH: folder(a=file()), earlier: folder(a=file())}
    assert requested(plan(scans)) == [[earlier, SOUTH], [NORTH]]
    limited = plan(scans, free_runs=1)
    assert requested(limited) == [[earlier, SOUTH]]
    assert requested(plan(scans, cursor=limited.cursor, now=NOW + 1)) == [[NORTH]]


def test_the_same_tick_twice_has_the_same_run_keys_and_another_version_has_others() -> None:
    def keys(made: Plan) -> list[str]:
        return [request.run_key for request in made.requests]

    cursor = Cursor(began=NOW)
    assert keys(plan({NORTH: folder(a=file())}, cursor=cursor)) == keys(plan({NORTH: folder(a=file())}, cursor=cursor))
    assert keys(plan({NORTH: folder(a=file())}, cursor=cursor)) != keys(plan({NORTH: folder(a=file(2))}, cursor=cursor))


def test_a_folder_that_cannot_be_read_costs_nobody_else_anything_and_is_named() -> None:
    made = plan({NORTH: folder(failure="/north/2024-01-05 can't be read"), SOUTH: folder(a=file())})
    assert requested(made) == [[SOUTH]]
    assert made.notes == ["/north/2024-01-05 can't be read"]


def test_who_has_not_delivered_when_the_window_closes_is_missing_once_and_then_late() -> None:
    first = plan({NORTH: folder(a=file()), SOUTH: folder(None, a=file())}, closed=("2024-01-05",))
    assert first.missing == [SOUTH]
    assert first.cursor.missing == first.cursor.untold == (SOUTH,)
    assert "south has not delivered 2024-01-05: its window has closed" in first.notes
    second = plan({SOUTH: folder(None, a=file())}, cursor=first.cursor)
    assert (second.missing, second.cursor.missing) == ([], (SOUTH,))
    third = plan({SOUTH: folder(a=file())}, cursor=second.cursor)
    assert (requested(third), third.came, third.cursor.missing) == ([[SOUTH]], [SOUTH], ())
    assert "south has delivered 2024-01-05 after all, late" in third.notes


def test_a_delivery_whose_folder_was_cleared_after_it_was_taken_is_not_missing() -> None:
    taken = {NORTH: folder(a=file()).files, SOUTH: folder(a=file()).files}
    assert plan({}, taken, closed=("2024-01-05",)).missing == []


def closes(day: str) -> datetime:
    return datetime.fromisoformat(day) + timedelta(days=1, hours=2)


@pytest.mark.parametrize(
    ("after", "now", "closed"),
    [
        ("", "2024-01-09 12:00", []),  # what had closed before the first tick is not missed
        ("2024-01-07", "2024-01-09 01:59", []),
        ("2024-01-07", "2024-01-09 02:00", ["2024-01-08"]),
        ("2024-01-05", "2024-01-09 12:00", ["2024-01-06", "2024-01-07", "2024-01-08"]),
        ("2024-01-08", "2024-01-07 12:00", []),  # the clock was set back
        ("2022-01-01", "2024-01-09 12:00", [f"2024-01-0{day}" for day in range(2, 9)]),
    ],
)
def test_each_window_closes_once_also_after_an_outage(after: str, now: str, closed: list[str]) -> None:
    found, until = closed_windows(after, datetime.fromisoformat(now), closes)
    assert found == closed
    assert until >= after, "no window closes twice"


def days(number: int, last: str = "2024-01-09") -> list[str]:
    end = datetime.fromisoformat(last)
    return [(end - timedelta(days=back)).date().isoformat() for back in reversed(range(number))]


def test_a_tick_scans_what_is_recent_new_or_waiting_and_a_share_of_the_rest_so_that_all_have_their_turn() -> None:
    listed = {"north": days(400), "south": days(30)}
    waiting = ("north", "2023-05-05")
    cursor = Cursor(waiting=plan({waiting: folder(None, a=file())}).cursor.waiting)
    new = ("south", "2023-12-24")
    seen: set[Key] = set()
    for tick in range(430 // OLD_FOLDERS_PER_TICK):
        keys, turn = folders_to_scan(listed, [new] if tick == 0 else [], [], cursor, "2024-01-09")
        assert len(keys) <= 6 + 2 + OLD_FOLDERS_PER_TICK
        assert {("north", "2024-01-08"), ("south", "2024-01-09"), waiting} <= {*keys}
        assert (new in keys[:8]) or tick > 0
        seen |= {*keys}
        cursor = Cursor(turn=turn, waiting=cursor.waiting)
    assert seen == {(supplier, day) for supplier, listed_days in listed.items() for day in listed_days}


def test_folders_of_suppliers_that_are_no_longer_known_are_not_scanned() -> None:
    cursor = Cursor(waiting=plan({NORTH: folder(None, a=file())}).cursor.waiting)
    assert folders_to_scan({}, [], ["2024-01-08"], cursor, "2024-01-09") == ([], 0)


def test_a_cursor_comes_back_as_it_was_and_a_damaged_one_is_an_empty_one() -> None:
    made = plan({NORTH: folder(a=file()), SOUTH: folder(None, a=file())}, closed=("2024-01-05",))
    text = made.cursor.to_json()
    assert Cursor.from_json(text) == (made.cursor, "")
    assert Cursor.from_json(None) == (Cursor(), "")
    for damaged in (text[:-9], "[]", '{"cursor":1}', '{"cursor":99}', text.replace("/", "-")):
        cursor, problem = Cursor.from_json(damaged)
        assert cursor == Cursor()
        assert problem


def test_after_a_lost_cursor_nothing_that_was_taken_is_requested_and_no_window_is_reported_again() -> None:
    scan = folder(a=file())
    made = plan({NORTH: scan}, {NORTH: scan.files}, Cursor(), closed=())
    assert (made.requests, made.missing) == ([], [])


def test_the_version_of_a_delivery_is_its_names_and_contents() -> None:
    assert version_of({"data-1.csv": "a", "data-2.csv": "b"}) == version_of({"data-2.csv": "b", "data-1.csv": "a"})
    others = [{"data-1.csv": "b", "data-2.csv": "a"}, {"data-1.csv": "a"}, {"data-1.csv": "a", "data-3.csv": "b"}]
    assert len({version_of(other) for other in [{"data-1.csv": "a", "data-2.csv": "b"}, *others]}) == 4


@pytest.mark.parametrize("name", ["20240105", "2024-1-5", "2024-02-30", "yesterday", "", "2024-01-05 ", "\u0662024"])
def test_a_name_that_is_no_day_is_none(name: str) -> None:
    assert not is_day(name)


def test_a_useless_name_is_told_once_and_again_after_it_was_gone() -> None:
    assert told_once(["a", "b"], []) == (["a", "b"], ("a", "b"))
    assert told_once(["b", "c"], ["a", "b"]) == (["c"], ("b", "c"))
    assert told_once(["a"], ["b"]) == (["a"], ("a",))
