"""Opens a table with deltalake, even if its checkpoints, or the hint at the last of them, are damaged.

Where that fails although there is a log, `damage` says what is wrong with it.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from dedp_assets.delta.damage import describe_damage
from dedp_assets.delta.log_files import LOG, Files, LogNames, last_checkpoint
from dedp_assets.delta.problems import TableMissing, UnsupportedTable, missing, short_reason, unreachable


class _NotOpened(Exception):
    def __init__(self, error: DeltaError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def opened(
    files: Files, storage_options: dict[str, str] | None, version: int | None, partition_column: str
) -> Iterator[DeltaTable]:
    """The table as of a version. Use it only inside the `with` block.

    Args:
        files: the files in the table's folder.
        storage_options: delta-rs' options for that folder.
        version: the version to open, or None for the latest.
        partition_column: the name of the partition column, for the message about an unreadable value in it.

    Raises:
        TableMissing: there is no table.
        UnsupportedTable: deltalake can't read such a table.
        TableUnreachable: the folder or the store can't be read.
        DamagedTable, CommitUnreadable: the log is damaged, or a commit is not complete yet.
    """
    with ExitStack() as stack:
        error = None
        try:
            table = _open(files.uri, storage_options, version)
        except _NotOpened as problem:
            error = problem.error
        if error is not None:
            table = _opened_otherwise(files, storage_options, version, partition_column, error, stack)
        yield table


def _open(uri: str, storage_options: dict[str, str] | None, version: int | None, copy: str | None = None) -> DeltaTable:
    """The table at `uri`, or the one in the folder `copy`, which has a copy of its log."""
    try:
        if copy is None:
            return DeltaTable(uri, version=version, storage_options=storage_options)
        return DeltaTable(copy, version=version)
    except TableNotFoundError:
        raise missing(uri) from None
    except OSError as error:
        raise unreachable(uri, error) from error
    except DeltaError as error:
        raise _NotOpened(error) from None


def _opened_otherwise(
    files: Files,
    storage_options: dict[str, str] | None,
    version: int | None,
    partition_column: str,
    error: DeltaError,
    stack: ExitStack,
) -> DeltaTable:
    """The table, opened without its checkpoints or the hint at the last: these may be damaged while commits are intact.

    Args:
        error: what deltalake said when it opened the table in the usual way.
        stack: keeps the copy of the log, if one is needed, until the table is closed.
    """
    why = short_reason(error)
    if re.search("unsupported|not supported|catalog.managed|unknown.*version", why, re.IGNORECASE):
        raise UnsupportedTable(
            f"{files.uri}: deltalake can't read this table ({why}); write it without that feature"
        ) from None
    log = LogNames.of(files.names(LOG))
    if log.latest is None:
        raise missing(files.uri) from None
    latest = log.latest if version is None else version
    hint = last_checkpoint(files)
    table = _opened_around_hint(files.uri, storage_options, latest, hint) or _opened_from_copy(
        files, storage_options, log, latest, stack
    )
    if table is None:
        raise describe_damage(files, log, latest, hint, why, partition_column) from None
    return table


def _opened_around_hint(
    uri: str, storage_options: dict[str, str] | None, latest: int, hint: int | None
) -> DeltaTable | None:
    """The table by its version, which needs no hint; if that fails, from a version before the hint's and then on."""
    for explicit, then in ((latest, None), ((hint or 0) - 1, latest)) if hint is not None else ():
        with suppress(_NotOpened, DeltaError, TableMissing):
            if explicit >= 0:
                table = _open(uri, storage_options, explicit)
                if then is not None:
                    table.load_as_version(then)
                return table
    return None


def _opened_from_copy(
    files: Files, storage_options: dict[str, str] | None, log: LogNames, latest: int, stack: ExitStack
) -> DeltaTable | None:
    """The table from a copy of one checkpoint and the commits after it: the newest checkpoint that can be read."""
    for checkpoint in [*log.checkpoints_up_to(latest), None] if log.checkpoints else ():
        names = log.whole_from(checkpoint, latest)
        with suppress(_NotOpened, TableMissing):
            if names:
                return _open(files.uri, storage_options, latest, copy=_copy_of_log(files, names, stack))
    return None


def _copy_of_log(files: Files, names: list[str], stack: ExitStack) -> str:
    """A folder with only these files of the log. It is removed when the stack is closed."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dedp-log-"))
    os.mkdir(f"{folder}/{LOG}")
    for name, content in zip(names, files.read_all([f"{LOG}/{name}" for name in names]), strict=True):
        if content is not None:
            with open(f"{folder}/{LOG}/{name}", "wb") as file:
                file.write(content)
    return folder
