"""Ticks of the sensor over a real folder, and the runs that they request."""

import os
import shutil
import time
from datetime import datetime, timezone

import dagster as dg
import pytest

from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader.assets import devices_file
from dedp_assets.isolated_sequencer.loader.landing import landing_folder
from dedp_assets.landing import wanted
from dedp_assets.landing.copies import Refusal, lock_of, read_record, write_refusal
from dedp_assets.landing.dated import UNDATED
from sensors.landed_files.cursor import Cursor
from sensors.landed_files.sensor import run_request
from tests.landing import put_file
from tests.sensors.landed_files.made import plan_for, version
from tests.sensors.landed_files.world import LandedTicks, content_of, days_of, run


def test_one_day_is_a_partition_and_more_are_one_range() -> None:
    one, range_of_days = plan_for(
        {"2024-01-01": version(1), "2024-01-03": version(1), "2024-01-04": version(1)}
    ).requests
    assert run_request(one, contract.DEVICES_FILE).partition_key == "2024-01-01"
    assert run_request(range_of_days, contract.DEVICES_FILE).partition_key is None
    assert run_request(range_of_days, contract.DEVICES_FILE).tags == {
        "dagster/asset_partition_range_start": "2024-01-03",
        "dagster/asset_partition_range_end": "2024-01-04",
    }


def test_three_days_take_the_one_undated_file_once(
    instance: dg.DagsterInstance, ticks: LandedTicks, three_days: list[str]
) -> None:
    nothing = ticks()
    assert nothing.run_requests == []
    assert "nothing has arrived" in nothing.message

    put_file(landing_folder().file_of(UNDATED))
    (request,) = ticks().run_requests
    assert days_of(request) == three_days
    assert ticks().run_requests == []
    assert run(instance, request)
    assert instance.get_materialized_partitions(contract.DEVICES_FILE) == set(three_days)
    again = ticks()
    assert again.run_requests == []
    assert again.message == f"nothing new in {landing_folder().path}"


def test_a_file_that_lands_is_taken_by_the_first_tick_that_has_seen_it_settle(
    instance: dg.DagsterInstance, ticks: LandedTicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = contract.due_days(datetime.now(timezone.utc))[-1]
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "0.3")
    put_file(landing_folder().file_of(day))
    assert ticks().run_requests == []
    time.sleep(0.3)
    assert ticks.run_requested(ticks()) == [day]


def test_a_file_that_is_renamed_into_place_is_taken_by_the_first_tick_that_sees_it(
    ticks: LandedTicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = contract.due_days(datetime.now(timezone.utc))[-1]
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "3600")
    landed = landing_folder().file_of(day)
    landed.parent.mkdir(parents=True)
    ticks()
    for content in ("first version", "second version"):
        put_file(landed.with_name("draft.part"), content).rename(landed)
        assert ticks.run_requested(ticks()) == [day]
        assert content_of(day) == content
        assert ticks().run_requests == []
    put_file(landed, "written in place")
    assert ticks().run_requests == []


def test_a_day_takes_its_own_file_and_the_others_the_undated_one(ticks: LandedTicks, three_days: list[str]) -> None:
    put_file(landing_folder().file_of(UNDATED), "for everybody")
    put_file(landing_folder().file_of(three_days[1]), "for its day")
    assert ticks.run_requested(ticks()) == three_days
    assert [content_of(day) for day in three_days] == ["for everybody", "for its day", "for everybody"]


def test_a_rewritten_dated_file_is_taken_in_again(ticks: LandedTicks, three_days: list[str]) -> None:
    day = three_days[0]
    put_file(landing_folder().file_of(day), "first version")
    first = ticks()
    ticks.run_requested(first)
    put_file(landing_folder().file_of(day), "second version")
    second = ticks()
    assert ticks.run_requested(second) == [day]
    assert first.run_requests[0].run_key != second.run_requests[0].run_key
    assert content_of(day) == "second version"
    assert ticks().run_requests == []


def test_the_same_size_times_and_inode_with_other_content_is_another_version(
    ticks: LandedTicks, three_days: list[str]
) -> None:
    day = three_days[0]
    file = put_file(landing_folder().file_of(day), "one")
    ticks.run_requested(ticks())
    before = file.stat()
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert ticks.run_requested(ticks()) == [day]
    assert content_of(day) == "two"


def test_an_earlier_version_that_is_moved_back_into_place_is_taken_in_again(
    ticks: LandedTicks, three_days: list[str]
) -> None:
    day = three_days[0]
    landed = put_file(landing_folder().file_of(day), "first")
    other = put_file(landing_folder().path.parent / "second.csv", "second version")
    aside = landing_folder().path.parent / "aside.csv"
    ticks.run_requested(ticks())
    os.rename(landed, aside)
    os.rename(other, landed)
    assert ticks.run_requested(ticks()) == [day]
    os.rename(landed, other)
    os.rename(aside, landed)
    assert ticks.run_requested(ticks()) == [day]
    assert content_of(day) == "first"


def test_a_landing_folder_that_is_copied_or_touched_costs_no_run(ticks: LandedTicks, three_days: list[str]) -> None:
    put_file(landing_folder().file_of(UNDATED), "for everybody")
    put_file(landing_folder().file_of(three_days[1]), "for its day")
    ticks.run_requested(ticks())
    os.rename(landing_folder().path, landing_folder().path.parent / "before")
    shutil.copytree(landing_folder().path.parent / "before", landing_folder().path)
    assert ticks().run_requests == []
    landing_folder().file_of(three_days[1]).touch()
    assert ticks().run_requests == []
    assert ticks.compare_copies().run_requests == []


def test_what_a_tick_may_read_is_bounded_and_a_run_finds_out_the_rest(
    ticks: LandedTicks, three_days: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in three_days:
        put_file(landing_folder().file_of(day), "ten bytes.")
    ticks.run_requested(ticks())
    for day in three_days:
        landing_folder().file_of(day).touch()
    monkeypatch.setattr(wanted, "MAX_READ_BYTES", 20)
    assert ticks.run_requested(ticks()) == three_days[2:]
    assert ticks().run_requests == []


def test_a_tick_does_not_wait_for_a_copy_that_is_being_replaced(ticks: LandedTicks, three_days: list[str]) -> None:
    day = three_days[0]
    put_file(landing_folder().file_of(day))
    ticks.run_requested(ticks())
    landing_folder().file_of(day).touch()
    with lock_of(contract.internal_file(day).parent):
        assert ticks().run_requests == []


def test_many_days_that_took_the_same_file_are_compared_with_it_once(
    ticks: LandedTicks, three_days: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    file = put_file(landing_folder().file_of(UNDATED), "header\nfirst\n")
    ticks.run_requested(ticks())
    file.write_text("header\nother, and longer\n")
    monkeypatch.setattr(wanted, "begins_with", lambda *arguments: looks.append(arguments))
    ticks()
    assert len(looks) == 1


def test_a_day_that_took_a_part_of_the_undated_file_takes_the_rest_when_it_has_come(
    ticks: LandedTicks, three_days: list[str]
) -> None:
    file = put_file(landing_folder().file_of(UNDATED), "header\nfirst\n")
    ticks.run_requested(ticks())
    with file.open("a") as stream:
        stream.write("second\n")
    assert ticks.run_requested(ticks()) == three_days
    assert {content_of(day) for day in three_days} == {"header\nfirst\nsecond\n"}
    assert ticks().run_requests == []


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "by a rename"])
def test_an_unrelated_later_file_is_not_for_days_that_took_an_earlier_one(
    ticks: LandedTicks, three_days: list[str], in_place: bool
) -> None:
    file = put_file(landing_folder().file_of(UNDATED), "header\nfirst\n")
    ticks.run_requested(ticks())
    if in_place:
        file.write_text("header\nother, and longer\n")
    else:
        # It even begins like the other.
        put_file(file.with_name("draft"), "header\nfirst\nand more\n").rename(file)
    assert ticks().run_requests == []
    assert ticks.compare_copies().run_requests == []


def test_a_file_that_is_replaced_before_the_rest_of_it_is_taken_leaves_the_day_as_it_is(
    ticks: LandedTicks, three_days: list[str]
) -> None:
    file = put_file(landing_folder().file_of(UNDATED), "header\nfirst\n")
    ticks.run_requested(ticks())
    with file.open("a") as stream:
        stream.write("second\n")
    requested = ticks()
    put_file(file.with_name("draft"), "an unrelated later file").rename(file)
    assert ticks.run_requested(requested) == three_days
    assert {content_of(day) for day in three_days} == {"header\nfirst\n"}


def refuse(day: str) -> None:
    """Record that the copy of a day can't be loaded, as the aggregating team does."""
    copy = contract.internal_file(day)
    copied = read_record(copy)
    assert copied is not None
    write_refusal(copy, Refusal(copied.sha256, "has the first line 'wrong'"))


@pytest.mark.parametrize("refused_first", [True, False])
def test_a_day_whose_load_failed_takes_the_next_version_of_the_undated_file(
    ticks: LandedTicks, three_days: list[str], refused_first: bool
) -> None:
    put_file(landing_folder().file_of(UNDATED), "wrong")
    ticks.run_requested(ticks())
    if refused_first:
        refuse(three_days[1])
    put_file(landing_folder().file_of(UNDATED), "right at last")
    asked = ticks.run_requested(ticks())
    if not refused_first:
        # Its load fails only now.
        refuse(three_days[1])
        ticks.compare_copies()
        asked += ticks.run_requested(ticks.compare_copies())
    assert asked == [three_days[1]]
    assert content_of(three_days[1]) == "right at last"
    assert content_of(three_days[0]) == "wrong"


def test_a_dated_file_that_is_gone_when_its_run_starts_is_replaced_by_no_other(
    instance: dg.DagsterInstance, ticks: LandedTicks, three_days: list[str]
) -> None:
    day = three_days[0]
    put_file(landing_folder().file_of(UNDATED), "for everybody")
    put_file(landing_folder().file_of(day), "for its day")
    (request,) = ticks().run_requests
    landing_folder().file_of(day).unlink()
    assert not run(instance, request)
    assert not contract.internal_file(day).exists()
    assert content_of(three_days[1]) == "for everybody"


def test_a_run_by_hand_does_not_replace_a_days_own_file_by_the_undated_one(
    instance: dg.DagsterInstance, ticks: LandedTicks, three_days: list[str]
) -> None:
    day = three_days[0]
    put_file(landing_folder().file_of(UNDATED), "for everybody")
    put_file(landing_folder().file_of(day), "for its day")
    ticks.run_requested(ticks())
    landing_folder().file_of(day).unlink()
    result = dg.materialize([devices_file], instance=instance, partition_key=day, raise_on_error=False)
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    assert f"{landing_folder().file_of(day)}, from which {day} was copied, is gone" in str(failure.event_specific_data)
    assert content_of(day) == "for its day"


def test_a_run_that_failed_is_requested_again_though_no_file_has_changed(
    ticks: LandedTicks, three_days: list[str]
) -> None:
    day = three_days[0]
    put_file(landing_folder().file_of(day))
    assert [days_of(request) for request in ticks().run_requests] == [[day]]
    assert ticks.compare_copies().run_requests == []
    assert ticks.run_requested(ticks.compare_copies()) == [day]
    assert ticks.compare_copies().run_requests == []


def test_what_was_taken_in_elsewhere_is_reported_to_dagster(ticks: LandedTicks, three_days: list[str]) -> None:
    with dg.DagsterInstance.ephemeral() as elsewhere:
        for day in three_days:
            put_file(landing_folder().file_of(day), day)
            assert dg.materialize([devices_file], instance=elsewhere, partition_key=day).success
    result = ticks()
    assert result.run_requests == []
    assert [event.partition for event in result.events] == three_days


def test_a_rewritten_undated_file_is_for_days_not_taken_in_and_for_no_other(
    instance: dg.DagsterInstance, ticks: LandedTicks, three_days: list[str]
) -> None:
    put_file(landing_folder().file_of(UNDATED), "first version")
    (for_all,) = ticks().run_requests
    assert days_of(for_all) == three_days
    assert dg.materialize([devices_file], instance=instance, partition_key=three_days[0]).success

    put_file(landing_folder().file_of(UNDATED), "second version")
    assert ticks.run_requested(ticks()) == three_days[1:]
    put_file(landing_folder().file_of(UNDATED), "third version")
    assert ticks().run_requests == []
    assert [content_of(day) for day in three_days] == ["first version", "second version", "second version"]


def test_a_burst_of_thirty_days_is_one_request_with_a_range(ticks: LandedTicks) -> None:
    days = contract.due_days(datetime.now(timezone.utc))[-30:]
    for day in days:
        put_file(landing_folder().file_of(day), day)
    result = ticks()
    assert len(result.run_requests) == 1
    assert ticks.run_requested(result) == days
    assert [content_of(day) for day in days] == days


@pytest.mark.parametrize("cursor", [None, "garbled", '{"unsettled": {}, "taken": {}, "undated": null}'])
def test_a_lost_cursor_repeats_nothing(ticks: LandedTicks, three_days: list[str], cursor: str | None) -> None:
    put_file(landing_folder().file_of(UNDATED))
    put_file(landing_folder().file_of(three_days[0]))
    ticks.run_requested(ticks())
    ticks.cursor = cursor
    again = ticks()
    assert again.run_requests == []
    assert again.events == []
    put_file(landing_folder().file_of(three_days[0]), "a new version")
    assert ticks.run_requested(ticks()) == three_days[:1]


def test_copies_from_before_they_said_where_they_came_from_are_kept_and_compared_by_content(
    ticks: LandedTicks, three_days: list[str]
) -> None:
    put_file(landing_folder().file_of(UNDATED))
    for day in three_days[:2]:
        put_file(landing_folder().file_of(day), day)
    ticks.run_requested(ticks())
    for day in three_days:
        (contract.internal_file(day).parent / "source.json").unlink()
    ticks.cursor = None
    put_file(landing_folder().file_of(three_days[1]), "changed meanwhile")
    assert ticks.run_requested(ticks()) == [three_days[1]]


def test_the_tick_message_names_what_waits_and_what_is_wrong(
    ticks: LandedTicks, three_days: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "7")
    today = datetime.now(timezone.utc).date().isoformat()
    put_file(landing_folder().file_of(today), "")
    put_file(landing_folder().path / "backup" / "dataset.csv")
    put_file(landing_folder().file_of(three_days[0]))
    result = ticks()
    assert result.run_requests == []
    assert result.message == "; ".join(
        [
            "backup/dataset.csv is ignored: 'backup' is not a day like 2024-01-31",
            f"{three_days[0]}/dataset.csv is not complete yet: changed less than 7 s ago",
            f"{today}/dataset.csv is empty: waits for its content",
        ]
    )


def test_a_note_is_logged_when_it_changes_and_not_at_every_tick(
    instance: dg.DagsterInstance, ticks: LandedTicks, capfd: pytest.CaptureFixture[str]
) -> None:
    put_file(landing_folder().path / "backup" / "dataset.csv")
    logged = []
    for _ in range(3):
        ticks()
        logged.append("backup/dataset.csv is ignored" in capfd.readouterr().err)
    put_file(landing_folder().path / "other" / "dataset.csv")
    ticks()
    logged.append("other/dataset.csv is ignored" in capfd.readouterr().err)
    assert logged == [True, False, False, True]


def test_a_name_that_is_not_text_does_not_break_the_tick(ticks: LandedTicks, three_days: list[str]) -> None:
    put_file(landing_folder().file_of(three_days[0]))
    odd = os.path.join(os.fsencode(landing_folder().path), b"\xff")
    os.mkdir(odd)
    open(os.path.join(odd, b"dataset.csv"), "w").close()
    (request,) = ticks().run_requests
    assert days_of(request) == three_days[:1]
    assert "\\xff/dataset.csv is ignored" in Cursor.from_json(ticks.cursor).told[0]
