"""What keeps us from following a table, said for people: each kind of problem, and the parts their messages share.

Which tables are refused is in `supported`, what is wrong with a damaged log in `damage`.
"""

from dedp_assets.errors import DedpError
from dedp_assets.resources.object_store import reason

_LONGEST_REASON = 300


class TableProblem(DedpError):
    """What keeps us from following a table, for people: which table, what was found, what to do."""


class TableMissing(TableProblem):
    """There is no Delta table here."""


class UnsupportedTable(TableProblem):
    """Reading this table's Parquet files one by one would give wrong rows, or no partition to count by."""


class LogIncomplete(TableProblem):
    """The log does not tell what changed: compare snapshots."""


class LogCleaned(LogIncomplete):
    """Commits that come next are not there any more. `oldest`: the first one that is, or None for none."""

    def __init__(self, message: str, oldest: int | None) -> None:
        super().__init__(message)
        self.oldest = oldest


class CommitUnreadable(TableProblem):
    """A commit's file is not, or not yet, what a writer meant to write: try again later."""


def missing(uri: str) -> TableMissing:
    """The problem that there is no table at `uri`."""
    return TableMissing(f"there is no Delta table at {uri}")


def unreachable(uri: str, error: OSError) -> TableProblem:
    """The problem that a file or folder, or the store that it is in, can't be read."""
    what = "the bucket, the credentials and the network" if "://" in uri else "the folder and its rights"
    return TableProblem(f"{uri} can't be read: {short_reason(error)}; check {what}")


def short_reason(error: Exception) -> str:
    """Why delta-rs failed, in one line, without the stack and the insides that it may add."""
    text = reason(error).split(": 0: <unknown>")[0].split(": ParsedLogPath")[0]
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
