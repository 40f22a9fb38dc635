"""Counts where the log is unusual: deletion vectors, tables made anew or put back, files that change in place."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from dedp_assets.delta.commits import hash_63
from dedp_assets.delta.problems import UnsupportedTable
from dedp_assets.late_data_integrator.device_counts import SCHEMA, InputVersion, recorded_input_versions
from tests.dedp_assets.late_data_integrator.device_tables import (
    Action,
    Lake,
    Run,
    actions,
    forget_commits,
    removal,
    write_commit,
)

D1, D2, D3 = "2024-01-01", "2024-01-02", "2024-01-03"


def vector_of_six_rows() -> Action:
    # From the examples of Delta's protocol: rows 3, 4, 7, 11, 18 and 29 of some file, inline.
    inline = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"
    return {"storageType": "i", "pathOrInlineDv": inline, "sizeInBytes": 40, "cardinality": 6}


def with_vectors() -> Action:
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    return {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7} | features}


def put_file(lake: Lake, path: str, *names: str) -> int:
    """Write a Parquet file into the table's folder, without a commit. Returns its size."""
    file = Path(lake.devices_uri) / path
    pq.write_table(lake.rows(D1, *names).drop_columns(["event_time"]), file)
    return file.stat().st_size


@pytest.mark.parametrize("looked_between", [False, True])
def test_rows_that_were_deleted_by_a_vector_and_written_out_since_are_counted_without_them(
    lake: Lake, run: Run, looked_between: bool
) -> None:
    lake.append(D1, *["a"] * 30)
    run(D1)
    (add,) = actions(lake, 0, "add")
    vector = {"deletionVector": vector_of_six_rows()}
    write_commit(lake, 1, with_vectors())
    write_commit(lake, 2, removal(add), {"add": add | vector})
    if looked_between:
        with pytest.raises(UnsupportedTable):
            run(D1)
    purged = f"event_time={D1}/purged.parquet"
    size = put_file(lake, purged, *["a"] * 24)
    moved = {"path": purged, "size": size, "dataChange": False}
    write_commit(lake, 3, removal(add, dataChange=False, **vector), {"add": add | moved})
    (done,) = run(D1)
    assert (done.rows_before, done.rows_after) == (30, 24)
    assert done.late is not None
    assert done.late.versions == (2,)
    assert lake.counts(D1) == {"a": 24}
    (again,) = run(D1)
    assert not again.written


def test_a_table_that_was_another_one_meanwhile_is_counted_again(lake: Lake, run: Run) -> None:
    lake.append(D1, "a", "a")
    run(D1)
    first = lake.devices.metadata().id
    schema = lake.devices.schema()
    DeltaTable.create(lake.devices_uri, schema, partition_by=["event_time"], mode="overwrite")
    lake.append(D1, "b")
    assert lake.devices.metadata().id != first
    run(D1)
    assert lake.counts(D1) == {"b": 1}
    lake.devices.restore(0)
    assert lake.devices.metadata().id == first
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"a": 2}
    (again,) = run(D1)
    assert not again.written


def test_a_backup_of_a_table_that_was_made_anew_meanwhile_is_counted_again(
    lake: Lake, run: Run, tmp_path: Path
) -> None:
    lake.append(D1, "a", "a")
    run(D1)
    backup = shutil.copytree(lake.devices_uri, tmp_path / "backup")
    shutil.rmtree(lake.devices_uri)
    lake.append(D1, "b")
    run(D1)
    shutil.rmtree(lake.devices_uri)
    shutil.copytree(backup, lake.devices_uri)
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"a": 2}


X, Y = "table x", "table y"
OF_X = {f"lake/devices/{X}/{D1}": 3, f"lake/devices/{X}/{D1}/files": 11}
OF_Y = {f"lake/devices/{Y}/{D1}": 5, f"lake/devices/{Y}/{D1}/files": 12}


@pytest.mark.parametrize(
    ("transactions", "expected"),
    [
        ({}, {}),
        (OF_X, {X: {D1: InputVersion(3, 11)}}),
        ({f"lake/devices/{X}/{D1}": 3}, {}),
        (OF_X | OF_Y, {"": {D1: InputVersion(3, 11)}}),
        (OF_X | OF_Y | {f"lake/devices/{D1}/table": hash_63(Y)}, {Y: {D1: InputVersion(5, 12)}}),
        (OF_X | {f"lake/devices/{D1}/table": hash_63(Y)}, {"": {D1: InputVersion(3, 11)}}),
        (
            OF_X | OF_Y | {f"lake/devices/{D1}/table": hash_63(X), f"lake/devices/{D1}/stamps": 13},
            {X: {D1: InputVersion(3, 11, 13)}},
        ),
    ],
)
def test_what_is_recorded_holds_for_the_table_that_was_counted_last(
    transactions: dict[str, int], expected: dict[str, dict[str, InputVersion]]
) -> None:
    assert recorded_input_versions(transactions) == expected


def as_recorded_before(lake: Lake, table_id: str, day: str, version: int, fingerprint: int) -> None:
    """Record what an older version of the code recorded: without the table that was counted last."""
    counts = lake.open_counts()
    pairs = {f"lake/devices/{table_id}/{day}": version, f"lake/devices/{table_id}/{day}/files": fingerprint}
    write_deltalake(
        counts.table,
        SCHEMA.empty_table(),
        mode="append",
        commit_properties=CommitProperties(app_transactions=[Transaction(*pair) for pair in pairs.items()]),
    )


def test_what_was_recorded_before_it_was_said_of_which_table_is_relied_on_if_there_was_only_one(
    lake: Lake, run: Run
) -> None:
    lake.append(D1, "a")
    table_id, snapshot = str(lake.devices.metadata().id), lake.log.snapshot()
    as_recorded_before(lake, table_id, D1, 0, snapshot.fingerprint(D1))
    (done,) = run(D1)
    assert not done.written
    as_recorded_before(lake, "another", D1, 0, 7)
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"a": 1}


@pytest.mark.parametrize("first", ["remove", "add"])
def test_a_file_that_one_commit_removes_and_adds_counts(lake: Lake, run: Run, first: str) -> None:
    lake.append(D1, "a", "a")
    run(D1)
    (add,) = actions(lake, 0, "add")
    size = put_file(lake, add["path"], "b", "b", "b")
    both = [removal(add), {"add": add | {"size": size}}]
    write_commit(lake, 1, *(both if first == "remove" else both[::-1]))
    run(D1)
    assert lake.counts(D1) == {"b": 3}


def test_a_file_rewritten_in_place_counts_anew(lake: Lake, run: Run) -> None:
    lake.append(D1, "a", "a")
    lake.append(D2, "a")
    run(D1, D2)
    (add,) = actions(lake, 0, "add")
    size = put_file(lake, add["path"], "b", "b", "b")
    write_commit(lake, 2, {"add": add | {"size": size, "modificationTime": add["modificationTime"] + 1}})
    first, second = run(D1, D2)
    assert first.late is not None
    assert first.late.versions == (2,)
    assert not second.written
    assert lake.counts(D1) == {"b": 3}


def test_new_statistics_of_a_file_are_no_change_even_with_another_time(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    run(D1)
    (add,) = actions(lake, 0, "add")
    write_commit(lake, 1, {"add": add | {"dataChange": False, "modificationTime": add["modificationTime"] + 1}})
    (done,) = run(D1)
    assert not done.written


def test_a_file_rewritten_in_place_counts_anew_where_the_log_does_not_tell(lake: Lake, run: Run) -> None:
    lake.append(D1, "a", "a")
    run(D1)
    (add,) = actions(lake, 0, "add")
    size = put_file(lake, add["path"], "b", "b", "b")
    write_commit(lake, 1, {"add": add | {"size": size, "modificationTime": add["modificationTime"] + 1}})
    lake.append(D2, "a")
    forget_commits(lake, 0, 1)
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"b": 3}


def test_a_file_put_back_in_place_from_a_backup_counts_anew(lake: Lake, run: Run, tmp_path: Path) -> None:
    lake.append(D1, "a", "a")
    backup = shutil.copytree(lake.devices_uri, tmp_path / "backup")
    (add,) = actions(lake, 0, "add")
    size = put_file(lake, add["path"], "b", "b", "b")
    write_commit(lake, 1, {"add": add | {"size": size, "modificationTime": add["modificationTime"] + 1}})
    run(D1)
    shutil.rmtree(lake.devices_uri)
    shutil.copytree(backup, lake.devices_uri)
    for _ in range(2):
        lake.append(D2, "a")
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"a": 2}


def test_a_compaction_that_also_names_a_file_it_keeps_hides_no_late_data(lake: Lake, run: Run) -> None:
    """Read backwards, the commit looks as if it created that file, and the day as if it had the counted files."""
    lake.append(D1, "a")
    run(D1)
    lake.append(D1, "b")
    (first,), (second,) = actions(lake, 0, "add"), actions(lake, 1, "add")
    path = f"event_time={D1}/compacted.parquet"
    size = put_file(lake, path, "a")
    same = {"dataChange": False}
    compacted = first | same | {"path": path, "size": size}
    write_commit(lake, 2, removal(first, dataChange=False), {"add": compacted}, {"add": second | same})
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"a": 1, "b": 1}


def test_a_file_that_is_removed_twice_hides_no_late_data(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    run(D1)
    (add,) = actions(lake, 0, "add")
    write_commit(lake, 1, removal(add))
    write_commit(lake, 2, removal(add, dataChange=False))
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {}


def test_a_date_that_is_out_of_reach_stops_no_other_day(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    (add,) = actions(lake, 0, "add")
    odd = {"path": "x/far.parquet", "partitionValues": {"event_time": "+10000-01-01"}}
    write_commit(lake, 1, {"add": add | odd})
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"a": 1}
    lake.append(D1, "b")
    run(D1)
    assert lake.counts(D1) == {"a": 1, "b": 1}


def test_a_damaged_checkpoint_of_the_counts_hides_nothing_that_is_recorded(lake: Lake, run: Run) -> None:
    lake.append(D1, "a")
    run(D1)
    expected = lake.open_counts().all_recorded()
    counts = lake.open_counts()
    lake.append(D1, "b")
    DeltaTable(lake.counts_uri).create_checkpoint()
    checkpoint = next(Path(lake.counts_uri).glob("_delta_log/*.checkpoint.parquet"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert counts.all_recorded() == expected
