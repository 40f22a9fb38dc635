"""A table in an object store is followed as one in a folder is."""

import json

import pytest

from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import (
    LogCleaned,
    TableMissing,
    TableProblem,
)
from dedp_assets.resources.object_store import read_text, storage_options, write_text
from tests.dedp_assets.delta.tables import FIRST, Table, days_changed, followed, removal


def test_an_object_store_is_followed_in_the_same_way(s3_bucket: str) -> None:
    table = Table(f"{s3_bucket}/lake/devices")
    with pytest.raises(TableMissing, match=f"there is no Delta table at {table.uri}"):
        table.commits()
    with pytest.raises(TableMissing, match=f"there is no Delta table at {table.uri}"):
        table.log.snapshot()
    for value in (FIRST, "a b%:/=é", None):
        table.append(value)
    assert [days_changed(commit) for commit in table.commits()] == [[FIRST], ["a b%:/=é"], [""]]
    assert table.commits(2) == []
    snapshot = table.log.snapshot()
    assert sorted(file for files in snapshot.files.values() for file in files) == sorted(table.delta.file_uris())
    assert followed(table) == snapshot.fingerprints()
    assert [table.log.mark(version) for version in (2, 3)] == [table.last_commit().mark, None]


def test_an_object_store_whose_log_was_cleaned_up_is_seen_to_be_so(s3_bucket: str) -> None:
    table = Table(f"{s3_bucket}/lake/devices")
    table.append(FIRST, configuration={"delta.logRetentionDuration": "interval 0 days"})
    for _ in range(2):
        table.append(FIRST)
    table.delta.create_checkpoint()
    table.delta.cleanup_metadata()
    with pytest.raises(LogCleaned, match="the next commit that is left is 2"):
        table.commits(0)
    assert table.commits(2) == []


def test_an_object_store_with_a_damaged_checkpoint_is_read_from_its_commits(s3_bucket: str) -> None:
    table = Table(f"{s3_bucket}/lake/devices")
    for _ in range(3):
        table.append(FIRST)
    expected = table.log.snapshot()
    table.delta.create_checkpoint()
    write_text(f"{table.uri}/_delta_log/{2:020}.checkpoint.parquet", "PAR1 and no more")
    assert table.log.snapshot() == expected


def test_a_file_that_one_commit_removes_and_adds_is_there_in_an_object_store(s3_bucket: str) -> None:
    table = Table(f"{s3_bucket}/lake/devices")
    table.append(FIRST)
    before = table.log.snapshot()
    lines = (read_text(f"{table.uri}/_delta_log/{0:020}.json") or "").splitlines()
    add = next(found["add"] for line in lines if "add" in (found := json.loads(line)))
    again = [removal(add, partitionValues=add["partitionValues"]), {"add": add}]
    write_text(f"{table.uri}/_delta_log/{1:020}.json", "\n".join(json.dumps(action) for action in again))
    assert table.log.snapshot().files == before.files


def test_a_bucket_that_is_not_there_is_named_in_one_line(s3_bucket: str) -> None:
    log = DeltaLog("s3://nobody/devices", storage_options("s3://nobody/devices"))
    for look in (log.snapshot, lambda: next(log.commits(-1))):
        with pytest.raises(TableProblem, match=r"s3://nobody/devices.* can't be read: .*check the bucket") as raised:
            look()
        assert "\n" not in str(raised.value)
        assert not isinstance(raised.value, TableMissing)
