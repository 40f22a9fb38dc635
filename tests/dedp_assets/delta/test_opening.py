"""A table is read although its checkpoints, or the hint at them, are damaged; a damaged log is named."""

from pathlib import Path

import pytest

from dedp_assets.delta.problems import TableProblem
from tests.dedp_assets.delta.tables import FIRST, Table


def test_a_damaged_log_is_no_reason_for_a_wrong_snapshot(table: Table) -> None:
    table.append(FIRST)
    table.commit_file(1).write_text('{"add":{"pa')
    with pytest.raises(
        TableProblem, match=f"{table.uri}: deltalake can't read the table's log .*; look at .*_delta_log"
    ):
        table.log.snapshot()
    assert table.log.snapshot(0).version == 0


def log_file(table: Table, name: str) -> Path:
    return Path(table.uri) / "_delta_log" / name


def damage(table: Table, version: int) -> Path:
    file = log_file(table, f"{version:020}.checkpoint.parquet")
    file.write_bytes(file.read_bytes()[:100])
    return file


@pytest.mark.parametrize("hint", [3, 5, 50])
@pytest.mark.parametrize("version", [None, 6, 2])
def test_a_hint_at_a_checkpoint_that_is_not_there_keeps_nobody_from_whole_commits(
    table: Table, hint: int, version: int | None
) -> None:
    for _ in range(7):
        table.append(FIRST)
    expected = table.log.snapshot(version)
    log_file(table, "_last_checkpoint").write_text(f'{{"version":{hint},"size":3}}')
    assert table.log.snapshot(version) == expected
    assert table.commits(6) == []
    assert [commit.version for commit in table.commits(4)] == [5, 6]


@pytest.mark.parametrize("hint", [True, False])
def test_a_damaged_checkpoint_keeps_nobody_from_whole_commits(table: Table, hint: bool) -> None:
    for number in range(7):
        table.append(FIRST)
        if number in (3, 5):
            table.delta.create_checkpoint()
    expected = table.log.snapshot()
    damage(table, 5)
    if not hint:
        log_file(table, "_last_checkpoint").unlink()
    assert table.log.snapshot() == expected
    # An older checkpoint serves as well as the commits before it.
    table.forget_commits(0, 1)
    assert table.log.snapshot() == expected


def test_a_damaged_checkpoint_without_the_commits_before_it_is_named_as_what_to_remove(table: Table) -> None:
    for _ in range(4):
        table.append(FIRST)
    table.delta.create_checkpoint()
    file = damage(table, 3)
    table.forget_commits(0)
    with pytest.raises(TableProblem, match=rf"Corrupt footer.*remove {file}, .*/_last_checkpoint") as raised:
        table.log.snapshot()
    assert "\n" not in str(raised.value)


def test_a_gap_in_the_log_is_said_in_one_line_with_the_file_to_put_back(table: Table) -> None:
    for _ in range(5):
        table.append(FIRST)
    table.forget_commits(2)
    message = rf"its log has a gap: commit 2 is missing.*latest version is 4. Put back {table.commit_file(2)} from"
    with pytest.raises(TableProblem, match=message) as raised:
        table.log.snapshot()
    assert len(str(raised.value)) < 600
    assert "ParsedLogPath" not in str(raised.value)
    table.forget_commits(0, 1)
    with pytest.raises(TableProblem, match="the commits 0 to 2 are missing"):
        table.log.snapshot()


@pytest.mark.parametrize("missing", ["protocol", "metaData"])
def test_a_log_that_does_not_say_what_the_table_is_is_named(table: Table, missing: str) -> None:
    table.append(FIRST)
    lines = table.commit_file(0).read_text().splitlines()
    table.commit_file(0).write_text("\n".join(line for line in lines if missing not in line))
    message = f"its log does not say what the table is .*expected protocol and metaData in {table.commit_file(0)}"
    with pytest.raises(TableProblem, match=message) as raised:
        table.log.snapshot()
    assert "feature" not in str(raised.value)


def test_a_protocol_that_contradicts_itself_is_named_with_its_commit(table: Table) -> None:
    table.append(FIRST)
    features = {"readerFeatures": ["x"], "writerFeatures": ["x"]}
    table.write_commit(1, {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2} | features})
    message = rf"its protocol contradicts itself .*{table.commit_file(1)}; expected reader features only .*found: 1"
    with pytest.raises(TableProblem, match=message) as raised:
        table.log.snapshot()
    assert "write it without" not in str(raised.value)


def test_a_value_that_is_no_date_in_a_date_column_is_named(tmp_path: Path) -> None:
    table = Table(tmp_path / "devices", "date")
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(1, {"add": add | {"partitionValues": {"event_time": "someday"}}})
    with pytest.raises(
        TableProblem, match="'someday' as 'date': its partition column event_time is of type date"
    ) as raised:
        table.log.snapshot()
    assert "\n" not in str(raised.value)
