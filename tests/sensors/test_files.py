"""Every complete version of a file that lands is asked for once, for the right days; nothing else ever is."""

import json
import os
import tempfile
import threading
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dedp_assets import settings
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader import landing
from dedp_assets.isolated_sequencer.loader.assets import devices_file
from jobs import devices_loader
from sensors.files import (
    MAX_DAYS_PER_RUN,
    UNDATED,
    Cursor,
    FileVersion,
    Listing,
    decide,
    devices_landed,
    look,
    run_request,
)

SETTLE = 2.0
NOW = 1_800_000_000.0
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"]


def version(number, age=3600.0):
    """The version of a file that was written `age` seconds before NOW."""
    return FileVersion(size=1, modified_ns=round((NOW - age) * 1e9), inode=number)


def days_asked_for(decision):
    return [request.days for request in decision.requests]


def tick(files=None, cursor=None, *, now=NOW, settle=SETTLE, due=DAYS, undated_due=None, materialized=(), problems=()):
    return decide(
        Listing(files or {}, list(problems)),
        cursor or Cursor(),
        now=now,
        settle_seconds=settle,
        due=due,
        undated_due=due if undated_due is None else undated_due,
        materialized=materialized,
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
    "the undated file is not for a day with a file of its own": (
        {UNDATED: version(1), "2024-01-03": version(2, age=1)},
        {},
        [["2024-01-01", "2024-01-02"], ["2024-01-04", "2024-01-05"]],
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
    "a file changed a moment ago waits": ({"2024-01-02": version(1, age=1.9)}, {}, []),
    "a file unchanged for just long enough is taken": ({"2024-01-02": version(1, age=2)}, {}, [["2024-01-02"]]),
    "an undated file changed a moment ago waits": ({UNDATED: version(1, age=1.9)}, {}, []),
    "a file from the future waits at first sight": ({"2024-01-02": version(1, age=-86_400)}, {}, []),
    "without settling, what is there is taken": ({"2024-01-02": version(1, age=0)}, {"settle": 0.0}, [["2024-01-02"]]),
}


@pytest.mark.parametrize(("files", "situation", "expected"), CLAIMS.values(), ids=CLAIMS)
def test_a_first_look_asks_for_just_these_days(files, situation, expected):
    assert days_asked_for(tick(files, **situation)) == expected


def test_what_was_asked_for_is_not_asked_for_again():
    files = {UNDATED: version(1), "2024-01-03": version(2)}
    first = tick(files)
    assert days_asked_for(first) == [DAYS]
    assert days_asked_for(tick(files, first.cursor)) == []


def test_a_file_that_grew_between_two_ticks_starts_waiting_anew():
    first = tick({"2024-01-02": version(1, age=1)})
    grown = FileVersion(size=2, modified_ns=round((NOW + 1.5) * 1e9), inode=1)
    second = tick({"2024-01-02": grown}, first.cursor, now=NOW + 2)
    assert days_asked_for(first) == days_asked_for(second) == []
    third = tick({"2024-01-02": grown}, second.cursor, now=NOW + 3.5)
    assert days_asked_for(third) == [["2024-01-02"]]


def test_a_file_from_the_future_is_taken_when_it_was_seen_unchanged_for_long_enough():
    files = {"2024-01-02": version(1, age=-86_400)}
    first = tick(files)
    second = tick(files, first.cursor, now=NOW + 1.9)
    third = tick(files, second.cursor, now=NOW + 2)
    assert [days_asked_for(each) for each in (first, second, third)] == [[], [], [["2024-01-02"]]]


@pytest.mark.parametrize(
    "rewritten",
    [
        FileVersion(size=2, modified_ns=version(1).modified_ns, inode=1),
        FileVersion(size=1, modified_ns=version(1).modified_ns + 1, inode=1),
        FileVersion(size=1, modified_ns=version(1).modified_ns, inode=2),
    ],
    ids=["another size", "another time of change", "another inode"],
)
def test_a_rewritten_dated_file_is_asked_for_under_a_new_run_key(rewritten):
    first = tick({"2024-01-02": version(1)})
    second = tick({"2024-01-02": rewritten}, first.cursor)
    assert days_asked_for(second) == [["2024-01-02"]]
    assert second.requests[0].run_key != first.requests[0].run_key


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
    first = tick(files, due=DAYS[:4])
    assert days_asked_for(first) == []
    assert first.notes == ["2024-01-05/dataset.csv waits: its day (UTC) is not over"]
    assert days_asked_for(tick(files, first.cursor, due=DAYS)) == [["2024-01-05"]]


def test_a_file_that_vanished_and_came_back_unchanged_is_the_same_version():
    first = tick({"2024-01-02": version(1)})
    second = tick({}, first.cursor)
    third = tick({"2024-01-02": version(1)}, second.cursor)
    assert days_asked_for(second) == days_asked_for(third) == []


def test_a_burst_becomes_runs_of_a_bounded_number_of_days():
    days = [(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in range(2 * MAX_DAYS_PER_RUN + 1)]
    decision = tick({day: version(1) for day in days}, due=days)
    assert days_asked_for(decision) == [
        days[:MAX_DAYS_PER_RUN],
        days[MAX_DAYS_PER_RUN : 2 * MAX_DAYS_PER_RUN],
        days[2 * MAX_DAYS_PER_RUN :],
    ]


def test_the_run_key_tells_the_days_and_depends_on_each_version():
    keys = {
        tick({"2024-01-02": version(first), "2024-01-03": version(second)}).requests[0].run_key
        for first, second in [(1, 1), (1, 1), (1, 2), (2, 1)]
    }
    assert len(keys) == 3
    assert all(key.startswith("2024-01-02...2024-01-03:") for key in keys)


def test_a_lost_cursor_asks_for_a_single_day_under_the_same_run_key():
    files = {"2024-01-02": version(1)}
    assert tick(files).requests == tick(files, Cursor.from_json("lost")).requests


def test_a_lost_cursor_does_not_repeat_the_undated_file_for_days_that_were_taken_in():
    assert tick({UNDATED: version(1)}, Cursor(), materialized=set(DAYS)).requests == []


def test_the_cursor_survives_its_way_through_json():
    cursor = tick({UNDATED: version(1), "2024-01-02": version(2), "2024-01-03": version(3, age=0.5)}).cursor
    assert cursor.unsettled
    assert cursor.taken
    assert cursor.undated
    assert cursor.undated_days
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
        '{"unsettled": {}, "taken": {"2024-01-01": [1]}, "undated": null, "undated_days": []}',
        '{"unsettled": {"2024-01-01": 5}, "taken": {}, "undated": null, "undated_days": []}',
        '{"unsettled": [], "taken": [], "undated": null, "undated_days": []}',
        '{"unsettled": {}, "taken": {}, "undated": [1, 2], "undated_days": []}',
    ],
)
def test_a_cursor_that_is_not_ours_counts_as_none(text):
    assert Cursor.from_json(text) == Cursor()


def test_notes_name_what_waits_and_pass_on_what_went_wrong():
    decision = tick(
        {"2024-01-02": version(1, age=0.5), UNDATED: version(2, age=0.5), "2023-01-01": version(3)},
        problems=["something is odd"],
    )
    assert decision.notes == [
        "something is odd",
        "2024-01-02/dataset.csv is not complete yet: changed less than 2 s ago",
        "dataset.csv is not complete yet: changed less than 2 s ago",
        "2023-01-01/dataset.csv is older than the first partition, 2024-01-01: not taken in",
    ]


def test_one_day_is_a_partition_and_more_are_one_range():
    one, range_of_days = tick({"2024-01-01": version(1), "2024-01-03": version(1), "2024-01-04": version(1)}).requests
    assert run_request(one).partition_key == "2024-01-01"
    assert run_request(range_of_days).partition_key is None
    assert run_request(range_of_days).tags == {
        "dagster/asset_partition_range_start": "2024-01-03",
        "dagster/asset_partition_range_end": "2024-01-04",
    }


ALL_DAYS = [(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in range(4)]
SOME_FILE = st.sampled_from([UNDATED, UNDATED, *ALL_DAYS[:2]])
SOME_CLOCK = st.sampled_from([0, 0, 86_400, -86_400])


class LandingOverTime(RuleBasedStateMachine):
    """Files come, grow, are rewritten and vanish, days end, runs succeed, cursors get lost: many ticks of that.

    The machine knows what `decide` can only infer: when each version was really written.
    """

    @initialize(days_over=st.integers(0, 3), undated_from=st.integers(0, 1))
    def begin(self, days_over, undated_from):
        self.now = NOW
        self.days_over = days_over
        self.undated_from = ALL_DAYS[undated_from]
        self.listing = {}
        self.written = {}  # version -> when it was written
        self.first_seen = {}  # version -> when a tick first saw it, since the cursor was last lost
        self.cursor = None
        self.materialized = set()
        self.waiting_runs = []
        self.asked = set()  # (day, version), since the cursor was last lost
        self.set_back = set()  # of these, where the day has had a file of its own since, and may ask again

    def put(self, day, size, inode, clock):
        landed = FileVersion(size, round((self.now + clock) * 1e9), inode)
        if landed not in self.written:
            self.listing[day] = landed
            self.written[landed] = self.now

    @rule(day=SOME_FILE, what=st.sampled_from(["drop", "drop", "grow", "vanish"]), clock=SOME_CLOCK)
    def a_file_changes(self, day, what, clock):
        if what == "drop":
            self.put(day, size=10, inode=len(self.written), clock=clock)
        elif what == "grow" and day in self.listing:
            self.put(day, self.listing[day].size + 1, self.listing[day].inode, clock=0)
        elif what == "vanish":
            self.listing.pop(day, None)

    @rule(what=st.sampled_from(["a day ends", "a run succeeds", "a run fails", "the cursor is lost"]))
    def something_else_happens(self, what):
        if what == "a day ends":
            self.days_over = min(self.days_over + 1, len(ALL_DAYS))
        elif what == "the cursor is lost":
            self.cursor = None
            self.asked.clear()
            self.set_back.clear()
            self.first_seen.clear()
        elif self.waiting_runs:
            days = self.waiting_runs.pop(0)
            self.materialized |= set(days) if what == "a run succeeds" else set()

    @rule(pauses=st.lists(st.sampled_from([0.1, 1.0, 2.0, 5.0]), min_size=1, max_size=3))
    def ticks_follow(self, pauses):
        for seconds in pauses:
            self.now += seconds
            self.tick()

    def tick(self):
        due = ALL_DAYS[: self.days_over]
        undated_due = [day for day in due if day >= self.undated_from]
        decision = decide(
            Listing(dict(self.listing), []),
            Cursor.from_json(self.cursor),
            now=self.now,
            settle_seconds=SETTLE,
            due=due,
            undated_due=undated_due,
            materialized=frozenset(self.materialized),
        )
        self.cursor = decision.cursor.to_json()
        for seen in self.listing.values():
            self.first_seen.setdefault(seen, self.now)
        self.set_back |= {(day, asked) for day, asked in self.asked if asked != self.listing.get(day, asked)}

        asked_for = [day for request in decision.requests for day in request.days]
        assert len(asked_for) == len(set(asked_for))
        assert len({request.run_key for request in decision.requests}) == len(decision.requests)
        for request in decision.requests:
            first = due.index(request.days[0])
            assert request.days == due[first : first + len(request.days)]
        for day in asked_for:
            self.check_asked_rightly(day, undated_due)
        for day in due:
            self.check_not_forgotten(day, undated_due)
        self.waiting_runs += [request.days for request in decision.requests]

    def check_asked_rightly(self, day, undated_due):
        taken = self.listing.get(day) or self.listing[UNDATED]
        assert not self.changed_a_moment_ago(taken)
        if day not in self.listing:
            assert day in undated_due
            assert day not in self.materialized
        assert (day, taken) not in self.asked or (day, taken) in self.set_back
        self.asked.add((day, taken))
        self.set_back.discard((day, taken))

    def check_not_forgotten(self, day, undated_due):
        if day in self.listing:
            if self.surely_complete(self.listing[day]):
                assert (day, self.listing[day]) in self.asked
        elif day in undated_due and day not in self.materialized and UNDATED in self.listing:
            undated = self.listing[UNDATED]
            assert (day, undated) in self.asked or not self.surely_complete(undated)

    def changed_a_moment_ago(self, landed):
        claims_to_be_old = landed.modified_ns / 1e9 <= self.now - SETTLE
        return self.now - self.written[landed] < SETTLE - 1e-6 and not claims_to_be_old

    def surely_complete(self, landed):
        """Old by its own time of change, or by ours."""
        since = min(self.first_seen[landed], landed.modified_ns / 1e9)
        return self.now - since >= SETTLE + 1e-6


LandingOverTime.TestCase.settings = hypothesis_settings(
    max_examples=120, stateful_step_count=30, deadline=None, derandomize=True, database=None
)
test_no_order_of_events_loses_a_version_or_asks_twice = LandingOverTime.TestCase


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
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty folder").mkdir()
    listing = look(tmp_path)
    assert listing == Listing(
        {
            UNDATED: FileVersion(7, 0, undated.stat().st_ino),
            "2024-01-03": FileVersion(14, 0, dated.stat().st_ino),
        },
        [],
    )


def test_a_look_at_a_folder_that_is_not_there_says_so(tmp_path):
    assert look(tmp_path / "devices").problems == [f"{tmp_path}/devices does not exist yet: nothing has arrived"]


def test_a_look_at_a_file_in_the_place_of_the_folder_says_so(tmp_path):
    (tmp_path / "devices").touch()
    assert look(tmp_path / "devices") == Listing({}, [f"{tmp_path}/devices can't be read: Not a directory"])


@pytest.mark.parametrize(
    "name",
    ["20240103", "2024-1-3", "2024-13-01", "2024-02-30", "2024-W01-3", "2024-01-03 ", "latest", "2024-01-03T00:00:00"],
)
def test_a_folder_that_is_no_day_is_named_and_ignored(tmp_path, name):
    put_file(tmp_path / name / "dataset.csv")
    assert look(tmp_path) == Listing({}, [f"{name}/dataset.csv is ignored: {name!r} is not a day like 2024-01-31"])


def test_links_to_files_and_folders_are_followed(tmp_path):
    target = put_file(tmp_path / "elsewhere" / "dataset.csv")
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "dataset.csv").symlink_to(target)
    (tmp_path / "devices" / "2024-01-03").symlink_to(target.parent)
    assert list(look(tmp_path / "devices").files) == [UNDATED, "2024-01-03"]


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
    listing = look(tmp_path)
    assert list(listing.files) == [UNDATED, "2024-01-09"]
    assert listing.problems == [
        "2024-01-01/dataset.csv can't be read: Too many levels of symbolic links",
        "2024-01-02/dataset.csv can't be read: Too many levels of symbolic links",
        "2024-01-03/dataset.csv is a link to nothing",
        "2024-01-04/dataset.csv is not a file",
        "2024-01-05/dataset.csv is not a file",
    ]
    assert listing.unusable == {f"2024-01-0{number}" for number in range(1, 6)}


def test_a_day_whose_own_file_cannot_be_taken_does_not_take_the_undated_one():
    listing = Listing({UNDATED: version(1)}, ["2024-01-02/dataset.csv is not a file"], {"2024-01-02"})
    decision = decide(
        listing,
        Cursor(),
        now=NOW,
        settle_seconds=SETTLE,
        due=DAYS,
        undated_due=["2024-01-01", "2024-01-02", "2024-01-03"],
        materialized=(),
    )
    assert days_asked_for(decision) == [["2024-01-01"], ["2024-01-03"]]


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
            listing = look(folder)
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
            listing = look(folder)
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
            for day in ALL_DAYS:
                put_file(tmp_path / day / "dataset.csv")
            for day in ALL_DAYS:
                (tmp_path / day / "dataset.csv").unlink()
                (tmp_path / day).rmdir()

    coming_and_going = threading.Thread(target=come_and_go)
    coming_and_going.start()
    try:
        listings = [look(tmp_path) for _ in range(500)]
    finally:
        over.set()
        coming_and_going.join()
    assert {len(listing.files) for listing in listings} <= set(range(len(ALL_DAYS) + 1))
    assert look(tmp_path) == Listing()


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

    def __init__(self, instance):
        self._instance = instance
        self.cursor = None

    def __call__(self):
        context = dg.build_sensor_context(instance=self._instance, cursor=self.cursor, definitions=devices_loader.defs)
        result = devices_landed.evaluate_tick(context)
        self.cursor = result.cursor
        return result


def take_in(instance, request):
    """Run what the sensor asked for, as the daemon would."""
    assert dg.materialize(
        [devices_file], instance=instance, partition_key=request.partition_key, tags=request.tags
    ).success


def days_of(request):
    if request.partition_key:
        return [request.partition_key]
    first, last = (date.fromisoformat(request.tags[f"dagster/asset_partition_range_{end}"]) for end in ("start", "end"))
    return [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]


def test_three_days_take_the_one_undated_file_once(instance, three_days):
    tick = Ticks(instance)
    nothing = tick()
    assert nothing.run_requests == []
    assert "nothing has arrived" in nothing.skip_message

    put_file(landing.undated_file())
    (request,) = tick().run_requests
    assert days_of(request) == three_days
    assert tick().run_requests == []
    take_in(instance, request)
    assert instance.get_materialized_partitions(contract.DEVICES_FILE) == set(three_days)
    again = tick()
    assert again.run_requests == []
    assert again.skip_message == f"nothing new in {landing.folder()}"


def test_a_day_takes_its_own_file_and_the_others_the_undated_one(instance, three_days):
    put_file(landing.undated_file(), "for everybody")
    put_file(landing.dated_file(three_days[1]), "for its day")
    (request,) = Ticks(instance)().run_requests
    assert days_of(request) == three_days
    take_in(instance, request)
    assert [contract.internal_file(day).read_text() for day in three_days] == [
        "for everybody",
        "for its day",
        "for everybody",
    ]


def test_a_rewritten_dated_file_is_taken_in_again(instance, three_days):
    tick = Ticks(instance)
    day = three_days[0]
    put_file(landing.dated_file(day), "first version")
    (first,) = tick().run_requests
    take_in(instance, first)

    put_file(landing.dated_file(day), "second version")
    (second,) = tick().run_requests
    assert days_of(first) == days_of(second) == [day]
    assert first.run_key != second.run_key
    take_in(instance, second)
    assert contract.internal_file(day).read_text() == "second version"
    assert tick().run_requests == []


def test_a_rewritten_undated_file_is_for_days_not_taken_in_and_for_no_other(instance, three_days):
    tick = Ticks(instance)
    put_file(landing.undated_file(), "first version")
    (for_all,) = tick().run_requests
    assert days_of(for_all) == three_days
    assert dg.materialize([devices_file], instance=instance, partition_key=three_days[0]).success

    put_file(landing.undated_file(), "second version")
    (for_the_rest,) = tick().run_requests
    assert days_of(for_the_rest) == three_days[1:]
    take_in(instance, for_the_rest)
    put_file(landing.undated_file(), "third version")
    assert tick().run_requests == []
    assert [contract.internal_file(day).read_text() for day in three_days] == [
        "first version",
        "second version",
        "second version",
    ]


def test_a_burst_of_thirty_days_is_one_request_with_a_range(instance):
    days = contract.due_days(datetime.now(timezone.utc))[-30:]
    for day in days:
        put_file(landing.dated_file(day), day)
    (request,) = Ticks(instance)().run_requests
    assert days_of(request) == days
    take_in(instance, request)
    assert [contract.internal_file(day).read_text() for day in days] == days


def test_a_garbled_cursor_harms_nobody(instance, three_days):
    tick = Ticks(instance)
    put_file(landing.undated_file())
    put_file(landing.dated_file(three_days[0]))
    (first,) = tick().run_requests
    take_in(instance, first)
    tick.cursor = "garbled"
    (again,) = tick().run_requests
    # The day with its own file, which is harmless to do again; not those that took the undated one.
    assert days_of(again) == three_days[:1]
    assert Cursor.from_json(tick.cursor).taken.keys() == {three_days[0]}


def test_the_tick_message_names_what_waits_and_what_is_wrong(instance, three_days):
    today = datetime.now(timezone.utc).date().isoformat()
    put_file(landing.dated_file(today))
    put_file(landing.folder() / "backup" / "dataset.csv")
    fresh = put_file(landing.dated_file(three_days[0]))
    os.utime(fresh, (4e9, 4e9))
    result = Ticks(instance)()
    assert result.run_requests == []
    assert result.skip_message == "; ".join(
        [
            "backup/dataset.csv is ignored: 'backup' is not a day like 2024-01-31",
            f"{three_days[0]}/dataset.csv is not complete yet: changed less than 0.2 s ago",
            f"{today}/dataset.csv waits: its day (UTC) is not over",
        ]
    )


def test_a_name_that_is_not_text_does_not_break_the_tick(instance, three_days):
    put_file(landing.dated_file(three_days[0]))
    odd = os.path.join(os.fsencode(landing.folder()), b"\xff")
    os.mkdir(odd)
    open(os.path.join(odd, b"dataset.csv"), "w").close()
    (request,) = Ticks(instance)().run_requests
    assert days_of(request) == three_days[:1]
