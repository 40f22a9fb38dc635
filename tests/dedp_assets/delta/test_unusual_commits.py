"""Missing tables, half written commits, unusual paths, and the mark that tells a commit from any other."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dedp_assets.delta.problems import CommitUnreadable, TableMissing, TableProblem
from tests.dedp_assets.delta.tables import FIRST, SECOND, Table, days_changed, followed, removal


def write_notes(folder: Path) -> None:
    (folder / "_delta_log").mkdir(parents=True)
    (folder / "_delta_log" / "notes.txt").touch()


MISSING: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: None,
    "an empty folder": lambda folder: folder.mkdir(),
    "an empty log": lambda folder: (folder / "_delta_log").mkdir(parents=True),
    "a file": lambda folder: folder.touch(),
    "files without a log": lambda folder: (folder / "event_time=2024-01-01").mkdir(parents=True),
    "a log of something else": write_notes,
}


@pytest.mark.parametrize("make", MISSING.values(), ids=MISSING)
def test_where_there_is_no_table_that_is_said(table: Table, make: Callable[[Path], object]) -> None:
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
def test_half_a_commit_is_not_gone_beyond(table: Table, content: bytes) -> None:
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


def test_an_empty_commit_that_others_were_built_on_is_one_of_nothing(table: Table) -> None:
    table.append(FIRST)
    table.commit_file(1).touch()
    table.append(SECOND)
    assert [days_changed(commit) for commit in table.commits(0)] == [[], [SECOND]]


def test_a_commit_is_read_however_its_json_is_laid_out(table: Table) -> None:
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


def test_a_file_that_one_commit_removes_and_adds_is_there(table: Table) -> None:
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


def test_a_file_that_is_added_once_more_is_one_file_with_another_stamp(table: Table) -> None:
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
def test_a_path_is_the_file_that_deltalake_takes_it_for(table: Table, added: str, removed: str) -> None:
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
def test_an_absolute_path_inside_the_table_is_that_file(table: Table, scheme: str) -> None:
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    before = table.log.snapshot()
    absolute = add | {"path": f"{scheme}{table.uri}/{add['path']}"}
    table.write_commit(1, removal(add, partitionValues=add["partitionValues"]), {"add": absolute})
    snapshot = table.log.snapshot()
    assert snapshot.files == before.files
    assert all(os.path.exists(file) for files in snapshot.files.values() for file in files)
    assert followed(table) == snapshot.fingerprints() == before.fingerprints()


def test_a_mark_tells_a_commit_from_one_of_the_same_version_in_a_table_made_anew(table: Table) -> None:
    table.append(FIRST)
    before = table.log.mark(0)
    assert before == table.commits()[0].mark
    shutil.rmtree(table.uri)
    assert table.log.mark(0) is None
    table.append(FIRST)
    assert table.log.mark(0) == table.commits()[0].mark != before


def test_a_mark_tells_half_a_large_commit_from_the_whole_of_it(table: Table) -> None:
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    adds = [{"add": add | {"path": f"event_time={FIRST}/{number}.parquet"}} for number in range(1000)]
    table.write_commit(1, *adds[:-1])
    half = table.log.mark(1)
    assert table.commit_file(1).stat().st_size > 100_000
    table.write_commit(1, *adds)
    assert table.log.mark(1) == table.last_commit().mark != half


def test_a_folder_that_cannot_be_read_is_named(table: Table) -> None:
    Path(table.uri).mkdir()
    (Path(table.uri) / "_delta_log").symlink_to("_delta_log")
    message = f"{table.uri}/_delta_log/.*json can't be read: Too many levels of symbolic links; check the folder"
    with pytest.raises(TableProblem, match=message):
        table.commits()
