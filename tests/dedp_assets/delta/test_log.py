"""What the log of a real Delta table says that a commit changed, and which files a snapshot has."""

import os
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from dedp_assets.delta.commits import PartitionChange, add_fingerprints
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import LogIncomplete
from tests.dedp_assets.delta.tables import (
    FIRST,
    MODIFIED,
    SECOND,
    THIRD,
    VECTOR,
    Action,
    Operation,
    Table,
    days_changed,
    devices,
    followed,
    removal,
    with_features,
)


def update(table: Table) -> None:
    table.delta.update(updates={"version": "'2'"}, predicate="full_name = 'extra'")


def merge(table: Table) -> None:
    rows = pa.concat_tables([devices(FIRST, ["iphone"], table.kind), devices(THIRD, ["nokia"], table.kind)])
    (
        table.delta.merge(rows, "t.event_time = s.event_time AND t.full_name = s.full_name", "s", "t")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


# The table has three rows for each of the first two days, in version 0, and one more for the second, in version 1.
OPERATIONS: dict[str, tuple[Operation, list[str]]] = {
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
def test_an_operation_changes_just_these_partitions(
    table_of_each_kind: Table, operate: Operation, expected: list[str]
) -> None:
    table = table_of_each_kind
    table.append(FIRST, SECOND)
    table.append(SECOND, names=["extra"])
    operate(table)
    commits = table.commits(1)
    assert sorted({day for commit in commits for day in commit.changes}) == expected
    assert followed(table) == table.log.snapshot().fingerprints()


def test_a_commit_tells_what_was_done_when_and_how_much(table: Table) -> None:
    before = datetime.now(timezone.utc)
    table.append(FIRST)
    table.append(SECOND, names=["nokia"])
    table.overwrite(FIRST, names=["galaxy", "nokia"])
    after = datetime.now(timezone.utc)
    first, second, third = table.commits()
    assert [commit.version for commit in (first, second, third)] == [0, 1, 2]
    assert first.table_id == str(table.delta.metadata().id)
    assert (second.table_id, third.operation) == (None, "WRITE")
    assert first.changes == {FIRST: PartitionChange(1, 0, 3, 0)}
    assert second.changes == {SECOND: PartitionChange(1, 0, 1, 0)}
    # delta-rs leaves the statistics out where it removes a file.
    assert third.changes == {FIRST: PartitionChange(1, 1, 2, None)}
    assert before.replace(microsecond=0) <= first.timestamp <= third.timestamp <= after


def test_a_commit_that_changes_what_the_table_is_says_so(table: Table) -> None:
    table.append(FIRST)
    table.append(FIRST)
    table.delta.alter.set_table_properties({"delta.appendOnly": "false"})
    assert [commit.check_table for commit in table.commits()] == [True, False, True]


def test_a_partition_that_was_emptied_and_filled_again_has_the_fingerprint_of_what_it_has_now(table: Table) -> None:
    table.append(FIRST, SECOND)
    table.delta.delete(f"event_time = '{FIRST}'")
    assert followed(table).keys() == table.log.snapshot().fingerprints().keys() == {SECOND}
    assert table.log.snapshot().fingerprint(FIRST) == 0
    table.append(FIRST)
    assert followed(table) == table.log.snapshot().fingerprints()


def test_a_fingerprint_does_not_depend_on_the_order_of_files_and_on_nothing_but_them(table: Table) -> None:
    table.append(FIRST)
    one = table.log.snapshot().fingerprint(FIRST)
    table.append(FIRST)
    two = table.log.snapshot().fingerprint(FIRST)
    moved = Path(table.uri).rename(Path(table.uri).parent / "elsewhere")
    assert one != two
    assert DeltaLog(str(moved)).snapshot().fingerprint(FIRST) == two
    assert 0 < two < 2**63


def test_a_snapshot_names_every_file_as_delta_rs_does(table_of_each_kind: Table) -> None:
    table = table_of_each_kind
    table.append(FIRST, SECOND, None)
    table.append(SECOND)
    snapshot = table.log.snapshot()
    assert (snapshot.version, snapshot.table_id) == (1, str(table.delta.metadata().id))
    assert {day: len(files) for day, files in snapshot.files.items()} == {FIRST: 1, SECOND: 2, "": 1}
    assert sorted(file for files in snapshot.files.values() for file in files) == sorted(table.delta.file_uris())
    assert all(os.path.exists(file) for files in snapshot.files.values() for file in files)


def test_an_older_snapshot_can_be_had(table: Table) -> None:
    table.append(FIRST)
    table.append(SECOND)
    assert (table.log.snapshot(0).version, set(table.log.snapshot(0).files)) == (0, {FIRST})


@pytest.mark.parametrize("uri", ["{}/", "file://{}", "{}/../devices"])
def test_other_ways_to_write_a_path_are_the_same_table(table: Table, uri: str) -> None:
    table.append(FIRST)
    other = DeltaLog(uri.format(table.uri))
    assert other.snapshot() == table.log.snapshot()
    assert list(other.commits(-1)) == table.commits()


def test_a_relative_path_gives_absolute_files(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.append(FIRST)
    monkeypatch.chdir(Path(table.uri).parent)
    assert DeltaLog("devices").snapshot() == table.log.snapshot()


@pytest.mark.parametrize("value", [FIRST, None, "a b%:/=é"])
@pytest.mark.parametrize("left", [{}, {"partitionValues": None}, {"partitionValues": {}}])
def test_a_removed_file_without_partition_values_counts_for_the_partition_of_its_folder(
    table: Table, value: str | None, left: Action
) -> None:
    table.append(value)
    (add,) = table.actions(0, "add")
    table.write_commit(1, removal(add, **left))
    commit = table.last_commit()
    assert commit.changes == {value or "": PartitionChange(0, 1, 0, None)}
    assert followed(table) == table.log.snapshot().fingerprints() == {}


def test_a_removed_file_that_tells_no_partition_at_all_is_not_guessed(table: Table) -> None:
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(1, {"add": add | {"path": "x1/part-1.parquet"}})
    table.append(SECOND)
    table.write_commit(3, removal({"path": "x1/part-1.parquet"}))
    log = table.log.commits(0)
    assert [next(log).version, next(log).version] == [1, 2]
    with pytest.raises(LogIncomplete, match=r"commit 3 removes x1/part-1\.parquet, and does not say"):
        next(log)


def test_rows_are_unknown_where_a_writer_does_not_say(table: Table) -> None:
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


def test_a_file_that_does_not_say_whether_it_changes_data_does(table: Table) -> None:
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    del add["dataChange"]
    table.write_commit(1, {"add": add | {"path": f"event_time={FIRST}/1.parquet"}})
    assert [days_changed(commit) for commit in table.commits(0)] == [[FIRST]]


def test_new_statistics_for_a_file_that_is_there_change_neither_data_nor_fingerprint(table: Table) -> None:
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(1, {"add": add | {"dataChange": False, "stats": '{"numRecords":3}'}})
    assert days_changed(table.last_commit()) == []
    assert followed(table) == table.log.snapshot().fingerprints()


def test_rows_deleted_by_a_vector_change_their_partition(table: Table) -> None:
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


def test_another_deletion_vector_is_another_file_by_the_protocols_unique_id(table: Table) -> None:
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
def test_a_commit_is_dated_by_its_writer_or_by_its_file(table: Table, info: Action, expected: float) -> None:
    table.append(FIRST)
    table.write_commit(1, {"commitInfo": info})
    os.utime(table.commit_file(1), (MODIFIED.timestamp(), MODIFIED.timestamp()))
    commit = table.last_commit()
    assert commit.timestamp.timestamp() == expected
    assert commit.timestamp.tzinfo == timezone.utc


def test_a_commit_without_information_about_it_is_a_commit(table: Table) -> None:
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(
        1, {"txn": {"appId": "a", "version": 1}}, {"add": add | {"path": f"event_time={FIRST}/1.parquet"}}
    )
    commit = table.last_commit()
    assert (commit.operation, days_changed(commit)) == ("unknown", [FIRST])


def test_commits_are_those_after_a_version_and_no_more_than_asked_for(table: Table) -> None:
    for _ in range(5):
        table.append(FIRST)
    assert [commit.version for commit in table.log.commits(1)] == [2, 3, 4]
    assert [commit.version for commit in table.log.commits(1, limit=2)] == [2, 3]
    assert [commit.version for commit in table.log.commits(4)] == []
    assert [commit.version for commit in table.log.commits(1, limit=0)] == []


def test_following_the_log_looks_at_no_commit_before_and_lists_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        table.append(FIRST)
    table.forget_commits(0, 1)
    monkeypatch.setattr(os, "listdir", None)
    assert [commit.version for commit in table.log.commits(2)] == [3]
    assert [commit.version for commit in table.log.commits(3)] == []


def test_a_log_that_ends_before_has_nothing_new(table: Table) -> None:
    table.append(FIRST)
    assert table.commits(7) == []
