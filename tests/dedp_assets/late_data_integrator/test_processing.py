"""Counts and what they reflect, on real Delta tables: exactly once, even if others write at the same time."""

import shutil
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest
from deltalake import DeltaTable

from dedp_assets.delta.commits import Commit
from dedp_assets.delta.log import DeltaLog
from tests.dedp_assets.late_data_integrator.device_tables import (
    Lake,
    Run,
    forget_commits,
)

D1, D2, D3 = "2024-01-01", "2024-01-02", "2024-01-03"


def test_the_first_run_of_a_day_counts_it_and_records_the_version_it_read(lake: Lake, run: Run) -> None:
    lake.append(D1, "a", "a", "b")
    lake.append(D2, "c")
    (done,) = run(D1)
    assert (done.written, done.version, done.rows_before, done.rows_after, done.late) == (True, 1, 0, 3, None)
    assert lake.counts(D1) == {"a": 2, "b": 1}
    assert lake.counts(D2) == {}


def test_a_day_that_has_not_changed_is_not_written_again(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    run(D1)
    lake.append(D2, "b")
    written = lake.versions_written()
    (done,) = run(D1)
    assert not done.written
    assert done.version == 0
    assert lake.versions_written() == written


def test_late_data_is_counted_and_the_commits_that_brought_it_are_named(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    run(D1)
    versions = (lake.append(D1, "b"), lake.append(D1, "b"))
    (done,) = run(D1)
    assert (done.rows_before, done.rows_after) == (1, 3)
    assert done.late is not None
    assert done.late.versions == versions
    assert abs(datetime.now(timezone.utc) - done.late.at).total_seconds() < 600
    assert lake.counts(D1) == {"a": 1, "b": 2}


@pytest.mark.parametrize("change", ["overwrite", "delete some", "delete all", "update", "restore"])
def test_every_kind_of_change_is_followed(lake: Lake, run: Run, change: str) -> None:
    lake.append(D1, "a", "b")
    run(D1)
    if change == "overwrite":
        lake.overwrite(D1, "c")
    elif change == "delete some":
        lake.devices.delete("full_name = 'a'")
    elif change == "delete all":
        lake.devices.delete(f"event_time = '{D1}'")
    elif change == "update":
        lake.devices.update(new_values={"full_name": "z"}, predicate="full_name = 'a'")
    else:
        lake.append(D1, "late")
        run(D1)
        lake.devices.restore(0)
    expected = {"overwrite": {"c": 1}, "delete some": {"b": 1}, "delete all": {}, "update": {"z": 1, "b": 1}}
    run(D1)
    assert lake.counts(D1) == expected.get(change, {"a": 1, "b": 1})
    written = lake.versions_written()
    run(D1)
    assert lake.versions_written() == written


def test_compaction_is_no_change(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    lake.append(D1, "b")
    run(D1)
    lake.devices.optimize.compact()
    (done,) = run(D1)
    assert not done.written


def test_data_that_lands_while_a_day_is_counted_is_late_afterwards(lake: Lake, run: Run) -> None:
    """The original records the version that the table has at the end of the run, so it never counts this commit."""
    lake.append(D1, "a")
    run(D1, while_counting=lambda: lake.append(D1, "b"))
    assert lake.counts(D1) == {"a": 1}
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"a": 1, "b": 1}


def test_several_days_are_one_commit_and_each_records_its_own(lake: Lake, run: Run) -> None:
    for day in (D1, D2, D3):
        lake.append(D1 if day == D3 else day, "a")
    run(D2)
    written = lake.versions_written()
    first, second, third = run(D1, D2, D3)
    assert (first.written, second.written, third.written) == (True, False, True)
    assert (first.version, second.version, third.version) == (2, 2, 2)
    assert lake.versions_written() == written + 1
    recorded = lake.open_counts().recorded(str(lake.devices.metadata().id), D3)
    assert recorded is not None
    assert recorded.fingerprint == 0


def test_a_result_never_replaces_one_that_was_computed_from_newer_input(lake: Lake, run: Run) -> None:
    lake.append(D1, "old")
    run(D2)  # so that the table of counts is there

    def overtaken() -> None:
        if lake.devices.version() == 0:
            lake.append(D1, "new")
            run(D1)

    (done,) = run(D1, while_counting=overtaken)
    assert not done.written
    assert lake.counts(D1) == {"old": 1, "new": 1}


def test_what_was_counted_is_not_counted_again_because_another_day_was_committed(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    lake.append(D2, "b")
    counted = []

    def another_day() -> None:
        counted.append(D1)
        run(D2)

    run(D1, while_counting=another_day)
    assert counted == [D1]
    assert (lake.counts(D1), lake.counts(D2)) == ({"a": 1}, {"b": 1})


@pytest.mark.parametrize("days", [[D1] * 6, [D1, D2, D3] * 2], ids=["one day", "three days"])
def test_runs_at_once_agree(lake: Lake, run: Run, days: list[str]) -> None:
    for day in (D1, D2, D3):
        lake.append(day, "a")
    together = threading.Barrier(len(days), timeout=300)
    outcomes = []

    def one(day: str) -> None:
        once = iter([together.wait])
        outcomes.extend(run(day, while_counting=lambda: next(once, lambda: None)()))

    threads = [threading.Thread(target=one, args=[day]) for day in days]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == len(days)
    assert sum(done.written for done in outcomes) == len(set(days))
    assert lake.versions_written() == len(set(days))
    assert all(lake.counts(day) == {"a": 1} for day in days)


def test_a_table_made_anew_under_the_same_path_is_a_new_input(lake: Lake, run: Run) -> None:
    lake.append(D1, "a", "a")
    run(D1)
    shutil.rmtree(lake.devices_uri)
    lake.append(D1, "b")
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"b": 1}


def test_where_the_log_has_been_cleaned_up_other_files_count_as_changed(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    run(D1, D2)
    lake.append(D1, "b")
    lake.append(D3, "a")
    forget_commits(lake, 0, 1, 2)
    first, second = run(D1, D2)
    assert first.written
    assert first.late is None
    assert not second.written
    assert lake.counts(D1) == {"a": 1, "b": 1}


def test_a_day_that_is_older_than_the_log_makes_no_other_uncertain(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    run(D1)
    lake.append(D1, "b")
    lake.append(D2, "b")
    run(D2)
    forget_commits(lake, 0, 1, 2)
    lake.devices.optimize.compact()
    first, second = run(D1, D2)
    assert first.written
    assert not second.written


def test_a_compacted_day_that_was_counted_before_the_log_begins_is_not_counted_again(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    lake.append(D1, "b")
    run(D1)
    lake.append(D2, "a")
    lake.append(D2, "b")
    forget_commits(lake, 0, 1, 2)
    lake.devices.optimize.compact()
    (done,) = run(D1)
    assert not done.written


def test_late_data_in_a_day_that_was_counted_before_the_log_begins_is_told_by_its_commits(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    run(D1)
    lake.append(D2, "a")
    forget_commits(lake, 0)
    late = lake.append(D1, "b")
    (done,) = run(D1)
    assert done.late is not None
    assert done.late.versions == (late,)


@pytest.mark.parametrize("commits_since", [0, 1, 2])
def test_a_table_put_back_from_a_backup_is_followed_however_far_it_has_gone_since(
    lake: Lake, run: Run, tmp_path: Path, commits_since: int
) -> None:
    """Version numbers are used again for other commits: `lost` and the commit after the restore are both version 1."""
    lake.append(D1, "a")
    backup = shutil.copytree(lake.devices_uri, tmp_path / "backup")
    lake.append(D1, "lost")
    run(D1)
    shutil.rmtree(lake.devices_uri)
    shutil.copytree(backup, lake.devices_uri)
    for _ in range(commits_since):
        lake.append(D2, "a")
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"a": 1}


def test_only_the_end_of_the_log_is_read(lake: Lake, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """We read back to the commits that made a day late, and not to the version that was counted."""
    lake.append(D1, "a")
    run(D1)
    for _ in range(5):
        lake.append(D2, "a")
    lake.append(D1, "b")
    read = []
    commit = DeltaLog._commit

    def reading(log: DeltaLog, version: int, content: bytes) -> Commit:
        read.append(version)
        return commit(log, version, content)

    monkeypatch.setattr(DeltaLog, "_commit", reading)
    run(D1)
    assert read == [6]


def test_the_records_of_all_days_at_once_are_those_of_each(lake: Lake, run: Run) -> None:
    for day in (D1, D2, D3):
        lake.append(day, "a")
    table_id = str(lake.devices.metadata().id)
    for _ in range(2):
        run(D1, D2)
        counts = lake.open_counts()
        assert counts.all_recorded() == {table_id: {day: counts.recorded(table_id, day) for day in (D1, D2)}}
        DeltaTable(lake.counts_uri).create_checkpoint()
        lake.append(D1, "b")
