"""What is wrong with a log that deltalake can't read, for people: where, what was expected, what to do.

deltalake says why it fails, not in which file. That is found here, by reading the commits that it had to read.
"""

import re
from typing import Any, NamedTuple

from dedp_assets.delta.actions import actions_of
from dedp_assets.delta.log_files import LOG, Files, LogNames, commit_file
from dedp_assets.delta.problems import TableProblem, UnsupportedTable


def damage(files: Files, log: LogNames, latest: int, hint: int | None, why: str, partition_column: str) -> TableProblem:
    """The problem to raise for a log that can't be read as of version `latest`.

    Args:
        files: those of the table's folder.
        log: the names in its log.
        latest: the version that was wanted.
        hint: the version of the last checkpoint, by the hint at it; None without a hint.
        why: deltalake's own reason.
        partition_column: its name.
    """
    uri = files.uri
    checkpoint = next(iter(log.checkpoints_up_to(latest)), None)
    after = -1 if checkpoint is None else checkpoint
    if missing := log.missing(after, latest):
        return _gap(uri, missing, latest)
    read = _read_commits(files, range(after + 1, latest + 1))
    if read.damaged is not None:
        return TableProblem(
            f"{_unread(uri, why)}; look at {read.damaged}: it is damaged, or not whole yet. If it stays so, its "
            "writer has to repair it"
        )
    if "protocol action" in why:
        return _protocol(uri, read, why)
    if "parse value" in why:
        return TableProblem(
            f"{uri}: {why}: its partition column {partition_column} is of type date, and a file has that "
            f"value in {uri}/{LOG}; its writer has to remove the file, or add it with a date such as 2024-01-31"
        )
    if re.search("no .*(protocol|metadata)", why, re.IGNORECASE):
        return TableProblem(
            f"{uri}: its log does not say what the table is ({why}); expected protocol and metaData in "
            f"{uri}/{commit_file(0)}: put that file back from a backup, or make the table anew"
        )
    if checkpoint is not None or hint is not None:
        parts = [] if checkpoint is None else log.parts(checkpoint)
        return _checkpoint(uri, [*parts, *(["_last_checkpoint"] if hint is not None else [])], why)
    return TableProblem(f"{_unread(uri, why)}; look at {uri}/{LOG}")


def _unread(uri: str, why: str) -> str:
    return f"{uri}: deltalake can't read the table's log ({why})"


def _gap(uri: str, missing: list[int], latest: int) -> TableProblem:
    """Commits between the last checkpoint, or the beginning, and the latest one are not there."""
    is_row = len(missing) == missing[-1] - missing[0] + 1
    one = f"commit {missing[0]} is" if len(missing) == 1 else f"the commits {missing[0]} to {missing[-1]} are"
    which = one if is_row else f"{len(missing)} of the commits {missing[0]} to {missing[-1]} are"
    return TableProblem(
        f"{uri}: its log has a gap: {which} not there, and no checkpoint after that; the latest is "
        f"{latest}. Put back {uri}/{commit_file(missing[0])} from a backup, or make the table anew"
    )


class _Read(NamedTuple):
    """What commits say. damaged: the first file that is; else which one states the protocol, and its reader version."""

    damaged: str | None
    protocol_file: str = ""
    reader: Any = None


def _read_commits(files: Files, versions: range) -> _Read:
    protocol_file, reader = "", None
    for version in versions:
        file = f"{files.uri}/{commit_file(version)}"
        try:
            for kind, action in actions_of(files.read(commit_file(version)) or b""):
                if kind == "protocol":
                    protocol_file, reader = file, action.get("minReaderVersion")
                elif kind in ("add", "remove"):
                    action["path"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return _Read(damaged=file)
    return _Read(None, protocol_file, reader)


def _protocol(uri: str, read: _Read, why: str) -> TableProblem:
    """deltalake does not accept the protocol that the log states."""
    if isinstance(read.reader, int) and read.reader > 3:
        return UnsupportedTable(
            f"{uri}: to read this table takes version {read.reader} of the protocol, as {read.protocol_file} says, "
            "which is not supported; write it without what needs that"
        )
    return TableProblem(
        f"{uri}: its protocol contradicts itself ({why}) in {read.protocol_file or f'{uri}/{LOG}'}; expected reader "
        f"features with minReaderVersion 3, and only then (found: {read.reader}); its writer has to repair that"
    )


def _checkpoint(uri: str, names: list[str], why: str) -> TableProblem:
    """All commits after the last checkpoint are whole: it is the checkpoint, or the hint at it."""
    files = ", ".join(f"{uri}/{LOG}/{name}" for name in names)
    return TableProblem(
        f"{_unread(uri, why)}, and not all commits before are there to do without the checkpoint; remove {files}, and "
        "put back what comes before it, as from a backup"
    )
