"""Finds out what is wrong with a log that deltalake can't read: where it is, what was expected, and what to do.

deltalake says why it fails, but not in which file. To find the file, we read the commits that it had to read.
"""

import re
from typing import Any, NamedTuple

from dedp_assets.delta.actions import actions_of
from dedp_assets.delta.log_files import LOG, Files, LogNames, commit_file
from dedp_assets.delta.problems import CommitUnreadable, DamagedTable, TableProblem, UnsupportedTable


def describe_damage(
    files: Files, log: LogNames, latest: int, hint: int | None, why: str, partition_column: str
) -> TableProblem:
    """The problem to raise for a log that deltalake can't read.

    Args:
        files: the files in the table's folder.
        log: the file names in the table's log.
        latest: the version that deltalake should have read.
        hint: the version that `_last_checkpoint` names, or None without such a file.
        why: the reason that deltalake gave.
        partition_column: the name of the partition column.
    """
    uri = files.uri
    checkpoint = next(iter(log.checkpoints_up_to(latest)), None)
    after = -1 if checkpoint is None else checkpoint
    if missing := log.missing(after, latest):
        return _gap(uri, missing, latest)
    read = _read_commits(files, range(after + 1, latest + 1))
    if read.damaged_file is not None:
        return CommitUnreadable(
            f"{_unread(uri, why)}; look at {read.damaged_file}: it is damaged, or not complete yet. If it stays so, "
            "its writer has to repair it"
        )
    if "protocol action" in why:
        return _protocol(uri, read, why)
    if "parse value" in why:
        return DamagedTable(
            f"{uri}: {why}: its partition column {partition_column} is of type date, and a file has that "
            f"value in {uri}/{LOG}; its writer has to remove the file, or add it with a date such as 2024-01-31"
        )
    if re.search("no .*(protocol|metadata)", why, re.IGNORECASE):
        return DamagedTable(
            f"{uri}: its log does not say what the table is ({why}); expected protocol and metaData in "
            f"{uri}/{commit_file(0)}: put that file back from a backup, or make the table anew"
        )
    if checkpoint is not None or hint is not None:
        parts = [] if checkpoint is None else log.parts(checkpoint)
        return _checkpoint(uri, [*parts, *(["_last_checkpoint"] if hint is not None else [])], why)
    return DamagedTable(f"{_unread(uri, why)}; look at {uri}/{LOG}")


def _unread(uri: str, why: str) -> str:
    return f"{uri}: deltalake can't read the table's log ({why})"


def _gap(uri: str, missing: list[int], latest: int) -> DamagedTable:
    """Commits between the last checkpoint, or the beginning, and the latest commit are missing."""
    is_consecutive = len(missing) == missing[-1] - missing[0] + 1
    one = f"commit {missing[0]} is" if len(missing) == 1 else f"the commits {missing[0]} to {missing[-1]} are"
    which = one if is_consecutive else f"{len(missing)} of the commits {missing[0]} to {missing[-1]} are"
    return DamagedTable(
        f"{uri}: its log has a gap: {which} missing, and there is no checkpoint after that; the latest version is "
        f"{latest}. Put back {uri}/{commit_file(missing[0])} from a backup, or make the table anew"
    )


class _Read(NamedTuple):
    """What the commits say.

    Attributes:
        damaged_file: the first commit that can't be parsed, or None.
        protocol_file: the last commit that states the protocol, or "".
        reader_version: the minReaderVersion that it states, whatever its type.
    """

    damaged_file: str | None
    protocol_file: str = ""
    reader_version: Any = None


def _read_commits(files: Files, versions: range) -> _Read:
    protocol_file, reader_version = "", None
    for version in versions:
        file = f"{files.uri}/{commit_file(version)}"
        try:
            for kind, action in actions_of(files.read(commit_file(version)) or b""):
                if kind == "protocol":
                    protocol_file, reader_version = file, action.get("minReaderVersion")
                elif kind in ("add", "remove"):
                    action["path"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return _Read(damaged_file=file)
    return _Read(None, protocol_file, reader_version)


def _protocol(uri: str, read: _Read, why: str) -> TableProblem:
    """deltalake does not accept the protocol that the log states."""
    if isinstance(read.reader_version, int) and read.reader_version > 3:
        return UnsupportedTable(
            f"{uri}: to read this table takes version {read.reader_version} of the protocol, as {read.protocol_file} "
            "says. That version is not supported; write it without the features that need it"
        )
    return DamagedTable(
        f"{uri}: its protocol contradicts itself ({why}) in {read.protocol_file or f'{uri}/{LOG}'}; expected reader "
        f"features only together with minReaderVersion 3 (found: {read.reader_version}); its writer has to repair that"
    )


def _checkpoint(uri: str, names: list[str], why: str) -> DamagedTable:
    """All commits after the last checkpoint are intact, so the checkpoint or the hint at it is damaged."""
    files = ", ".join(f"{uri}/{LOG}/{name}" for name in names)
    return DamagedTable(
        f"{_unread(uri, why)}, and some earlier commits are missing, so that the checkpoint is needed; remove {files}, "
        "and put the commits before it back from a backup"
    )
