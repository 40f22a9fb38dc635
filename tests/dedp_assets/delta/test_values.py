"""Partition values are the same in a commit and in a snapshot, however a writer spells them."""

import os
from pathlib import Path

import pytest

from dedp_assets.delta.log import DeltaLog
from tests.dedp_assets.delta.tables import FIRST, SECOND, Table, days_changed, followed

STRANGE_VALUES = ["a b%:/=é", "100%25", "", "not-a-date", "2024-1-2", "../up", "a=b/c"]


def test_values_that_are_encoded_in_paths_are_the_same_in_the_log_and_in_a_snapshot(table: Table) -> None:
    for value in STRANGE_VALUES:
        table.append(value)
    table.delta.create_checkpoint()
    snapshot = table.log.snapshot()
    assert set(snapshot.files) == {value for commit in table.commits() for value in commit.changes}
    assert set(snapshot.files) == set(STRANGE_VALUES)
    assert followed(table) == snapshot.fingerprints()
    assert sorted(file for files in snapshot.files.values() for file in files) == sorted(table.delta.file_uris())
    assert all(os.path.exists(file) for files in snapshot.files.values() for file in files)


ODD_DATES = {
    "2024-1-1": FIRST,
    " 2024-01-01": FIRST,
    "+2024-01-01": FIRST,
    "24-01-01": "0024-01-01",
    "9999-12-31": "9999-12-31",
    "+10000-01-01": "+10000-01-01",
    "+12345-02-03": "+12345-02-03",
    "+200000-02-03": "+200000-02-03",
    "-200000-02-03": "-200000-02-03",
    "0000-01-01": "0000-01-01",
    "-0001-01-01": "-0001-01-01",
    "": "",
}


@pytest.mark.parametrize(("written", "meant"), ODD_DATES.items())
def test_a_date_is_what_deltalake_takes_it_for_in_a_commit_and_in_a_snapshot(
    tmp_path: Path, written: str, meant: str
) -> None:
    table = Table(tmp_path / "devices", "date")
    table.append(SECOND)
    (add,) = table.actions(0, "add")
    table.write_commit(1, {"add": add | {"path": "x/odd.parquet", "partitionValues": {"event_time": written}}})
    assert set(table.log.snapshot().files) == {meant, SECOND}
    assert followed(table) == table.log.snapshot().fingerprints()
    # Also by a log that has not seen what type the column has.
    assert [days_changed(commit) for commit in DeltaLog(table.uri).commits(0)] == [[meant]]


def test_a_text_that_looks_like_a_date_is_itself(table: Table) -> None:
    table.append(SECOND)
    (add,) = table.actions(0, "add")
    table.write_commit(1, {"add": add | {"path": "x/odd.parquet", "partitionValues": {"event_time": "2024-1-1"}}})
    assert set(table.log.snapshot().files) == {"2024-1-1", SECOND}
    assert [days_changed(commit) for commit in DeltaLog(table.uri).commits(0)] == [["2024-1-1"]]


def test_a_file_without_a_partition_value_belongs_to_none_whatever_its_folder_is_called(table: Table) -> None:
    table.append(SECOND)
    (add,) = table.actions(0, "add")
    table.write_commit(1, {"add": add | {"path": f"event_time={FIRST}/x.parquet", "partitionValues": {}}})
    assert set(table.log.snapshot().files) == {"", SECOND}
    assert followed(table) == table.log.snapshot().fingerprints()
