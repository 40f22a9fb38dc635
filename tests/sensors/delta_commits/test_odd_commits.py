"""Commits that are not complete, or that other writers write in an odd way, are read for what they are."""

import pytest

from tests.sensors.delta_commits.world import (
    FIRST,
    KINDS,
    SECOND,
    THIRD,
    VECTOR,
    CommitTicks,
    Devices,
    a_minute_later,
    add_of,
    protocol_with,
    versions,
)


def test_half_a_commit_is_named_and_taken_in_when_it_is_whole(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    ticks()
    devices.append(SECOND)
    devices.append(THIRD)
    whole = devices.commit_file(2).read_bytes()
    devices.commit_file(2).write_bytes(whole[: len(whole) // 2])
    first = ticks()
    assert versions(first) == {SECOND: 1}
    assert f"{devices.commit_file(2)} is not a complete commit yet" in first.message
    second = ticks()
    assert versions(second) == {}
    assert f"{devices.commit_file(2)} is not a complete commit yet" in second.message
    devices.commit_file(2).write_bytes(whole)
    assert ticks.reported() == {THIRD: 2}


@pytest.mark.parametrize("written", [1, 2], ids=["the first commit", "a later commit"])
def test_half_a_commit_in_a_new_table_is_waited_for(written: int, devices: Devices, ticks: CommitTicks) -> None:
    for day in (FIRST, SECOND)[:written]:
        devices.append(day)
    whole = devices.commit_file(written - 1).read_bytes()
    devices.commit_file(written - 1).write_bytes(whole[:-20])
    first = ticks()
    assert versions(first) == ({FIRST: 0} if written == 2 else {})
    assert "is not a complete commit yet" in first.message
    devices.commit_file(written - 1).write_bytes(whole)
    assert ticks.reported() == ({SECOND: 1} if written == 2 else {FIRST: 0})


def test_a_commit_that_looked_whole_and_grew_is_taken_in_again(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    devices.append(SECOND, THIRD)
    whole = devices.commit_file(1).read_bytes()
    lines = whole.splitlines(keepends=True)
    devices.commit_file(1).write_bytes(b"".join(lines[:-1]))
    seen = ticks.reported()
    assert len(seen) == 2
    devices.commit_file(1).write_bytes(whole)
    assert {*seen, *ticks.reported()} == {FIRST, SECOND, THIRD}
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()


def test_a_file_that_is_added_once_more_makes_no_day_late_and_hides_none(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    devices.append(FIRST)
    (first,), (second,) = devices.actions(0, "add"), devices.actions(1, "add")
    ticks()
    removal = {"path": first["path"], "dataChange": False, "partitionValues": first["partitionValues"]}
    compacted = add_of(FIRST) | {"dataChange": False}
    devices.write_commit(2, {"remove": removal}, {"add": compacted}, {"add": second | {"dataChange": False}})
    assert ticks.reported() == {}
    with a_minute_later():
        before = ticks.cursor
        assert ticks.reported() == {}
        assert ticks.cursor == before
        devices.write_commit(3, {"add": add_of(SECOND)})
        assert ticks.reported() == {SECOND: 3}
        assert ticks.left.fingerprints == devices.snapshot.fingerprints()
    devices.write_commit(4, {"add": add_of(SECOND) | {"path": "y.parquet"}})
    devices.clean_up(kept=0)
    devices.write_commit(5, {"add": add_of(THIRD)})
    assert set(ticks.reported()) == {SECOND, THIRD}


def test_a_file_rewritten_in_place_is_reported_and_a_gap_does_not_hide_it(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    devices.append(SECOND)
    ticks()
    (add,) = devices.actions(0, "add")
    devices.write_commit(2, {"add": add | {"size": 7, "modificationTime": 7}})
    assert ticks.reported() == {FIRST: 2}


@pytest.mark.parametrize("kind", KINDS)
def test_a_date_has_one_name_however_the_log_writes_it(kind: str, ticks: CommitTicks) -> None:
    devices = Devices(kind)
    devices.append(SECOND)
    ticks()
    odd = add_of("x") | {"partitionValues": {"event_time": "2024-1-1"}}
    devices.write_commit(1, {"add": odd})
    result = ticks()
    assert versions(result) == ({FIRST: 1} if kind == "date" else {})
    assert ("'2024-1-1' is not a day" in result.message) == (kind == "string")
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()


def test_a_date_that_is_out_of_reach_is_named_and_stops_no_other_day(ticks: CommitTicks) -> None:
    devices = Devices("date")
    devices.append(FIRST)
    far = [{"partitionValues": {"event_time": value}} for value in ("+10000-01-01", "-0001-01-01", "9999-12-31")]
    devices.write_commit(1, *({"add": add_of(day) | odd} for day, odd in zip("xyz", far, strict=True)))
    result = ticks()
    assert versions(result) == {FIRST: 0}
    for said in (
        "'+10000-01-01' is not a day",
        "'-0001-01-01' is not a day",
        "will be reported once the day has begun: 9999-12-31",
    ):
        assert said in result.message
    with a_minute_later():
        devices.write_commit(2, {"add": add_of(SECOND)})
        assert ticks.reported() == {SECOND: 2}


def test_deletion_vectors_that_come_and_go_between_two_ticks_are_followed(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST, SECOND)
    ticks()
    add = next(add for add in devices.actions(0, "add") if FIRST in add["path"])
    of_file = {"path": add["path"], "partitionValues": add["partitionValues"]}
    devices.write_commit(1, protocol_with("deletionVectors"))
    devices.write_commit(2, {"remove": of_file | {"dataChange": True}}, {"add": add | {"deletionVector": VECTOR}})
    purged = add_of(FIRST) | {"dataChange": False}
    devices.write_commit(3, {"remove": of_file | {"dataChange": False, "deletionVector": VECTOR}}, {"add": purged})
    assert ticks.reported() == {FIRST: 2}
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()
