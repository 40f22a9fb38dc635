"""Every complete version of a file that lands is asked for once, for the right days; nothing else ever is."""

import json
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest

from dedp_assets import settings
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader.assets import devices_file
from dedp_assets.isolated_sequencer.loader.landing import landing_folder
from dedp_assets.landing import wanted
from dedp_assets.landing.copies import CopyRecord, Refusal, lock_of, read_record, write_refusal
from dedp_assets.landing.dated import UNDATED, DatedFolder, Listing, scan_landing
from dedp_assets.landing.versions import FileVersion, Seen
from jobs import devices_loader
from sensors.landed_files import MAX_DAYS_PER_RUN, Cursor, Situation, compares_levels, plan_runs
from sensors.landed_files import run_request as request_for
from sensors.pipelines.devices_loader import devices_landed

SETTLE = 2.0
NOW = 1_800_000_000.0
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"]


def version(number, size=1):
    """One version of a file, and with another number another one."""
    return FileVersion(size, modified_ns=number, changed_ns=number, inode=number)


@dataclass
class Known:
    """What is known of the days' copies, as said: where each came from; the versions that it has the content of."""

    sources: dict[str, CopyRecord] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    same: set[tuple[str, FileVersion]] = field(default_factory=set)
    grown: set[tuple[str, FileVersion]] = field(default_factory=set)
    without_source: set[str] = field(default_factory=set)

    def record_of(self, day):
        return self.sources.get(day)

    def exists(self, day):
        return day in self.sources or day in self.without_source

    def is_refused(self, day):
        return day in self.refused

    def has_content_of(self, day, landed, version):
        copied = self.sources.get(day)
        return (day, version) in self.same or (copied is not None and copied.version == version)

    def is_beginning_of(self, day, version):
        return (day, version) in self.grown


def copy_of_own(day, number):
    return CopyRecord(f"/landing/devices/{day}/dataset.csv", version(number), f"sha {number}")


def copy_of_undated(number, size=1):
    return CopyRecord("/landing/devices/dataset.csv", version(number, size), f"sha {number}")


def days_asked_for(plan):
    return [request.days for request in plan.requests]


def tick(
    files=None,
    cursor=None,
    copies=None,
    *,
    now=NOW,
    settle=0.0,
    due=DAYS,
    undated_due=None,
    materialized=(),
    in_progress=None,
    problems=(),
    unusable=(),
):
    return plan_runs(
        Listing(files or {}, list(problems), set(unusable)),
        cursor or Cursor(),
        copies or Known(),
        Situation(
            landing=DatedFolder(Path("/landing/devices"), "dataset.csv"),
            now=now,
            settle_seconds=settle,
            due=due,
            undated_due=due if undated_due is None else undated_due,
            materialized=materialized,
            in_progress=in_progress,
        ),
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
        {"copies": Known(same={("2024-01-02", version(1))})},
        [],
    ),
    "a copy of another version of the day's own file is made again": (
        {"2024-01-02": version(2)},
        {"copies": Known({"2024-01-02": copy_of_own("2024-01-02", 1)}), "materialized": DAYS},
        [["2024-01-02"]],
    ),
    "a day that had a file of its own does not take the undated one": (
        {UNDATED: version(2)},
        {"copies": Known({"2024-01-02": copy_of_own("2024-01-02", 1)}), "undated_due": ["2024-01-02"]},
        [],
    ),
    "a day that took an earlier version of the undated file keeps it": (
        {UNDATED: version(2)},
        {"copies": Known({day: copy_of_undated(1) for day in DAYS}), "materialized": DAYS},
        [],
    ),
    "a day that took the undated file while it was shorter takes all of it": (
        {UNDATED: version(2)},
        {
            "copies": Known({day: copy_of_undated(1) for day in DAYS}, grown={("2024-01-03", version(2))}),
            "materialized": DAYS,
        },
        [["2024-01-03"]],
    ),
    "a day whose load failed takes the next version of the undated file": (
        {UNDATED: version(2)},
        {"copies": Known({day: copy_of_undated(1) for day in DAYS}, refused={"2024-01-04"}), "materialized": DAYS},
        [["2024-01-04"]],
    ),
    "a day whose load failed does not take the same content again": (
        {UNDATED: version(2)},
        {
            "copies": Known({DAYS[0]: copy_of_undated(1)}, refused={DAYS[0]}, same={(DAYS[0], version(2))}),
            "materialized": DAYS,
        },
        [],
    ),
    "a copy that does not say where it came from is left alone": (
        {UNDATED: version(1)},
        {"copies": Known(without_source=set(DAYS[:4]))},
        [["2024-01-05"]],
    ),
}


@pytest.mark.parametrize(("files", "situation", "expected"), CLAIMS.values(), ids=CLAIMS)
def test_a_first_look_asks_for_just_these_days(files, situation, expected):
    assert days_asked_for(tick(files, **situation)) == expected


def test_what_was_asked_for_is_not_asked_for_again():
    files = {UNDATED: version(1), "2024-01-03": version(2)}
    first = tick(files)
    assert days_asked_for(first) == [DAYS]
    assert days_asked_for(tick(files, first.cursor)) == []


@pytest.mark.parametrize("day", ["2024-01-02", UNDATED], ids=["the day's own", "undated"])
def test_a_file_is_complete_once_we_have_seen_it_unchanged_for_long_enough(day):
    files = {day: version(1)}
    first = tick(files, settle=SETTLE)
    second = tick(files, first.cursor, settle=SETTLE, now=NOW + 1.9)
    third = tick(files, second.cursor, settle=SETTLE, now=NOW + 2)
    expected = [["2024-01-02"]] if day else [DAYS]
    assert [days_asked_for(each) for each in (first, second, third)] == [[], [], expected]


def test_how_old_a_file_claims_to_be_does_not_count():
    # A writer that keeps the source's time of change while it writes: each look finds an old file, and a longer one.
    cursor = Cursor()
    for number in range(20):
        growing = FileVersion(100 + number, modified_ns=0, changed_ns=number, inode=1)
        plan = tick({"2024-01-02": growing}, cursor, settle=SETTLE, now=NOW + number)
        assert days_asked_for(plan) == []
        cursor = plan.cursor
    assert days_asked_for(tick({"2024-01-02": growing}, cursor, settle=SETTLE, now=NOW + 30)) == [["2024-01-02"]]


def test_a_file_that_grew_between_two_ticks_starts_waiting_anew():
    first = tick({"2024-01-02": version(1)}, settle=SETTLE)
    second = tick({"2024-01-02": version(2)}, first.cursor, settle=SETTLE, now=NOW + 2)
    assert days_asked_for(first) == days_asked_for(second) == []
    third = tick({"2024-01-02": version(2)}, second.cursor, settle=SETTLE, now=NOW + 4)
    assert days_asked_for(third) == [["2024-01-02"]]


def test_a_clock_that_is_set_back_while_a_file_settles_costs_no_more_than_the_settle_time():
    files = {"2024-01-02": version(1)}
    first = tick(files, settle=SETTLE)
    second = tick(files, first.cursor, settle=SETTLE, now=NOW - 3600)
    third = tick(files, second.cursor, settle=SETTLE, now=NOW - 3600 + SETTLE)
    assert [days_asked_for(each) for each in (first, second, third)] == [[], [], [["2024-01-02"]]]


def test_a_file_that_was_taken_in_is_not_said_to_be_incomplete_whatever_its_times_are():
    files = {"2024-01-02": version(1)._replace(modified_ns=round((NOW + 86_400) * 1e9))}
    first = tick(files)
    assert tick(files, first.cursor, settle=SETTLE).notes == []


@pytest.mark.parametrize("what", FileVersion._fields)
def test_a_rewritten_dated_file_is_asked_for_under_a_new_run_key(what):
    first = tick({"2024-01-02": version(1)})
    second = tick({"2024-01-02": version(1)._replace(**{what: 2})}, first.cursor)
    assert days_asked_for(second) == [["2024-01-02"]]
    assert second.requests[0].run_key != first.requests[0].run_key


def test_an_earlier_version_that_comes_back_is_asked_for_under_a_run_key_of_its_own():
    cursor, keys = Cursor(), []
    for number in (1, 2, 1, 2, 1):
        plan = tick({"2024-01-02": version(number)}, cursor)
        cursor = plan.cursor
        keys += [request.run_key for request in plan.requests]
    assert len(set(keys)) == 5


def test_a_cursor_that_was_lost_begins_run_keys_of_its_own():
    first = tick({"2024-01-02": version(1)})
    again = tick({"2024-01-02": version(1)}, Cursor.from_json("lost"), now=NOW + 60)
    assert first.requests[0].run_key != again.requests[0].run_key


def test_a_lost_cursor_asks_for_nothing_that_was_taken_in():
    files = {UNDATED: version(1), "2024-01-02": version(2)}
    copies = Known({day: copy_of_undated(1) for day in DAYS} | {"2024-01-02": copy_of_own("2024-01-02", 2)})
    assert days_asked_for(tick(files, Cursor(), copies, materialized=DAYS)) == []


def test_a_request_names_the_file_and_the_version_of_each_day():
    (request,) = tick({UNDATED: version(1), "2024-01-02": version(2)}, undated_due=DAYS[:3]).requests
    assert request.sources == {
        "2024-01-01": "dataset.csv",
        "2024-01-02": "2024-01-02/dataset.csv",
        "2024-01-03": "dataset.csv",
    }
    assert request.complete == {"dataset.csv": version(1), "2024-01-02/dataset.csv": version(2)}


def test_a_rewritten_undated_file_is_for_the_days_that_were_not_taken_in():
    first = tick({UNDATED: version(1)})
    second = tick({UNDATED: version(2)}, first.cursor, materialized=set(DAYS[:3]))
    assert days_asked_for(second) == [DAYS[3:]]
    assert days_asked_for(tick({UNDATED: version(3)}, second.cursor, materialized=set(DAYS))) == []


def test_the_undated_file_is_for_each_further_day_as_that_ends():
    first = tick({UNDATED: version(1)}, due=DAYS[:3])
    second = tick({UNDATED: version(1)}, first.cursor, due=DAYS[:4], materialized=set(DAYS[:3]))
    assert days_asked_for(first) == [DAYS[:3]]
    assert days_asked_for(second) == [DAYS[3:4]]


def test_a_dated_file_that_came_early_is_taken_when_its_day_is_over():
    files = {"2024-01-05": version(1)}
    first = tick(files, due=DAYS[:4], settle=SETTLE)
    second = tick(files, first.cursor, due=DAYS[:4], settle=SETTLE, now=NOW + 10)
    assert days_asked_for(second) == []
    assert second.notes == ["2024-01-05/dataset.csv waits: its day (UTC) is not over"]
    assert days_asked_for(tick(files, second.cursor, due=DAYS, settle=SETTLE, now=NOW + 11)) == [["2024-01-05"]]


def test_a_file_that_vanished_and_came_back_unchanged_is_the_same_version():
    first = tick({"2024-01-02": version(1)})
    second = tick({}, first.cursor)
    third = tick({"2024-01-02": version(1)}, second.cursor)
    assert days_asked_for(second) == days_asked_for(third) == []


def test_a_burst_becomes_runs_of_a_bounded_number_of_days():
    days = [(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in range(2 * MAX_DAYS_PER_RUN + 1)]
    plan = tick({day: version(1) for day in days}, due=days)
    assert days_asked_for(plan) == [
        days[:MAX_DAYS_PER_RUN],
        days[MAX_DAYS_PER_RUN : 2 * MAX_DAYS_PER_RUN],
        days[2 * MAX_DAYS_PER_RUN :],
    ]
    assert len({request.run_key for request in plan.requests}) == 3


# Levels


def compare(cursor, copies=None, *, minutes, **situation):
    """A tick that compares levels, so many minutes later."""
    return tick(cursor=cursor, copies=copies, now=NOW + 60 * minutes, **{"in_progress": (), **situation})


def test_a_day_whose_run_failed_is_asked_for_again_and_ever_more_seldom():
    files = {"2024-01-02": version(1)}
    cursor, asked = tick(files).cursor, []
    for minute in range(1, 32):
        plan = compare(cursor, minutes=minute, files=files)
        cursor = plan.cursor
        asked += [minute for _ in plan.requests]
    assert asked == [2, 4, 8, 16]
    assert all("reconciliation" in request.cause for request in plan.requests)


def test_a_day_whose_run_is_under_way_is_not_asked_for_again():
    files = {"2024-01-02": version(1)}
    cursor = tick(files).cursor
    for minute in range(1, 10):
        plan = compare(cursor, minutes=minute, files=files, in_progress={"2024-01-02"})
        cursor = plan.cursor
        assert plan.requests == []


def test_an_undated_file_that_a_day_took_while_it_was_shorter_is_noticed_whatever_was_missed():
    copies = Known({DAYS[0]: copy_of_undated(1)}, grown={(DAYS[0], version(2))})
    # What was asked for is the longer version; what came of it is the shorter one.
    cursor = Cursor(began=1, undated=version(2))
    files = {UNDATED: version(2)}
    first = compare(cursor, copies, minutes=1, files=files, materialized=DAYS)
    second = compare(first.cursor, copies, minutes=2, files=files, materialized=DAYS)
    assert days_asked_for(second) == [[DAYS[0]]]


def test_a_copy_that_dagster_does_not_know_of_is_told_to_it_and_not_made_again():
    copies = Known({day: copy_of_undated(1) for day in DAYS[:2]})
    plan = compare(Cursor(), copies, minutes=1, files={UNDATED: version(2)}, materialized=DAYS[1:])
    assert plan.untold == {DAYS[0]: copy_of_undated(1)}
    assert plan.requests == []


def test_a_minute_has_to_pass_between_two_comparisons_also_when_the_clock_is_set_back():
    compared = compare(Cursor(), minutes=0).cursor
    assert not compares_levels(compared, NOW + 59)
    assert compares_levels(compared, NOW + 60)
    assert compares_levels(compared, NOW - 1)


# The cursor


def test_the_cursor_survives_its_way_through_json():
    files = {UNDATED: version(1), "2024-01-02": version(2), "2024-01-09": version(3)}
    cursor = compare(tick(files).cursor, minutes=1, files=files | {"2024-01-03": version(4)}, settle=5).cursor
    assert all(cursor.__dict__.values()), cursor
    assert Cursor.from_json(cursor.to_json()) == cursor


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "garbage",
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        '{"cursor": 3}',
        '{"cursor": 2}',
        '{"cursor": 2, "seen": {}, "asked": {"2024-01-01": [1]}, "undated": null, "waiting": {}}',
        '{"cursor": 2, "seen": {"2024-01-01": 5}, "asked": {}, "undated": null, "waiting": {}}',
        '{"cursor": 2, "seen": {}, "asked": {}, "undated": null, "waiting": {}, "other": 1}',
        # Of an earlier version: what was taken in, the copies say.
        '{"unsettled": {}, "taken": {"2024-01-01": [1, 2, 3]}, "undated": [1, 2, 3], "undated_days": ["2024-01-02"]}',
    ],
)
def test_a_cursor_that_is_not_ours_counts_as_none(text):
    assert Cursor.from_json(text) == Cursor()


def test_notes_name_what_waits_and_pass_on_what_went_wrong():
    plan = tick(
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
        "2023-01-01/dataset.csv is older than the first partition, 2024-01-01: not taken in",
    ]


def test_one_day_is_a_partition_and_more_are_one_range():
    one, range_of_days = tick({"2024-01-01": version(1), "2024-01-03": version(1), "2024-01-04": version(1)}).requests
    assert request_for(one, contract.DEVICES_FILE).partition_key == "2024-01-01"
    assert request_for(range_of_days, contract.DEVICES_FILE).partition_key is None
    assert request_for(range_of_days, contract.DEVICES_FILE).tags == {
        "dagster/asset_partition_range_start": "2024-01-03",
        "dagster/asset_partition_range_end": "2024-01-04",
    }


def put_file(path, text="content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (0, 0))
    return path


def as_another_user(work):
    """The result of `work`, done by a user to whom permissions mean something."""
    if os.geteuid() != 0:
        return work()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


def test_a_look_finds_the_undated_file_and_those_of_days(tmp_path):
    undated = put_file(tmp_path / "dataset.csv")
    dated = put_file(tmp_path / "2024-01-03" / "dataset.csv", "longer content")
    (tmp_path / "2024-01-04").mkdir()
    (tmp_path / "2024-01-05").touch()
    (tmp_path / "2024-01-06").mkdir()
    (tmp_path / "2024-01-06" / ".dataset.csv.part").touch()
    (tmp_path / "2024-01-06" / "_STARTED").touch()
    (tmp_path / "2024-01-06" / "dataset.csv.part").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty folder").mkdir()
    listing = scan_landing(DatedFolder(tmp_path, "dataset.csv"))
    assert listing == Listing(
        {
            UNDATED: FileVersion(7, 0, undated.stat().st_ctime_ns, undated.stat().st_ino),
            "2024-01-03": FileVersion(14, 0, dated.stat().st_ctime_ns, dated.stat().st_ino),
        },
        [],
    )


@pytest.mark.parametrize(
    "name",
    ["2024-01-05/Dataset.csv", "2024-01-05/dataset.csv.gz", "2024-01-05/devices.csv", "DATASET.CSV", "dataset.csv.zip"],
)
def test_a_file_that_has_not_the_expected_name_is_named(tmp_path, name):
    put_file(tmp_path / name)
    assert scan_landing(DatedFolder(tmp_path, "dataset.csv")) == Listing(
        {}, [f"{name} is ignored: expected the name dataset.csv, and plain CSV in it"]
    )


def test_a_look_at_a_folder_that_is_not_there_says_so(tmp_path):
    assert scan_landing(DatedFolder(tmp_path / "devices", "dataset.csv")).problems == [
        f"{tmp_path}/devices does not exist yet: nothing has arrived"
    ]


def test_a_look_at_a_file_in_the_place_of_the_folder_says_so(tmp_path):
    (tmp_path / "devices").touch()
    assert scan_landing(DatedFolder(tmp_path / "devices", "dataset.csv")) == Listing(
        {}, [f"{tmp_path}/devices can't be read: Not a directory"]
    )


@pytest.mark.parametrize(
    "name",
    ["20240103", "2024-1-3", "2024-13-01", "2024-02-30", "2024-W01-3", "2024-01-03 ", "latest", "2024-01-03T00:00:00"],
)
def test_a_folder_that_is_no_day_is_named_and_ignored(tmp_path, name):
    put_file(tmp_path / name / "dataset.csv")
    assert scan_landing(DatedFolder(tmp_path, "dataset.csv")) == Listing(
        {}, [f"{name}/dataset.csv is ignored: {name!r} is not a day like 2024-01-31"]
    )


def test_links_to_files_and_folders_are_followed(tmp_path):
    target = put_file(tmp_path / "elsewhere" / "dataset.csv")
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "dataset.csv").symlink_to(target)
    (tmp_path / "devices" / "2024-01-03").symlink_to(target.parent)
    assert list(scan_landing(DatedFolder(tmp_path / "devices", "dataset.csv")).files) == [UNDATED, "2024-01-03"]


def test_what_cannot_be_read_is_named_and_hides_nothing_else(tmp_path):
    put_file(tmp_path / "dataset.csv")
    put_file(tmp_path / "2024-01-09" / "dataset.csv")
    (tmp_path / "2024-01-01").symlink_to("2024-01-01")
    for day in ("2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"):
        (tmp_path / day).mkdir()
    (tmp_path / "2024-01-02" / "dataset.csv").symlink_to("dataset.csv")
    (tmp_path / "2024-01-03" / "dataset.csv").symlink_to("nothing")
    (tmp_path / "2024-01-04" / "dataset.csv").mkdir()
    os.mkfifo(tmp_path / "2024-01-05" / "dataset.csv")
    (tmp_path / "loop").symlink_to("loop")
    listing = scan_landing(DatedFolder(tmp_path, "dataset.csv"))
    assert list(listing.files) == [UNDATED, "2024-01-09"]
    assert listing.problems == [
        "2024-01-01/dataset.csv can't be read: Too many levels of symbolic links",
        "2024-01-02/dataset.csv can't be read: Too many levels of symbolic links",
        "2024-01-03/dataset.csv is a link to nothing",
        "2024-01-04/dataset.csv is not a file",
        "2024-01-05/dataset.csv is not a file",
    ]
    assert listing.unusable == {f"2024-01-0{number}" for number in range(1, 6)}


def test_files_and_folders_of_others_are_named_and_hide_nothing_else():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        put_file(folder / "2024-01-01" / "dataset.csv").chmod(0)
        put_file(folder / "2024-01-02" / "dataset.csv")
        put_file(folder / "2024-01-03" / "dataset.csv")
        put_file(folder / "private" / "dataset.csv")
        (folder / "2024-01-02").chmod(0)
        (folder / "private").chmod(0)

        def found():
            listing = scan_landing(DatedFolder(folder, "dataset.csv"))
            return [list(listing.files), listing.problems]

        try:
            assert as_another_user(found) == [
                ["2024-01-03"],
                [
                    "2024-01-01/dataset.csv can't be read: Permission denied",
                    "2024-01-02/dataset.csv can't be read: Permission denied",
                ],
            ]
        finally:
            (folder / "2024-01-02").chmod(0o755)
            (folder / "private").chmod(0o755)


def test_a_folder_of_others_is_a_problem_and_no_error():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_file(folder / "dataset.csv")
        folder.chmod(0)

        def found():
            listing = scan_landing(DatedFolder(folder, "dataset.csv"))
            return [list(listing.files), listing.problems]

        try:
            assert as_another_user(found) == [
                [],
                ["dataset.csv can't be read: Permission denied", f"{folder} can't be read: Permission denied"],
            ]
        finally:
            folder.chmod(0o755)


def test_a_look_never_fails_while_files_come_and_go(tmp_path):
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            for day in DAYS:
                put_file(tmp_path / day / "dataset.csv")
            for day in DAYS:
                (tmp_path / day / "dataset.csv").unlink()
                (tmp_path / day).rmdir()

    coming_and_going = threading.Thread(target=come_and_go)
    coming_and_going.start()
    try:
        listings = [scan_landing(DatedFolder(tmp_path, "dataset.csv")) for _ in range(500)]
    finally:
        over.set()
        coming_and_going.join()
    assert {len(listing.files) for listing in listings} <= set(range(len(DAYS) + 1))
    assert scan_landing(DatedFolder(tmp_path, "dataset.csv")) == Listing()


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def three_days():
    """The days whose partitions take the undated file in a new home."""
    days = contract.due_days(datetime.now(timezone.utc), settings.start())
    assert len(days) == 3
    return days


class Ticks:
    """The sensor, ticked again and again as the daemon would: each tick gets the cursor of the one before."""

    def __init__(self, instance, monkeypatch):
        self._instance = instance
        self.cursor = None
        # What is there is taken. That it settles first has tests of its own.
        monkeypatch.setenv("DEDP_SETTLE_SECONDS", "0")

    def __call__(self):
        context = dg.build_sensor_context(instance=self._instance, cursor=self.cursor, definitions=devices_loader.defs)
        result = devices_landed.evaluate_tick(context)
        self.cursor = result.cursor
        return result

    def compare_levels(self):
        """A tick that looks at all that there is, whatever the ticks before have seen and asked for."""
        cursor = Cursor.from_json(self.cursor)
        waiting = {day: each._replace(due=0) for day, each in cursor.waiting.items()}
        self.cursor = replace(cursor, compared=0, waiting=waiting).to_json()
        return self()

    def take_in(self, result):
        """Run what a tick asked for, and return the days."""
        for request in result.run_requests:
            assert take_in(self._instance, request)
        return [day for request in result.run_requests for day in days_of(request)]


@pytest.fixture
def tick_of_sensor(instance, monkeypatch):
    return Ticks(instance, monkeypatch)


def take_in(instance, request):
    """Run what the sensor asked for, as the daemon would; returns whether it succeeded."""
    return dg.materialize(
        [devices_file],
        instance=instance,
        partition_key=request.partition_key,
        tags=request.tags,
        run_config=request.run_config,
        raise_on_error=False,
    ).success


def days_of(request):
    if request.partition_key:
        return [request.partition_key]
    first, last = (date.fromisoformat(request.tags[f"dagster/asset_partition_range_{end}"]) for end in ("start", "end"))
    return [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]


def content_of(day):
    return contract.internal_file(day).read_text()


def test_three_days_take_the_one_undated_file_once(instance, tick_of_sensor, three_days):
    tick = tick_of_sensor
    nothing = tick()
    assert nothing.run_requests == []
    assert "nothing has arrived" in nothing.skip_message

    put_file(landing_folder().file_of(UNDATED))
    (request,) = tick().run_requests
    assert days_of(request) == three_days
    assert tick().run_requests == []
    assert take_in(instance, request)
    assert instance.get_materialized_partitions(contract.DEVICES_FILE) == set(three_days)
    again = tick()
    assert again.run_requests == []
    assert again.skip_message == f"nothing new in {landing_folder().path}"


def test_a_file_that_lands_is_taken_by_the_first_tick_that_has_seen_it_settle(instance, tick_of_sensor, monkeypatch):
    day = contract.due_days(datetime.now(timezone.utc))[-1]
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "0.3")
    put_file(landing_folder().file_of(day))
    assert tick_of_sensor().run_requests == []
    time.sleep(0.3)
    assert tick_of_sensor.take_in(tick_of_sensor()) == [day]


def test_a_day_takes_its_own_file_and_the_others_the_undated_one(tick_of_sensor, three_days):
    put_file(landing_folder().file_of(UNDATED), "for everybody")
    put_file(landing_folder().file_of(three_days[1]), "for its day")
    assert tick_of_sensor.take_in(tick_of_sensor()) == three_days
    assert [content_of(day) for day in three_days] == ["for everybody", "for its day", "for everybody"]


def test_a_rewritten_dated_file_is_taken_in_again(tick_of_sensor, three_days):
    tick, day = tick_of_sensor, three_days[0]
    put_file(landing_folder().file_of(day), "first version")
    first = tick()
    tick.take_in(first)
    put_file(landing_folder().file_of(day), "second version")
    second = tick()
    assert tick.take_in(second) == [day]
    assert first.run_requests[0].run_key != second.run_requests[0].run_key
    assert content_of(day) == "second version"
    assert tick().run_requests == []


def test_the_same_size_times_and_inode_with_other_content_is_another_version(tick_of_sensor, three_days):
    tick, day = tick_of_sensor, three_days[0]
    file = put_file(landing_folder().file_of(day), "one")
    tick.take_in(tick())
    before = file.stat()
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert tick.take_in(tick()) == [day]
    assert content_of(day) == "two"


def test_an_earlier_version_that_is_moved_back_into_place_is_taken_in_again(tick_of_sensor, three_days):
    tick, day = tick_of_sensor, three_days[0]
    landed = put_file(landing_folder().file_of(day), "first")
    other = put_file(landing_folder().path.parent / "second.csv", "second version")
    aside = landing_folder().path.parent / "aside.csv"
    tick.take_in(tick())
    os.rename(landed, aside)
    os.rename(other, landed)
    assert tick.take_in(tick()) == [day]
    os.rename(landed, other)
    os.rename(aside, landed)
    assert tick.take_in(tick()) == [day]
    assert content_of(day) == "first"


def test_a_landing_folder_that_is_copied_or_touched_costs_no_run(tick_of_sensor, three_days):
    tick = tick_of_sensor
    put_file(landing_folder().file_of(UNDATED), "for everybody")
    put_file(landing_folder().file_of(three_days[1]), "for its day")
    tick.take_in(tick())
    os.rename(landing_folder().path, landing_folder().path.parent / "before")
    shutil.copytree(landing_folder().path.parent / "before", landing_folder().path)
    assert tick().run_requests == []
    landing_folder().file_of(three_days[1]).touch()
    assert tick().run_requests == []
    assert tick.compare_levels().run_requests == []


def test_what_a_look_may_read_is_bounded_and_a_run_finds_out_the_rest(tick_of_sensor, three_days, monkeypatch):
    tick = tick_of_sensor
    for day in three_days:
        put_file(landing_folder().file_of(day), "ten bytes.")
    tick.take_in(tick())
    for day in three_days:
        landing_folder().file_of(day).touch()
    monkeypatch.setattr(wanted, "MAX_READ_BYTES", 20)
    assert tick.take_in(tick()) == three_days[2:]
    assert tick().run_requests == []


def test_a_tick_does_not_wait_for_a_copy_that_is_being_replaced(tick_of_sensor, three_days):
    tick, day = tick_of_sensor, three_days[0]
    put_file(landing_folder().file_of(day))
    tick.take_in(tick())
    landing_folder().file_of(day).touch()
    with lock_of(contract.internal_file(day).parent):
        assert tick().run_requests == []


def test_many_days_that_took_the_same_file_cost_one_look_at_it(tick_of_sensor, three_days, monkeypatch):
    tick, looks = tick_of_sensor, []
    file = put_file(landing_folder().file_of(UNDATED), "header\nfirst\n")
    tick.take_in(tick())
    file.write_text("header\nother, and longer\n")
    monkeypatch.setattr(wanted, "begins_with", lambda *arguments: looks.append(arguments))
    tick()
    assert len(looks) == 1


def test_a_day_that_took_a_part_of_the_undated_file_takes_the_rest_when_it_has_come(tick_of_sensor, three_days):
    tick = tick_of_sensor
    file = put_file(landing_folder().file_of(UNDATED), "header\nfirst\n")
    tick.take_in(tick())
    with file.open("a") as stream:
        stream.write("second\n")
    assert tick.take_in(tick()) == three_days
    assert {content_of(day) for day in three_days} == {"header\nfirst\nsecond\n"}
    assert tick().run_requests == []


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "by a rename"])
def test_an_unrelated_later_file_is_not_for_days_that_took_an_earlier_one(tick_of_sensor, three_days, in_place):
    tick = tick_of_sensor
    file = put_file(landing_folder().file_of(UNDATED), "header\nfirst\n")
    tick.take_in(tick())
    if in_place:
        file.write_text("header\nother, and longer\n")
    else:
        # It even begins like the other.
        put_file(file.with_name("draft"), "header\nfirst\nand more\n").rename(file)
    assert tick().run_requests == []
    assert tick.compare_levels().run_requests == []


def test_a_file_that_is_replaced_before_the_rest_of_it_is_taken_leaves_the_day_as_it_is(tick_of_sensor, three_days):
    tick = tick_of_sensor
    file = put_file(landing_folder().file_of(UNDATED), "header\nfirst\n")
    tick.take_in(tick())
    with file.open("a") as stream:
        stream.write("second\n")
    requested = tick()
    put_file(file.with_name("draft"), "an unrelated later file").rename(file)
    assert tick.take_in(requested) == three_days
    assert {content_of(day) for day in three_days} == {"header\nfirst\n"}


def refuse(day):
    """What the aggregating team does with a file that it can't load."""
    copy = contract.internal_file(day)
    copied = read_record(copy)
    assert copied is not None
    write_refusal(copy, Refusal(copied.sha256, "has the first line 'wrong'"))


@pytest.mark.parametrize("refused_first", [True, False])
def test_a_day_whose_load_failed_takes_the_next_version_of_the_undated_file(tick_of_sensor, three_days, refused_first):
    tick = tick_of_sensor
    put_file(landing_folder().file_of(UNDATED), "wrong")
    tick.take_in(tick())
    if refused_first:
        refuse(three_days[1])
    put_file(landing_folder().file_of(UNDATED), "right at last")
    asked = tick.take_in(tick())
    if not refused_first:
        # Its load fails only now.
        refuse(three_days[1])
        tick.compare_levels()
        asked += tick.take_in(tick.compare_levels())
    assert asked == [three_days[1]]
    assert content_of(three_days[1]) == "right at last"
    assert content_of(three_days[0]) == "wrong"


def test_a_dated_file_that_is_gone_when_its_run_starts_is_replaced_by_no_other(instance, tick_of_sensor, three_days):
    day = three_days[0]
    put_file(landing_folder().file_of(UNDATED), "for everybody")
    put_file(landing_folder().file_of(day), "for its day")
    (request,) = tick_of_sensor().run_requests
    landing_folder().file_of(day).unlink()
    assert not take_in(instance, request)
    assert not contract.internal_file(day).exists()
    assert content_of(three_days[1]) == "for everybody"


def test_a_run_by_hand_does_not_replace_a_days_own_file_by_the_undated_one(instance, tick_of_sensor, three_days):
    day = three_days[0]
    put_file(landing_folder().file_of(UNDATED), "for everybody")
    put_file(landing_folder().file_of(day), "for its day")
    tick_of_sensor.take_in(tick_of_sensor())
    landing_folder().file_of(day).unlink()
    result = dg.materialize([devices_file], instance=instance, partition_key=day, raise_on_error=False)
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    assert f"{landing_folder().file_of(day)}, from which {day} was copied, is gone" in str(failure.event_specific_data)
    assert content_of(day) == "for its day"


def test_a_run_that_failed_is_asked_for_again_though_no_file_has_changed(tick_of_sensor, three_days):
    tick, day = tick_of_sensor, three_days[0]
    put_file(landing_folder().file_of(day))
    assert [days_of(request) for request in tick().run_requests] == [[day]]
    assert tick.compare_levels().run_requests == []
    assert tick.take_in(tick.compare_levels()) == [day]
    assert tick.compare_levels().run_requests == []


def test_what_was_taken_in_elsewhere_is_told_to_dagster(tick_of_sensor, three_days):
    with dg.DagsterInstance.ephemeral() as elsewhere:
        for day in three_days:
            put_file(landing_folder().file_of(day), day)
            assert dg.materialize([devices_file], instance=elsewhere, partition_key=day).success
    result = tick_of_sensor()
    assert result.run_requests == []
    assert sorted(event.partition for event in result.asset_events) == three_days


def test_a_rewritten_undated_file_is_for_days_not_taken_in_and_for_no_other(instance, tick_of_sensor, three_days):
    tick = tick_of_sensor
    put_file(landing_folder().file_of(UNDATED), "first version")
    (for_all,) = tick().run_requests
    assert days_of(for_all) == three_days
    assert dg.materialize([devices_file], instance=instance, partition_key=three_days[0]).success

    put_file(landing_folder().file_of(UNDATED), "second version")
    assert tick.take_in(tick()) == three_days[1:]
    put_file(landing_folder().file_of(UNDATED), "third version")
    assert tick().run_requests == []
    assert [content_of(day) for day in three_days] == ["first version", "second version", "second version"]


def test_a_burst_of_thirty_days_is_one_request_with_a_range(tick_of_sensor):
    days = contract.due_days(datetime.now(timezone.utc))[-30:]
    for day in days:
        put_file(landing_folder().file_of(day), day)
    result = tick_of_sensor()
    assert len(result.run_requests) == 1
    assert tick_of_sensor.take_in(result) == days
    assert [content_of(day) for day in days] == days


@pytest.mark.parametrize("cursor", [None, "garbled", '{"unsettled": {}, "taken": {}, "undated": null}'])
def test_a_lost_cursor_repeats_nothing(tick_of_sensor, three_days, cursor):
    tick = tick_of_sensor
    put_file(landing_folder().file_of(UNDATED))
    put_file(landing_folder().file_of(three_days[0]))
    tick.take_in(tick())
    tick.cursor = cursor
    again = tick()
    assert again.run_requests == []
    assert again.asset_events == []
    put_file(landing_folder().file_of(three_days[0]), "a new version")
    assert tick.take_in(tick()) == three_days[:1]


def test_copies_from_before_they_said_where_they_came_from_are_kept_and_compared_by_content(tick_of_sensor, three_days):
    tick = tick_of_sensor
    put_file(landing_folder().file_of(UNDATED))
    for day in three_days[:2]:
        put_file(landing_folder().file_of(day), day)
    tick.take_in(tick())
    for day in three_days:
        (contract.internal_file(day).parent / "source.json").unlink()
    tick.cursor = None
    put_file(landing_folder().file_of(three_days[1]), "changed meanwhile")
    assert tick.take_in(tick()) == [three_days[1]]


def test_the_tick_message_names_what_waits_and_what_is_wrong(tick_of_sensor, three_days, monkeypatch):
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "7")
    today = datetime.now(timezone.utc).date().isoformat()
    put_file(landing_folder().file_of(today), "")
    put_file(landing_folder().path / "backup" / "dataset.csv")
    put_file(landing_folder().file_of(three_days[0]))
    result = tick_of_sensor()
    assert result.run_requests == []
    assert result.skip_message == "; ".join(
        [
            "backup/dataset.csv is ignored: 'backup' is not a day like 2024-01-31",
            f"{three_days[0]}/dataset.csv is not complete yet: changed less than 7 s ago",
            f"{today}/dataset.csv is empty: waits for its content",
        ]
    )


def test_a_note_is_logged_when_it_changes_and_not_at_every_tick(instance, tick_of_sensor, capfd):
    put_file(landing_folder().path / "backup" / "dataset.csv")
    logged = []
    for _ in range(3):
        tick_of_sensor()
        logged.append("backup/dataset.csv is ignored" in capfd.readouterr().err)
    put_file(landing_folder().path / "other" / "dataset.csv")
    tick_of_sensor()
    logged.append("other/dataset.csv is ignored" in capfd.readouterr().err)
    assert logged == [True, False, False, True]


def test_a_name_that_is_not_text_does_not_break_the_tick(tick_of_sensor, three_days):
    put_file(landing_folder().file_of(three_days[0]))
    odd = os.path.join(os.fsencode(landing_folder().path), b"\xff")
    os.mkdir(odd)
    open(os.path.join(odd, b"dataset.csv"), "w").close()
    (request,) = tick_of_sensor().run_requests
    assert days_of(request) == three_days[:1]
    assert "\\xff/dataset.csv is ignored" in Cursor.from_json(tick_of_sensor.cursor).told[0]
