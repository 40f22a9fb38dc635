"""Old commits are removed from a log. We notice that we missed some, and don't mistake it for the end of the log."""

from pathlib import Path

import pytest

from dedp_assets.delta import log, log_files
from dedp_assets.delta.commits import fingerprint_of
from dedp_assets.delta.problems import LogCleaned
from tests.dedp_assets.delta.tables import FIRST, SECOND, Table, days_changed


def cleaned(table: Table, commits: int = 6, checkpoint_at: int = 4) -> None:
    """A table whose commits before a checkpoint are cleaned up."""
    for version in range(commits):
        table.append(FIRST)
        if version == checkpoint_at:
            table.delta.create_checkpoint()
    table.forget_commits(*range(checkpoint_at))


@pytest.mark.parametrize("after", [-1, 0, 1, 2])
def test_commits_that_were_cleaned_up_are_missed(table: Table, after: int) -> None:
    cleaned(table)
    with pytest.raises(
        LogCleaned, match=f"commit {after + 1} was removed .* the next commit that is left is 4"
    ) as raised:
        table.commits(after)
    assert raised.value.oldest == 4


def test_read_back_it_leads_to_what_each_partition_consisted_of(table: Table) -> None:
    cleaned(table)
    files = table.log.snapshot().logged_files(FIRST)
    for commit in table.log.commits_back(5, after=-1):
        assert table.log.snapshot(commit.version).fingerprint(FIRST) == fingerprint_of(files)
        files = commit.files_before(FIRST, files)
    assert commit.version == 4
    assert [commit.version for commit in table.log.commits_back(5, after=4)] == [5]
    assert [*table.log.commits_back(5, after=5)] == []


def test_a_log_that_delta_rs_cleaned_up_itself_is_missed(table: Table) -> None:
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


def test_a_log_that_was_cleaned_up_to_where_we_are_has_nothing_new(table: Table) -> None:
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
def test_a_table_of_which_only_a_checkpoint_is_left_has_lost_its_log(table: Table, after: int, hint: bool) -> None:
    cleaned(table, commits=5, checkpoint_at=4)
    table.forget_commits(4)
    if not hint:
        (Path(table.uri) / "_delta_log" / "_last_checkpoint").unlink()
    with pytest.raises(LogCleaned, match="no later commit is left") as raised:
        table.commits(after)
    assert raised.value.oldest is None


@pytest.mark.parametrize("hint", [None, "", "{", "null", '{"version":"x"}', '{"version":1}', '{"size":3}'])
def test_the_hint_at_the_last_checkpoint_may_be_missing_old_or_broken(table: Table, hint: str | None) -> None:
    cleaned(table)
    file = Path(table.uri) / "_delta_log" / "_last_checkpoint"
    file.unlink()
    if hint is not None:
        file.write_text(hint)
    with pytest.raises(LogCleaned):
        table.commits(2)
    assert [commit.version for commit in table.commits(3)] == [4, 5]


def test_a_gap_right_after_a_commit_that_is_there_is_seen_by_the_checkpoint(table: Table) -> None:
    cleaned(table, checkpoint_at=4)
    # A cleanup by the files' times, which a copy of the folder has mixed up.
    table.write_commit(2, {"commitInfo": {}})
    with pytest.raises(LogCleaned):
        table.commits(2)


def test_a_commit_that_lands_while_we_look_is_not_taken_for_one_cleaned_up(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        table.append(FIRST)
    hidden = table.commit_file(1).rename(Path(table.uri) / "later")
    last_checkpoint = log_files.last_checkpoint

    def meanwhile(files: log_files.Files) -> int | None:
        hidden.rename(table.commit_file(1))
        table.delta.create_checkpoint()
        return last_checkpoint(files)

    monkeypatch.setattr(log, "last_checkpoint", meanwhile)
    commits = table.log.commits(0)
    assert next(commits).version == 1
