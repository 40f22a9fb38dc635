"""Which files of many directories are taken, when, and in which order: the rule, played with plain values."""

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dedp_assets.landing.arrivals import (
    LONGEST_PAUSE_SECONDS,
    MAX_WAITING_FILES,
    Cursor,
    Known,
    Plan,
    Situation,
    directories_to_scan,
    files_to_compare,
    plan_arrivals,
    unchanged_since,
)
from dedp_assets.landing.directories import UNCHANGED, Directory, Scan
from dedp_assets.landing.versions import FileVersion


def version(size: int = 10, changed: int = 1) -> FileVersion:
    return FileVersion(size, changed, changed, 7)


class Uploads:
    """Directories, a ledger and the ticks over them. Each tick is 5 s after the one before."""

    def __init__(self, *directories: Directory) -> None:
        self.directories = list(directories)
        self.scans: dict[str, Scan] = {}
        self.ledger: dict[str, dict[str, Known]] = {}
        self.cursor = Cursor()
        self.now = 1_000_000.0

    def lies(self, client: str, **files: FileVersion) -> None:
        self.scans[client] = Scan({name.replace("_csv", ".csv"): file for name, file in files.items()})

    def tick(
        self,
        in_progress: Collection[tuple[str, str]] = (),
        free_runs: int = 4,
        again: Collection[str] = (),
        files_per_run: int = 100,
        renamed: Collection[tuple[str, str]] = (),
    ) -> Plan:
        self.now += 5
        due = directories_to_scan(self.directories, self.cursor, self.now)
        scans = {directory.client: self.scans.get(directory.client, Scan()) for directory in due}
        is_unchanged = unchanged_since(self.cursor, again)
        # As the scanner does it.
        scans |= {
            directory.client: UNCHANGED
            for directory in due
            if scans[directory.client].files and is_unchanged(directory, scans[directory.client])
        }
        compared = files_to_compare(due, scans, self.cursor, again)
        known = {client: self.ledger.get(client, {}) for client in compared}
        situation = Situation(self.now, in_progress, free_runs, files_per_run, renamed)
        plan = plan_arrivals(self.directories, scans, compared, known, self.cursor, situation)
        self.cursor, problem = Cursor.from_json(plan.cursor.to_json())
        assert not problem
        assert self.cursor == plan.cursor
        return plan

    def take(self, plan: Plan) -> None:
        """The runs of a plan write their files into the ledger."""
        for request in plan.requests:
            for arrival in request.arrivals:
                files = self.ledger.setdefault(arrival.directory.client, {})
                files[arrival.file] = Known(arrival.version, "sha")


def taken(plan: Plan) -> list[str]:
    return [f"{arrival.directory.client}/{arrival.file}" for request in plan.requests for arrival in request.arrivals]


def directory(client: str = "north", **settings: object) -> Directory:
    return replace(Directory(client, Path("/uploads") / client), **settings)  # type: ignore[arg-type]  # by name


def test_a_file_is_taken_when_it_has_been_seen_unchanged_and_once() -> None:
    uploads = Uploads(directory())
    uploads.lies("north", a_csv=version())
    assert taken(uploads.tick()) == []
    plan = uploads.tick()
    assert taken(plan) == ["north/a.csv"]
    uploads.take(plan)
    assert [taken(uploads.tick()) for _ in range(3)] == [[], [], []]


def test_a_file_that_was_renamed_into_place_need_not_settle() -> None:
    uploads = Uploads(directory(), directory("south", completeness="marker"))
    for client in ("north", "south"):
        uploads.lies(client, a_csv=version(), b_csv=version(), empty_csv=version(size=0))
    renamed = [(client, file) for client in ("north", "south") for file in ("a.csv", "empty.csv")]
    assert taken(uploads.tick(renamed=renamed)) == ["north/a.csv"]


def test_a_version_that_is_new_is_taken_again() -> None:
    uploads = Uploads(directory(completeness="renamed"))
    for changed in (1, 2, 3):
        uploads.lies("north", a_csv=version(changed=changed))
        plan = uploads.tick()
        assert [arrival.version.changed_ns for request in plan.requests for arrival in request.arrivals] == [changed]
        uploads.take(plan)


def test_a_directory_in_which_nothing_is_new_is_not_compared_with_the_ledger() -> None:
    uploads = Uploads(directory(completeness="renamed"))
    uploads.lies("north", a_csv=version())
    uploads.take(uploads.tick())
    uploads.tick()
    assert files_to_compare(uploads.directories, uploads.scans, uploads.cursor) == {}
    assert files_to_compare(uploads.directories, uploads.scans, uploads.cursor, ["north"]) == {"north": ["a.csv"]}


def test_a_directory_is_unchanged_only_if_all_its_files_were_compared_and_none_waits() -> None:
    uploads = Uploads(directory(completeness="renamed"))
    uploads.lies("north", a_csv=version())
    (north,), scan = uploads.directories, uploads.scans["north"]
    assert not unchanged_since(uploads.cursor)(north, scan), "it was never compared"
    plan = uploads.tick()
    assert not unchanged_since(uploads.cursor)(north, scan), "its file waits for a run"
    uploads.take(plan)
    uploads.tick()
    assert unchanged_since(uploads.cursor)(north, scan)
    assert not unchanged_since(uploads.cursor, ["north"])(north, scan), "it is its turn to be compared again"
    assert not unchanged_since(uploads.cursor)(north, scan._replace(problems=("b.csv is a folder",)))
    rewritten = Scan({"a.csv": version(changed=2)})
    assert not unchanged_since(uploads.cursor)(north, rewritten)


def test_a_directory_with_a_time_out_in_which_nothing_changes_is_silent_nevertheless() -> None:
    uploads = Uploads(directory(completeness="renamed", timeout_seconds=60.0))
    uploads.lies("north", a_csv=version())
    uploads.take(uploads.tick())
    assert [silent.directory.client for _ in range(20) for silent in uploads.tick().timed_out] == ["north"]


def test_what_the_ledger_has_lost_is_taken_again() -> None:
    uploads = Uploads(directory(completeness="renamed"))
    uploads.lies("north", a_csv=version())
    uploads.take(uploads.tick())
    uploads.tick()
    uploads.ledger.clear()  # PostgreSQL was restored from a backup
    assert taken(uploads.tick(again=["north"])) == ["north/a.csv"]


@pytest.mark.parametrize("stored", ["{", "[]", '{"cursor": 99}', '{"cursor": 1}', '{"cursor": 1, "waiting": 3}'])
def test_a_cursor_that_is_damaged_repeats_nothing_and_is_told(stored: str) -> None:
    uploads = Uploads(directory(completeness="renamed"))
    uploads.lies("north", a_csv=version())
    uploads.take(uploads.tick())
    uploads.cursor, problem = Cursor.from_json(stored)
    assert "cursor" in problem
    assert [taken(uploads.tick()) for _ in range(3)] == [[], [], []]


def test_a_growing_file_waits_and_its_growth_is_told() -> None:
    uploads = Uploads(directory())
    for size in (10, 2_000, 3_000_000):
        uploads.lies("north", a_csv=version(size, size))
        plan = uploads.tick()
        assert taken(plan) == []
    assert plan.notes == ["north/a.csv is growing: 3,000,000 bytes, 2,999,990 of them in the last 10 s"]
    assert taken(uploads.tick()) == ["north/a.csv"]


def test_an_empty_file_waits_for_its_content() -> None:
    uploads = Uploads(directory(completeness="renamed"))
    uploads.lies("north", a_csv=version(size=0))
    plan = uploads.tick()
    assert (taken(plan), plan.notes) == ([], ["north/a.csv is empty: waits for its content"])


def test_a_marker_says_that_what_was_written_before_it_is_complete() -> None:
    uploads = Uploads(directory(completeness="marker"))
    uploads.scans["north"] = Scan({"a.csv": version(changed=5), "b.csv": version(changed=7)})
    plan = uploads.tick()
    assert plan.notes == ["north/a.csv waits for _SUCCESS", "north/b.csv waits for _SUCCESS"]
    uploads.scans["north"] = uploads.scans["north"]._replace(markers={"_SUCCESS": 6})
    plan = uploads.tick()
    assert taken(plan) == ["north/a.csv"]
    assert plan.notes == ["north/b.csv has changed after _SUCCESS was written: waits for a new one"]


def test_each_file_may_have_a_marker_of_its_own() -> None:
    uploads = Uploads(directory(completeness="marker", marker="{file}.done"))
    uploads.scans["north"] = Scan({"a.csv": version(changed=5), "b.csv": version(changed=5)}, {"b.csv.done": 5})
    plan = uploads.tick()
    assert (taken(plan), plan.notes) == (["north/b.csv"], ["north/a.csv waits for a.csv.done"])


def test_higher_priority_comes_first_and_nothing_starves() -> None:
    uploads = Uploads(directory("low", completeness="renamed"), directory("high", priority=5, completeness="renamed"))
    files = {f"f{number}_csv": version() for number in range(100)}
    uploads.lies("low", old_csv=version())
    order = []
    for wave in range(1, 100):
        uploads.lies("high", **{name: version(changed=wave) for name in files})
        plan = uploads.tick(free_runs=1)
        uploads.take(plan)
        order.append("low/old.csv" in taken(plan))
        if order[-1]:
            break
    # A minute for each of the five steps that `high` is ahead.
    assert 300 / 5 <= len(order) <= 330 / 5
    assert not any(order[:-1])


def test_files_that_wait_for_a_free_run_are_counted() -> None:
    uploads = Uploads(directory(completeness="renamed"))
    uploads.lies("north", **{f"f{number}_csv": version() for number in range(27)})
    plan = uploads.tick(free_runs=1, files_per_run=10)
    assert (len(taken(plan)), plan.queue_depth) == (10, 17)
    assert uploads.tick(free_runs=0).requests == []


def test_a_burst_of_many_clients_shares_runs_and_a_clients_files_stay_together() -> None:
    uploads = Uploads(*(directory(f"c{number:03}", completeness="renamed") for number in range(150)))
    for each in uploads.directories:
        uploads.lies(each.client, a_csv=version(), b_csv=version())
    plan = uploads.tick()
    runs_of = {
        each.client: {
            request.run_key for request in plan.requests for arrival in request.arrivals if arrival.directory == each
        }
        for each in uploads.directories
    }
    assert len(taken(plan)) == 300
    assert len(plan.requests) <= 4
    assert {len(runs) for runs in runs_of.values()} == {1}


def test_a_file_whose_run_failed_is_asked_for_again_ever_more_seldom() -> None:
    uploads = Uploads(directory(completeness="renamed"))
    uploads.lies("north", a_csv=version())
    asked_at = [uploads.now for _ in range(1000) if taken(uploads.tick())]
    pauses = [after - before for before, after in itertools.pairwise(asked_at)]
    assert pauses[:4] == [60, 120, 240, 480]
    assert set(pauses[4:]) == {LONGEST_PAUSE_SECONDS}


def test_a_file_that_a_run_is_taking_is_not_asked_for_again() -> None:
    uploads = Uploads(directory(completeness="renamed"))
    uploads.lies("north", a_csv=version())
    assert taken(uploads.tick())
    assert not any(taken(uploads.tick(in_progress={("north", "a.csv")})) for _ in range(100))
    assert taken(uploads.tick())


def test_no_run_key_is_used_twice() -> None:
    uploads = Uploads(directory(completeness="renamed"))
    keys = []
    for changed in range(50):
        uploads.lies("north", a_csv=version(changed=changed))
        keys += [request.run_key for request in uploads.tick().requests]
    assert len(set(keys)) == len(keys) > 3


def test_a_directory_that_fails_is_tried_ever_more_seldom_and_its_recovery_is_told() -> None:
    uploads = Uploads(directory(), directory("south", completeness="renamed"))
    uploads.scans["north"] = Scan(failure="/uploads/north does not exist")
    uploads.lies("south", a_csv=version())
    first = uploads.tick()
    assert first.notes == ["/uploads/north does not exist"]
    assert taken(first) == ["south/a.csv"], "the others go on"
    uploads.take(first)
    tries = []
    for _ in range(500):
        if directories_to_scan(uploads.directories, uploads.cursor, uploads.now + 5)[0].client == "north":
            tries.append(uploads.now)
        uploads.tick()
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert pauses[0] < pauses[2] < pauses[4]
    assert max(pauses) <= 1.2 * LONGEST_PAUSE_SECONDS + 5
    uploads.lies("north", b_csv=version())
    while not (plan := uploads.tick()).recovered:
        assert "/uploads/north does not exist" in plan.notes
    assert plan.recovered == ["north"]
    assert "/uploads/north answers again, after" in plan.notes[0]
    assert taken(uploads.tick()) == ["north/b.csv"]


def test_a_silent_directory_is_reported_once_and_watched_on_or_given_up() -> None:
    week = 7 * 86400
    on, up = directory("on", timeout_seconds=week), directory("up", timeout_seconds=week, gives_up=True)
    uploads = Uploads(on, up)
    uploads.tick()
    uploads.now += week + 10
    plan = uploads.tick()
    assert [each.directory.client for each in plan.timed_out] == ["on", "up"]
    assert plan.notes == [
        f"/uploads/on: nothing has arrived for {week + 15} s; it is still watched",
        f"/uploads/up: nothing has arrived for {week + 15} s; it is not watched any more",
    ]
    assert uploads.tick().timed_out == []
    for client in ("on", "up"):
        uploads.lies(client, a_csv=version())
    assert [taken(uploads.tick()) for _ in range(2)] == [[], ["on/a.csv"]]
    # Another limit is another setting: the directory is watched again.
    uploads.directories = [replace(up, timeout_seconds=2 * week)]
    assert [taken(uploads.tick()) for _ in range(2)] == [[], ["up/a.csv"]]


@pytest.mark.slow
def test_far_more_files_than_the_cursor_holds_are_all_taken_with_a_small_cursor() -> None:
    uploads = Uploads(directory(completeness="renamed"), directory("south", completeness="renamed"))
    uploads.lies("north", **{f"f{number:06}_csv": version() for number in range(3 * MAX_WAITING_FILES)})
    uploads.lies("south", a_csv=version())
    seen: set[str] = set()
    for _ in range(30):
        plan = uploads.tick()
        assert len(plan.cursor.to_json()) < 1_000_000
        assert sum(map(len, plan.cursor.waiting.values())) <= MAX_WAITING_FILES
        assert not seen & set(taken(plan)), "nothing is taken twice"
        seen |= set(taken(plan))
        uploads.take(plan)
    assert len(seen) == 3 * MAX_WAITING_FILES + 1


@pytest.mark.slow
def test_files_that_are_never_completed_do_not_keep_others_from_being_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dedp_assets.landing.arrivals.MAX_WAITING_FILES", 10)
    uploads = Uploads(directory("abandoned", completeness="marker"), directory("north"))
    uploads.lies("abandoned", **{f"f{number}_csv": version() for number in range(200)})
    uploads.lies("north", **{f"f{number}_csv": version() for number in range(20)})
    seen: set[str] = set()
    for _ in range(3000):
        plan = uploads.tick()
        uploads.take(plan)
        seen |= set(taken(plan))
    assert seen == {f"north/f{number}.csv" for number in range(20)}


def test_the_cursor_for_ten_thousand_directories_stays_below_a_megabyte() -> None:
    day = 86400.0
    uploads = Uploads(
        *(directory(f"client-with-a-long-name-{number:05}", timeout_seconds=day) for number in range(10_000))
    )
    for each in uploads.directories:
        uploads.scans[each.client] = Scan({"orders.csv": version()})
        uploads.ledger[each.client] = {"orders.csv": Known(version(), "sha")}
    uploads.tick()
    uploads.now += 2 * day
    plan = uploads.tick()
    assert len(plan.timed_out) == 10_000
    assert len(plan.cursor.to_json()) < 1_000_000


def shuffled(names: Iterable[str]) -> Mapping[str, FileVersion]:
    return {name: version() for name in sorted(names, key=hash)}


def test_the_order_of_a_listing_does_not_matter() -> None:
    uploads = Uploads(directory(completeness="renamed"))
    uploads.scans["north"] = Scan(shuffled(f"{number}.csv" for number in range(50)))
    uploads.take(uploads.tick())
    uploads.scans["north"] = Scan(shuffled(f"{number}.csv" for number in reversed(range(50))))
    assert taken(uploads.tick()) == []
