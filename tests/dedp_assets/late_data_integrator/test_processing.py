"""Counts and what they reflect, on real Delta tables: exactly once, whoever else writes when."""

import json
import shutil
import threading
from datetime import datetime, timezone
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from dedp_assets.delta.commits import hash_63
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import UnsupportedTable
from dedp_assets.late_data_integrator.device_counts import SCHEMA, InputVersion, recorded_input_versions
from dedp_assets.late_data_integrator.processing import process

D1, D2, D3 = "2024-01-01", "2024-01-02", "2024-01-03"


@pytest.fixture
def run(lake, counting):
    """Process days; `while_counting` is called between reading the input and writing the result, each time."""

    def run(*days, while_counting=lambda: None):
        def count(snapshot, wanted):
            table = counting(snapshot, wanted)
            while_counting()
            return table

        return process(days, lake.log, lake.open_counts, count)

    return run


def test_the_first_run_of_a_day_counts_it_and_records_the_version_it_read(lake, run):
    lake.append(D1, "a", "a", "b")
    lake.append(D2, "c")
    (done,) = run(D1)
    assert (done.written, done.version, done.rows_before, done.rows_after, done.late) == (True, 1, 0, 3, None)
    assert lake.counts(D1) == {"a": 2, "b": 1}
    assert lake.counts(D2) == {}


def test_a_day_that_has_not_changed_is_not_written_again(lake, run):
    lake.append(D1, "a")
    run(D1)
    lake.append(D2, "b")
    written = lake.versions_written()
    (done,) = run(D1)
    assert not done.written
    assert done.version == 0
    assert lake.versions_written() == written


def test_late_data_is_counted_and_the_commits_that_brought_it_are_named(lake, run):
    lake.append(D1, "a")
    run(D1)
    versions = (lake.append(D1, "b"), lake.append(D1, "b"))
    (done,) = run(D1)
    assert (done.rows_before, done.rows_after) == (1, 3)
    assert done.late.versions == versions
    assert abs(datetime.now(timezone.utc) - done.late.at).total_seconds() < 600
    assert lake.counts(D1) == {"a": 1, "b": 2}


@pytest.mark.parametrize("change", ["overwrite", "delete some", "delete all", "update", "restore"])
def test_every_kind_of_change_is_followed(lake, run, change):
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


def test_compaction_is_no_change(lake, run):
    lake.append(D1, "a")
    lake.append(D1, "b")
    run(D1)
    lake.devices.optimize.compact()
    (done,) = run(D1)
    assert not done.written


def test_data_that_lands_while_a_day_is_counted_is_late_afterwards(lake, run):
    """The original records the table's version at the end of the run, and never sees this commit."""
    lake.append(D1, "a")
    run(D1, while_counting=lambda: lake.append(D1, "b"))
    assert lake.counts(D1) == {"a": 1}
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"a": 1, "b": 1}


def test_several_days_are_one_commit_and_each_records_its_own(lake, run):
    for day in (D1, D2, D3):
        lake.append(D1 if day == D3 else day, "a")
    run(D2)
    written = lake.versions_written()
    first, second, third = run(D1, D2, D3)
    assert (first.written, second.written, third.written) == (True, False, True)
    assert (first.version, second.version, third.version) == (2, 2, 2)
    assert lake.versions_written() == written + 1
    assert lake.open_counts().recorded(str(lake.devices.metadata().id), D3).fingerprint == 0


def test_a_result_never_replaces_one_that_was_computed_from_newer_input(lake, run):
    lake.append(D1, "old")
    run(D2)  # so that the table of counts is there

    def overtaken():
        if lake.devices.version() == 0:
            lake.append(D1, "new")
            run(D1)

    (done,) = run(D1, while_counting=overtaken)
    assert not done.written
    assert lake.counts(D1) == {"old": 1, "new": 1}


def test_what_was_counted_is_not_counted_again_because_another_day_was_committed(lake, run):
    lake.append(D1, "a")
    lake.append(D2, "b")
    counted = []

    def another_day():
        counted.append(D1)
        run(D2)

    run(D1, while_counting=another_day)
    assert counted == [D1]
    assert (lake.counts(D1), lake.counts(D2)) == ({"a": 1}, {"b": 1})


@pytest.mark.parametrize("days", [[D1] * 6, [D1, D2, D3] * 2], ids=["one day", "three days"])
def test_runs_at_once_agree(lake, run, days):
    for day in (D1, D2, D3):
        lake.append(day, "a")
    together = threading.Barrier(len(days), timeout=60)
    outcomes = []

    def one(day):
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


def test_a_table_made_anew_under_the_same_path_is_a_new_input(lake, run):
    lake.append(D1, "a", "a")
    run(D1)
    shutil.rmtree(lake.devices_uri)
    lake.append(D1, "b")
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {"b": 1}


def test_where_the_log_has_been_cleaned_up_other_files_count_as_changed(lake, run):
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


def forget_commits(lake, *versions):
    lake.devices.create_checkpoint()
    for version in versions:
        (Path(lake.devices_uri) / "_delta_log" / f"{version:020}.json").unlink()


def test_a_day_that_is_older_than_the_log_makes_no_other_uncertain(lake, run):
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


def test_a_compacted_day_that_was_counted_before_the_log_begins_is_not_counted_again(lake, run):
    lake.append(D1, "a")
    lake.append(D1, "b")
    run(D1)
    lake.append(D2, "a")
    lake.append(D2, "b")
    forget_commits(lake, 0, 1, 2)
    lake.devices.optimize.compact()
    (done,) = run(D1)
    assert not done.written


def test_late_data_in_a_day_that_was_counted_before_the_log_begins_is_told_by_its_commits(lake, run):
    lake.append(D1, "a")
    run(D1)
    lake.append(D2, "a")
    forget_commits(lake, 0)
    late = lake.append(D1, "b")
    (done,) = run(D1)
    assert done.late.versions == (late,)


@pytest.mark.parametrize("commits_since", [0, 1, 2])
def test_a_table_put_back_from_a_backup_is_followed_however_far_it_has_gone_since(lake, run, tmp_path, commits_since):
    """Its versions come again, and stand for other commits: `lost` and what follows it are both version 1."""
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


def test_only_the_end_of_the_log_is_read(lake, run, monkeypatch):
    """As far back as to the commits that made a day late, and not to the version that was counted."""
    lake.append(D1, "a")
    run(D1)
    for _ in range(5):
        lake.append(D2, "a")
    lake.append(D1, "b")
    read = []
    commit = DeltaLog._commit
    monkeypatch.setattr(
        DeltaLog, "_commit", lambda log, version, content: read.append(version) or commit(log, version, content)
    )
    run(D1)
    assert read == [6]


def test_the_records_of_all_days_at_once_are_those_of_each(lake, run):
    for day in (D1, D2, D3):
        lake.append(day, "a")
    table_id = str(lake.devices.metadata().id)
    for _ in range(2):
        run(D1, D2)
        counts = lake.open_counts()
        assert counts.all_recorded() == {table_id: {day: counts.recorded(table_id, day) for day in (D1, D2)}}
        DeltaTable(lake.counts_uri).create_checkpoint()
        lake.append(D1, "b")


def vector_of_six_rows():
    # From the examples of Delta's protocol: rows 3, 4, 7, 11, 18 and 29 of some file, inline.
    inline = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"
    return {"storageType": "i", "pathOrInlineDv": inline, "sizeInBytes": 40, "cardinality": 6}


def actions(lake, version, kind):
    lines = commit_file(lake, version).read_text().splitlines()
    return [found[kind] for line in lines if kind in (found := json.loads(line))]


def commit_file(lake, version):
    return Path(lake.devices_uri) / "_delta_log" / f"{version:020}.json"


def write_commit(lake, version, *actions):
    commit_file(lake, version).write_text("".join(f"{json.dumps(action)}\n" for action in actions))


def removal(add, **changed):
    return {"remove": {name: add[name] for name in ("path", "partitionValues")} | {"dataChange": True} | changed}


def with_vectors():
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    return {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7} | features}


def put_file(lake, path, *names):
    """A Parquet file in the table's folder, without a commit; returns its size."""
    file = Path(lake.devices_uri) / path
    pq.write_table(lake.rows(D1, *names).drop_columns(["event_time"]), file)
    return file.stat().st_size


@pytest.mark.parametrize("looked_between", [False, True])
def test_rows_that_were_deleted_by_a_vector_and_written_out_since_are_counted_without_them(lake, run, looked_between):
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
    assert done.late.versions == (2,)
    assert lake.counts(D1) == {"a": 24}
    (again,) = run(D1)
    assert not again.written


def test_a_table_that_was_another_one_meanwhile_is_counted_again(lake, run):
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


def test_a_backup_of_a_table_that_was_made_anew_meanwhile_is_counted_again(lake, run, tmp_path):
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
def test_what_is_recorded_holds_for_the_table_that_was_counted_last(transactions, expected):
    assert recorded_input_versions(transactions) == expected


def as_recorded_before(lake, table_id, day, version, fingerprint):
    """What counts recorded of a day before they said from which table they were, and nothing more."""
    counts = lake.open_counts()
    pairs = {f"lake/devices/{table_id}/{day}": version, f"lake/devices/{table_id}/{day}/files": fingerprint}
    write_deltalake(
        counts.table,
        SCHEMA.empty_table(),
        mode="append",
        commit_properties=CommitProperties(app_transactions=[Transaction(*pair) for pair in pairs.items()]),
    )


def test_what_was_recorded_before_it_was_said_of_which_table_is_relied_on_if_there_was_only_one(lake, run):
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
def test_a_file_that_one_commit_removes_and_adds_counts(lake, run, first):
    lake.append(D1, "a", "a")
    run(D1)
    (add,) = actions(lake, 0, "add")
    size = put_file(lake, add["path"], "b", "b", "b")
    both = [removal(add), {"add": add | {"size": size}}]
    write_commit(lake, 1, *(both if first == "remove" else both[::-1]))
    run(D1)
    assert lake.counts(D1) == {"b": 3}


def test_a_file_rewritten_in_place_counts_anew(lake, run):
    lake.append(D1, "a", "a")
    lake.append(D2, "a")
    run(D1, D2)
    (add,) = actions(lake, 0, "add")
    size = put_file(lake, add["path"], "b", "b", "b")
    write_commit(lake, 2, {"add": add | {"size": size, "modificationTime": add["modificationTime"] + 1}})
    first, second = run(D1, D2)
    assert first.late.versions == (2,)
    assert not second.written
    assert lake.counts(D1) == {"b": 3}


def test_new_statistics_of_a_file_are_no_change_even_with_another_time(lake, run):
    lake.append(D1, "a")
    run(D1)
    (add,) = actions(lake, 0, "add")
    write_commit(lake, 1, {"add": add | {"dataChange": False, "modificationTime": add["modificationTime"] + 1}})
    (done,) = run(D1)
    assert not done.written


def test_a_file_rewritten_in_place_counts_anew_where_the_log_does_not_tell(lake, run):
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


def test_a_file_put_back_in_place_from_a_backup_counts_anew(lake, run, tmp_path):
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


def test_a_compaction_that_also_names_a_file_it_keeps_hides_no_late_data(lake, run):
    """Read back, it looks as if that file had not been there before: as if the day had been what was counted."""
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


def test_a_file_that_is_removed_twice_hides_no_late_data(lake, run):
    lake.append(D1, "a")
    run(D1)
    (add,) = actions(lake, 0, "add")
    write_commit(lake, 1, removal(add))
    write_commit(lake, 2, removal(add, dataChange=False))
    (done,) = run(D1)
    assert done.written
    assert lake.counts(D1) == {}


def test_a_date_that_is_out_of_reach_stops_no_other_day(lake, run):
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


def test_a_damaged_checkpoint_of_the_counts_hides_nothing_that_is_recorded(lake, run):
    lake.append(D1, "a")
    run(D1)
    expected = lake.open_counts().all_recorded()
    counts = lake.open_counts()
    lake.append(D1, "b")
    DeltaTable(lake.counts_uri).create_checkpoint()
    checkpoint = next(Path(lake.counts_uri).glob("_delta_log/*.checkpoint.parquet"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert counts.all_recorded() == expected
