"""What keeps us from reading or writing a Delta table, said for people: one class for each kind of problem.

`supported` decides which tables we refuse. `damage` finds out what is wrong with a damaged log.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError

from dedp_assets.errors import DedpError, PermanentError, TransientError
from dedp_assets.resources.object_store import reason

_LONGEST_REASON = 300


class TableProblem(DedpError):
    """A Delta table can't be followed, read or written. The message names the table, the cause, and what to do.

    Raise one of the classes below: each says whether the problem may pass.
    """


class TableMissing(TableProblem, PermanentError):
    """There is no Delta table at this place."""

    is_a_wait = True


class UnsupportedTable(TableProblem, PermanentError):
    """The table needs more of its reader than we can do. Its Parquet files, read one by one, would give wrong rows."""


class DamagedTable(TableProblem, PermanentError):
    """The log, or a file that it names, is damaged. Whoever writes the table has to repair it."""


class LogIncomplete(TableProblem, PermanentError):
    """The log does not tell what changed. Compare snapshots instead."""


class LogCleaned(LogIncomplete):
    """The commits that come next were removed from the log.

    Attributes:
        oldest: the first later version whose commit is still in the log, or None if there is none.
    """

    def __init__(self, message: str, oldest: int | None) -> None:
        super().__init__(message)
        self.oldest = oldest


class CommitUnreadable(TableProblem, TransientError):
    """A commit's file is not complete yet, or it is damaged. Try again later."""


class TableUnreachable(TableProblem, TransientError):
    """The table's folder or object store did not answer, or refused access."""


class TableReplaced(TableProblem, TransientError):
    """Somebody made the table anew while we read it. Read it again."""


def missing(uri: str) -> TableMissing:
    """The problem that there is no table at `uri`."""
    return TableMissing(f"there is no Delta table at {uri}")


def unreachable(uri: str, error: Exception, *, can_not_be: str = "read") -> TableUnreachable:
    """The problem that a file, a folder or an object store can't be used.

    Args:
        uri: the place that was used.
        error: what the system or delta-rs said.
        can_not_be: what was tried, for the message: "read" or "written".
    """
    if uri.startswith("file://"):  # as deltalake names a folder
        uri = unquote(uri.removeprefix("file://"))
    what = "the bucket, the credentials and the network" if "://" in uri else "the folder and its rights"
    return TableUnreachable(f"{uri} can't be {can_not_be}: {short_reason(error)}; check {what}")


@contextmanager
def named_problems(uri: str, can_not_be: str = "read") -> Iterator[None]:
    """Turn what deltalake, Arrow and the object store raise in the block into a TableProblem.

    Use it around our own tables. A table of others is opened by `DeltaLog`, which looks for the cause.

    Args:
        uri: the table that the block works with.
        can_not_be: what the block does, for the message: "read" or "written".

    Raises:
        DamagedTable: a file of the table is not what its name says.
        TableUnreachable: any other error of these libraries.
        CommitFailedError: as deltalake raised it, because the caller has to answer it.
    """
    try:
        yield
    except CommitFailedError:
        raise
    except pa.ArrowInvalid as error:
        raise DamagedTable(
            f"{uri} can't be {can_not_be}: {short_reason(error)}; put the table back from a backup, or remove it to "
            "have it made anew"
        ) from error
    except (DeltaError, OSError) as error:
        raise unreachable(uri, error, can_not_be=can_not_be) from error


def short_reason(error: Exception) -> str:
    """Why delta-rs failed, in one line, without the stack trace and internal values that it may add."""
    text = reason(error).split(": 0: <unknown>")[0].split(": ParsedLogPath")[0]
    if len(text) <= _LONGEST_REASON:
        return text
    # What was tried is at the beginning, and the cause, such as "Connection refused", at the end.
    return f"{text[: _LONGEST_REASON // 2]}...{text[-_LONGEST_REASON // 2 :]}"
