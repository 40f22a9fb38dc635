"""Real Delta tables, written by delta-rs, and by hand where another writer would: what their logs tell us."""

import json
import os
import shutil
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from dedp_assets.delta import log
from dedp_assets.delta.commits import PartitionChange, add_fingerprints, fingerprint_of
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import (
    CommitUnreadable,
    LogCleaned,
    LogIncomplete,
    TableMissing,
    TableProblem,
)
from tests.dedp_assets.delta.tables import (
    FIRST,
    MODIFIED,
    SECOND,
    THIRD,
    VECTOR,
    days_changed,
    devices,
    followed,
    removal,
    with_features,
)


def update(table):
    table.delta.update(updates={"version": "'2'"}, predicate="full_name = 'extra'")


def merge(table):
    rows = pa.concat_tables([devices(FIRST, ["iphone"], table.kind), devices(THIRD, ["nokia"], table.kind)])
    (
        table.delta.merge(rows, "t.event_time = s.event_time AND t.full_name = s.full_name", "s", "t")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


# The table has three rows for each of the first two days, in version 0, and one more for the second, in version 1.
OPERATIONS = {
    "an append": (lambda t: t.append(SECOND, THIRD), [SECOND, THIRD]),
    "an overwritten partition": (lambda t: t.overwrite(SECOND), [SECOND]),
    "an overwritten table": (
        lambda t: write_deltalake(t.uri, devices(THIRD, kind=t.kind), mode="overwrite"),
        [FIRST, SECOND, THIRD],
    ),
    "a deleted row": (lambda t: t.delta.delete("full_name = 'extra'"), [SECOND]),
    "a deleted partition": (lambda t: t.delta.delete(f"event_time = '{FIRST}'"), [FIRST]),
    "a delete that meets nothing": (lambda t: t.delta.delete("full_name = 'nothing'"), []),
    "an update": (update, [SECOND]),
    "a merge": (merge, [FIRST, THIRD]),
    "a restore": (lambda t: t.delta.restore(0), [SECOND]),
    "a compaction": (lambda t: t.delta.optimize.compact(), []),
    "a z-order": (lambda t: t.delta.optimize.z_order(["full_name"]), []),
    "a vacuum": (lambda t: t.delta.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True), []),
    "another property": (lambda t: t.delta.alter.set_table_properties({"delta.appendOnly": "false"}), []),
    "a null day": (lambda t: t.append(None), [""]),
    "a change of the schema": (
        lambda t: t.append(SECOND, names=["nokia"], schema_mode="merge"),
        [SECOND],
    ),
}


@pytest.mark.parametrize(("operate", "expected"), OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_changes_just_these_partitions(table_of_each_kind, operate, expected):
    table = table_of_each_kind
    table.append(FIRST, SECOND)
    table.append(SECOND, names=["extra"])
    operate(table)
    commits = table.commits(1)
    assert sorted({day for commit in commits for day in commit.changes}) == expected
    assert followed(table) == table.log.snapshot().fingerprints()


def test_a_commit_tells_what_was_done_when_and_how_much(table):
    before = datetime.now(timezone.utc)
    table.append(FIRST)
    table.append(SECOND, names=["nokia"])
    table.overwrite(FIRST, names=["galaxy", "nokia"])
    after = datetime.now(timezone.utc)
    first, second, third = table.commits()
    assert [commit.version for commit in (first, second, third)] == [0, 1, 2]
    assert first.table_id == table.delta.metadata().id
    assert (second.table_id, third.operation) == (None, "WRITE")
    assert first.changes == {FIRST: PartitionChange(1, 0, 3, 0)}
    assert second.changes == {SECOND: PartitionChange(1, 0, 1, 0)}
    # delta-rs leaves the statistics out where it removes a file.
    assert third.changes == {FIRST: PartitionChange(1, 1, 2, None)}
    assert before.replace(microsecond=0) <= first.timestamp <= third.timestamp <= after


def test_a_commit_that_changes_what_the_table_is_says_so(table):
    table.append(FIRST)
    table.append(FIRST)
    table.delta.alter.set_table_properties({"delta.appendOnly": "false"})
    assert [commit.check_table for commit in table.commits()] == [True, False, True]


def test_a_partition_that_was_emptied_and_filled_again_has_the_fingerprint_of_what_it_has_now(table):
    table.append(FIRST, SECOND)
    table.delta.delete(f"event_time = '{FIRST}'")
    assert followed(table).keys() == table.log.snapshot().fingerprints().keys() == {SECOND}
    assert table.log.snapshot().fingerprint(FIRST) == 0
    table.append(FIRST)
    assert followed(table) == table.log.snapshot().fingerprints()


def test_a_fingerprint_does_not_depend_on_the_order_of_files_and_on_nothing_but_them(table):
    table.append(FIRST)
    one = table.log.snapshot().fingerprint(FIRST)
    table.append(FIRST)
    two = table.log.snapshot().fingerprint(FIRST)
    moved = Path(table.uri).rename(Path(table.uri).parent / "elsewhere")
    assert one != two
    assert DeltaLog(str(moved)).snapshot().fingerprint(FIRST) == two
    assert 0 < two < 2**63


def test_a_snapshot_names_every_file_as_delta_rs_does(table_of_each_kind):
    table = table_of_each_kind
    table.append(FIRST, SECOND, None)
    table.append(SECOND)
    snapshot = table.log.snapshot()
    assert (snapshot.version, snapshot.table_id) == (1, table.delta.metadata().id)
    assert {day: len(files) for day, files in snapshot.files.items()} == {FIRST: 1, SECOND: 2, "": 1}
    assert sorted(file for files in snapshot.files.values() for file in files) == sorted(table.delta.file_uris())
    assert all(os.path.exists(file) for files in snapshot.files.values() for file in files)


def test_an_older_snapshot_can_be_had(table):
    table.append(FIRST)
    table.append(SECOND)
    assert (table.log.snapshot(0).version, set(table.log.snapshot(0).files)) == (0, {FIRST})


@pytest.mark.parametrize("uri", ["{}/", "file://{}", "{}/../devices"])
def test_other_ways_to_write_a_path_are_the_same_table(table, uri):
    table.append(FIRST)
    other = DeltaLog(uri.format(table.uri))
    assert other.snapshot() == table.log.snapshot()
    assert list(other.commits(-1)) == table.commits()


def test_a_relative_path_gives_absolute_files(table, monkeypatch):
    table.append(FIRST)
    monkeypatch.chdir(Path(table.uri).parent)
    assert DeltaLog("devices").snapshot() == table.log.snapshot()


@pytest.mark.parametrize("value", [FIRST, None, "a b%:/=é"])
@pytest.mark.parametrize("left", [{}, {"partitionValues": None}, {"partitionValues": {}}])
def test_a_removed_file_without_partition_values_counts_for_the_partition_of_its_folder(table, value, left):
    table.append(value)
    (add,) = table.actions(0, "add")
    table.write_commit(1, removal(add, **left))
    commit = table.last_commit()
    assert commit.changes == {value or "": PartitionChange(0, 1, 0, None)}
    assert followed(table) == table.log.snapshot().fingerprints() == {}


def test_a_removed_file_that_tells_no_partition_at_all_is_not_guessed(table):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(1, {"add": add | {"path": "x1/part-1.parquet"}})
    table.append(SECOND)
    table.write_commit(3, removal({"path": "x1/part-1.parquet"}))
    log = table.log.commits(0)
    assert [next(log).version, next(log).version] == [1, 2]
    with pytest.raises(LogIncomplete, match=r"commit 3 removes x1/part-1\.parquet, and does not say"):
        next(log)


def test_rows_are_unknown_where_a_writer_does_not_say(table):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(1, {"add": add | {"path": f"event_time={FIRST}/1.parquet", "stats": None}}, {"add": add})
    table.write_commit(2, {"add": add | {"path": f"event_time={FIRST}/2.parquet", "stats": "{"}})
    table.write_commit(3, removal(add, partitionValues={"event_time": FIRST}, stats=add["stats"]))
    assert [commit.changes[FIRST] for commit in table.commits(0)] == [
        PartitionChange(2, 0, None, 0),
        PartitionChange(1, 0, None, 0),
        PartitionChange(0, 1, 0, 3),
    ]


def test_a_file_that_does_not_say_whether_it_changes_data_does(table):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    del add["dataChange"]
    table.write_commit(1, {"add": add | {"path": f"event_time={FIRST}/1.parquet"}})
    assert [days_changed(commit) for commit in table.commits(0)] == [[FIRST]]


def test_new_statistics_for_a_file_that_is_there_change_neither_data_nor_fingerprint(table):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(1, {"add": add | {"dataChange": False, "stats": '{"numRecords":3}'}})
    assert days_changed(table.last_commit()) == []
    assert followed(table) == table.log.snapshot().fingerprints()


def test_rows_deleted_by_a_vector_change_their_partition(table):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(1, with_features("deletionVectors"))
    table.write_commit(2, removal(add), {"add": add | {"deletionVector": VECTOR}})
    commit = table.last_commit()
    assert days_changed(commit) == [FIRST]
    assert commit.check_table
    # The same file with a vector is another one, until it is rewritten.
    one, other = table.commits()[0].fingerprint_changes[FIRST], commit.fingerprint_changes[FIRST]
    assert other != 0
    table.write_commit(3, removal(add, deletionVector=VECTOR), {"add": add})
    assert add_fingerprints({}, table.commits()) == {FIRST: one} == table.log.snapshot().fingerprints()


def test_another_deletion_vector_is_another_file_by_the_protocols_unique_id(table):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(1, with_features("deletionVectors"))
    others = [VECTOR, VECTOR | {"offset": 2}, VECTOR | {"offset": None}, VECTOR | {"storageType": "p"}]
    for version, vector in enumerate(others, start=2):
        table.write_commit(version, {"add": add | {"deletionVector": vector}})
    names = {action.file.vector for commit in table.commits(1) for action in commit.actions[FIRST]}
    assert names == {
        "uvBn[lx{q8@P<9BNH/isA@1",
        "uvBn[lx{q8@P<9BNH/isA@2",
        "uvBn[lx{q8@P<9BNH/isA",
        "pvBn[lx{q8@P<9BNH/isA@1",
    }
    assert len({commit.fingerprint_changes[FIRST] for commit in table.commits(1)}) == 4


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"timestamp": 1_700_000_000_500, "inCommitTimestamp": 1}, 1_700_000_000.5),
        ({"inCommitTimestamp": 1_700_000_000_500}, 1_700_000_000.5),
        ({}, MODIFIED.timestamp()),
        ({"timestamp": None}, MODIFIED.timestamp()),
        ({"timestamp": "yesterday"}, MODIFIED.timestamp()),
        ({"timestamp": 10**30}, MODIFIED.timestamp()),
    ],
)
def test_a_commit_is_dated_by_its_writer_or_by_its_file(table, info, expected):
    table.append(FIRST)
    table.write_commit(1, {"commitInfo": info})
    os.utime(table.commit_file(1), (MODIFIED.timestamp(), MODIFIED.timestamp()))
    commit = table.last_commit()
    assert commit.timestamp.timestamp() == expected
    assert commit.timestamp.tzinfo == timezone.utc


def test_a_commit_without_information_about_it_is_a_commit(table):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(
        1, {"txn": {"appId": "a", "version": 1}}, {"add": add | {"path": f"event_time={FIRST}/1.parquet"}}
    )
    commit = table.last_commit()
    assert (commit.operation, days_changed(commit)) == ("unknown", [FIRST])


def test_commits_are_those_after_a_version_and_no_more_than_asked_for(table):
    for _ in range(5):
        table.append(FIRST)
    assert [commit.version for commit in table.log.commits(1)] == [2, 3, 4]
    assert [commit.version for commit in table.log.commits(1, limit=2)] == [2, 3]
    assert [commit.version for commit in table.log.commits(4)] == []
    assert [commit.version for commit in table.log.commits(1, limit=0)] == []


def test_following_the_log_looks_at_no_commit_before_and_lists_nothing(table, monkeypatch):
    for _ in range(4):
        table.append(FIRST)
    table.forget_commits(0, 1)
    monkeypatch.setattr(os, "listdir", None)
    assert [commit.version for commit in table.log.commits(2)] == [3]
    assert [commit.version for commit in table.log.commits(3)] == []


def test_a_log_that_ends_before_has_nothing_new(table):
    table.append(FIRST)
    assert table.commits(7) == []


def cleaned(table, commits=6, checkpoint_at=4):
    """A table whose commits before a checkpoint are cleaned up."""
    for version in range(commits):
        table.append(FIRST)
        if version == checkpoint_at:
            table.delta.create_checkpoint()
    table.forget_commits(*range(checkpoint_at))


@pytest.mark.parametrize("after", [-1, 0, 1, 2])
def test_commits_that_were_cleaned_up_are_missed(table, after):
    cleaned(table)
    with pytest.raises(
        LogCleaned, match=f"commit {after + 1} was removed .* the next commit that is left is 4"
    ) as raised:
        table.commits(after)
    assert raised.value.oldest == 4


def test_read_back_it_leads_to_what_each_partition_consisted_of(table):
    cleaned(table)
    files = table.log.snapshot().logged_files(FIRST)
    for commit in table.log.commits_back(5, after=-1):
        assert table.log.snapshot(commit.version).fingerprint(FIRST) == fingerprint_of(files)
        files = commit.files_before(FIRST, files)
    assert commit.version == 4
    assert [commit.version for commit in table.log.commits_back(5, after=4)] == [5]
    assert [*table.log.commits_back(5, after=5)] == []


def test_a_log_that_delta_rs_cleaned_up_itself_is_missed(table):
    table.append(FIRST, configuration={"delta.logRetentionDuration": "interval 0 days"})
    for _ in range(3):
        table.append(FIRST)
    table.delta.create_checkpoint()
    table.delta.cleanup_metadata()
    table.append(SECOND)
    assert not table.commit_file(2).exists()
    with pytest.raises(LogCleaned):
        table.commits(0)
    assert [days_changed(commit) for commit in table.commits(3)] == [[SECOND]]


def test_a_log_that_was_cleaned_up_to_where_we_are_has_nothing_new(table):
    cleaned(table)
    table.forget_commits(4)
    assert [commit.version for commit in table.commits(4)] == [5]
    table.delta.create_checkpoint()
    table.forget_commits(5)
    assert table.commits(5) == []
    table.write_commit(6, {"commitInfo": {}})
    assert [commit.version for commit in table.commits(5)] == [6]


@pytest.mark.parametrize("after", [-1, 2, 3])
@pytest.mark.parametrize("hint", [True, False])
def test_a_table_of_which_only_a_checkpoint_is_left_has_lost_its_log(table, after, hint):
    cleaned(table, commits=5, checkpoint_at=4)
    table.forget_commits(4)
    if not hint:
        (Path(table.uri) / "_delta_log" / "_last_checkpoint").unlink()
    with pytest.raises(LogCleaned, match="no later commit is left") as raised:
        table.commits(after)
    assert raised.value.oldest is None


@pytest.mark.parametrize("hint", [None, "", "{", "null", '{"version":"x"}', '{"version":1}', '{"size":3}'])
def test_the_hint_at_the_last_checkpoint_may_be_missing_old_or_broken(table, hint):
    cleaned(table)
    file = Path(table.uri) / "_delta_log" / "_last_checkpoint"
    file.unlink()
    if hint is not None:
        file.write_text(hint)
    with pytest.raises(LogCleaned):
        table.commits(2)
    assert [commit.version for commit in table.commits(3)] == [4, 5]


def test_a_gap_right_after_a_commit_that_is_there_is_seen_by_the_checkpoint(table):
    cleaned(table, checkpoint_at=4)
    # A cleanup by the files' times, which a copy of the folder has mixed up.
    table.write_commit(2, {"commitInfo": {}})
    with pytest.raises(LogCleaned):
        table.commits(2)


def test_a_commit_that_lands_while_we_look_is_not_taken_for_one_cleaned_up(table, monkeypatch):
    for _ in range(3):
        table.append(FIRST)
    hidden = table.commit_file(1).rename(Path(table.uri) / "later")
    last_checkpoint = log.last_checkpoint

    def meanwhile(files):
        table.delta.create_checkpoint() if hidden.rename(table.commit_file(1)) else None
        return last_checkpoint(files)

    monkeypatch.setattr(log, "last_checkpoint", meanwhile)
    commits = table.log.commits(0)
    assert next(commits).version == 1


MISSING = {
    "nothing": lambda folder: None,
    "an empty folder": lambda folder: folder.mkdir(),
    "an empty log": lambda folder: (folder / "_delta_log").mkdir(parents=True),
    "a file": lambda folder: folder.touch(),
    "files without a log": lambda folder: (folder / "event_time=2024-01-01").mkdir(parents=True),
    "a log of something else": lambda folder: [
        (folder / "_delta_log").mkdir(parents=True),
        (folder / "_delta_log" / "notes.txt").touch(),
    ],
}


@pytest.mark.parametrize("make", MISSING.values(), ids=MISSING)
def test_where_there_is_no_table_that_is_said(table, make):
    make(Path(table.uri))
    with pytest.raises(TableMissing, match=f"there is no Delta table at {table.uri}"):
        table.log.snapshot()
    for after in (-1, 0, 5):
        with pytest.raises(TableMissing, match=f"there is no Delta table at {table.uri}"):
            table.commits(after)
    assert table.log.mark(0) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n",
        b'{"add":{"pa',
        b'{"commitInfo":{}}\n{"add":',
        b"[1]\n",
        b"7\n",
        b'{"add":7}\n',
        b'{"add":{}}\n',
        b'{"metaData":{}}\n',
        b"\xff\xfe",
        b"\0" * 512,
    ],
)
def test_half_a_commit_is_not_gone_beyond(table, content):
    table.append(FIRST)
    table.append(SECOND)
    whole = table.commit_file(1).read_bytes()
    table.commit_file(1).write_bytes(content)
    log = table.log.commits(-1)
    assert next(log).version == 0
    with pytest.raises(CommitUnreadable, match=f"{table.commit_file(1)} is not a complete commit yet"):
        next(log)
    table.commit_file(1).write_bytes(whole)
    assert [days_changed(commit) for commit in table.commits(0)] == [[SECOND]]


def test_an_empty_commit_that_others_were_built_on_is_one_of_nothing(table):
    table.append(FIRST)
    table.commit_file(1).touch()
    table.append(SECOND)
    assert [days_changed(commit) for commit in table.commits(0)] == [[], [SECOND]]


def test_a_commit_is_read_however_its_json_is_laid_out(table):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    actions = [{"commitInfo": {"operation": "WRITE"}}, removal(add, partitionValues=add["partitionValues"])]
    layouts = [
        "\n".join(json.dumps(action, indent=2) for action in actions),
        "".join(json.dumps(action) for action in actions),
        "\r\n".join(json.dumps(action) for action in actions),
        json.dumps(actions[0] | actions[1]),
        json.dumps({"commitInfo": []}) + "\n" + json.dumps(actions[1]),
        json.dumps({"commitInfo": 7}) + "\n" + json.dumps(actions[1]),
    ]
    for text in layouts:
        table.commit_file(1).write_text(text)
        assert days_changed(table.last_commit()) == [FIRST]
        assert followed(table) == table.log.snapshot().fingerprints() == {}


def test_a_file_that_one_commit_removes_and_adds_is_there(table):
    table.append(FIRST, SECOND)
    add = next(add for add in table.actions(0, "add") if FIRST in add["path"])
    gone = removal(add, partitionValues=add["partitionValues"])
    for actions in ([gone, {"add": add}], [{"add": add}, gone]):
        table.write_commit(1, *actions)
        assert days_changed(table.last_commit()) == [FIRST]
        assert followed(table) == table.log.snapshot().fingerprints() == table.log.snapshot(0).fingerprints()
        assert set(table.log.snapshot().files) == {FIRST, SECOND}
    table.write_commit(1, gone, {"add": add})
    table.append(SECOND)
    assert set(table.log.snapshot().files) == {FIRST, SECOND}
    table.write_commit(3, gone)
    assert set(table.log.snapshot().files) == {SECOND}


def test_a_file_that_is_added_once_more_is_one_file_with_another_stamp(table):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    before = table.log.snapshot()
    table.write_commit(1, {"add": add | {"size": 7, "modificationTime": 7}})
    after = table.log.snapshot()
    assert days_changed(table.last_commit()) == [FIRST]
    assert after.fingerprint(FIRST) == before.fingerprint(FIRST)
    assert after.stamp(FIRST) != before.stamp(FIRST)
    assert after.files == before.files


# What stands in a path, and what a removal calls it: for deltalake it is the same file if it is spelled the same.
SPELLINGS = [
    ("p art.parquet", "p%20art.parquet"),
    ("p%20art.parquet", "p art.parquet"),
    ("p%20art.parquet", "p%20art.parquet"),
    ("p art.parquet", "p art.parquet"),
    ("100%.parquet", "100%25.parquet"),
]


@pytest.mark.parametrize(("added", "removed"), SPELLINGS)
def test_a_path_is_the_file_that_deltalake_takes_it_for(table, added, removed):
    table.append(SECOND)
    (add,) = table.actions(0, "add")
    folder, values = f"event_time={FIRST}", {"event_time": FIRST}
    file = add | {"path": f"{folder}/{added}", "partitionValues": values}
    table.write_commit(1, {"add": file})
    table.write_commit(2, removal(file | {"path": f"{folder}/{removed}"}, partitionValues=values))
    snapshot = table.log.snapshot()
    assert sorted(file for files in snapshot.files.values() for file in files) == sorted(table.delta.file_uris())
    after = table.log.snapshot(1).logged_files(FIRST)
    assert table.last_commit().files_after(FIRST, after) == snapshot.logged_files(FIRST)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_an_absolute_path_inside_the_table_is_that_file(table, scheme):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    before = table.log.snapshot()
    absolute = add | {"path": f"{scheme}{table.uri}/{add['path']}"}
    table.write_commit(1, removal(add, partitionValues=add["partitionValues"]), {"add": absolute})
    snapshot = table.log.snapshot()
    assert snapshot.files == before.files
    assert all(os.path.exists(file) for files in snapshot.files.values() for file in files)
    assert followed(table) == snapshot.fingerprints() == before.fingerprints()


def test_a_mark_tells_a_commit_from_one_of_the_same_version_in_a_table_made_anew(table):
    table.append(FIRST)
    before = table.log.mark(0)
    assert before == table.commits()[0].mark
    shutil.rmtree(table.uri)
    assert table.log.mark(0) is None
    table.append(FIRST)
    assert table.log.mark(0) == table.commits()[0].mark != before


def test_a_mark_tells_half_a_large_commit_from_the_whole_of_it(table):
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    adds = [{"add": add | {"path": f"event_time={FIRST}/{number}.parquet"}} for number in range(1000)]
    table.write_commit(1, *adds[:-1])
    half = table.log.mark(1)
    assert table.commit_file(1).stat().st_size > 100_000
    table.write_commit(1, *adds)
    assert table.log.mark(1) == table.last_commit().mark != half


def test_a_folder_that_cannot_be_read_is_named(table):
    Path(table.uri).mkdir()
    (Path(table.uri) / "_delta_log").symlink_to("_delta_log")
    message = f"{table.uri}/_delta_log/.*json can't be read: Too many levels of symbolic links; check the folder"
    with pytest.raises(TableProblem, match=message):
        table.commits()
