"""Which partitions of a Delta table changed, read from its log; and what the table consists of now.

Delta writers leave `_delta_log/<version>.json` for each commit, with every file that it added and removed. Following
these costs one small file a commit, however old the table is; a snapshot costs a look at all that the table has.
Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.schema import PrimitiveType

from dedp_assets.resources.object_store import reason

LOG = "_delta_log"

_Found = TypeVar("_Found")

# Reader features that leave a table's files what they are to who opens them as plain Parquet. `deletionVectors` and
# `columnMapping` leave them so while they are not in use.
_HARMLESS_FEATURES = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "deletionVectors", "columnMapping"}

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_NULL = ""
_FINGERPRINTS = 2**63
_MARK_BYTES = 64 * 1024


class TableProblem(Exception):
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


@dataclass(frozen=True)
class PartitionChange:
    """What one commit did to one partition. Rows are None where the writer did not say."""

    files_added: int
    files_removed: int
    rows_added: int | None
    rows_removed: int | None


@dataclass(frozen=True)
class Commit:
    """One version of the table, by what it changed.

    timestamp: when it was committed (UTC), by the writer's clock.
    changes: by partition value as the log has it, "" for null; without files that were only moved about (compaction).
    fingerprint_changes: what to add to each partition's fingerprint, modulo 2**63; these with all files.
    table_id: the table's identity, where the commit states it.
    check_table: it changed what the table is, so `DeltaLog.snapshot` has to say whether we can still read it.
    mark: tells this commit's file from any other: see `DeltaLog.mark`.
    """

    version: int
    timestamp: datetime
    operation: str
    changes: dict[str, PartitionChange]
    fingerprint_changes: dict[str, int]
    table_id: str | None
    check_table: bool
    mark: str

    def fingerprint_before(self, partition: str, after: int) -> int:
        """The fingerprint that a partition had before this commit, by the one that it has after it."""
        return (after - self.fingerprint_changes.get(partition, 0)) % _FINGERPRINTS


@dataclass(frozen=True)
class Snapshot:
    """A version of the table, by its files: absolute URIs below `root`, by partition value, "" for null."""

    table_id: str
    version: int
    files: dict[str, tuple[str, ...]]
    root: str

    def fingerprint(self, partition: str) -> int:
        """Tells one set of files from another: 63 bits, in any order of the files; 0 for no files."""
        start = len(self.root) + 1
        return sum(_fingerprint(uri[start:]) for uri in self.files.get(partition, ())) % _FINGERPRINTS

    def fingerprints(self) -> dict[str, int]:
        """The fingerprint of every partition that has files."""
        return {partition: self.fingerprint(partition) for partition in self.files}


def add_fingerprints(fingerprints: Mapping[str, int], commits: Iterable[Commit]) -> dict[str, int]:
    """The fingerprints of every partition that has files, after these commits."""
    found = dict(fingerprints)
    for commit in commits:
        for partition, change in commit.fingerprint_changes.items():
            found[partition] = (found.get(partition, 0) + change) % _FINGERPRINTS
    return {partition: fingerprint for partition, fingerprint in found.items() if fingerprint}


def _fingerprint(path: str) -> int:
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "big") >> 1


class DeltaLog:
    """The log of one table: a local path, or an object store's URI with delta-rs' storage options for it."""

    def __init__(
        self, uri: str, storage_options: dict[str, str] | None = None, partition_column: str = "event_time"
    ) -> None:
        local = "://" not in uri or uri.startswith("file://")
        self.uri = os.path.abspath(uri.removeprefix("file://")) if local else uri.rstrip("/")
        self.partition_column = partition_column
        self._storage_options = storage_options
        self._files: _Files = _LocalFiles(self.uri) if local else _ObjectStoreFiles(self.uri, storage_options)

    def commits(self, after: int, limit: int | None = None) -> Iterator[Commit]:
        """The commits `after` + 1, `after` + 2, ... that there are, at most `limit`. Reads no file of any other.

        Raises LogCleaned, or LogIncomplete, where the log does not tell what came next; CommitUnreadable; TableMissing.
        To a table whose log ends before `after` nothing has been added: whether it is still the same, `mark` tells.
        """
        version = after + 1
        while limit is None or version <= after + limit:
            content = self._files.read(_commit_file(version))
            if content is None and self._has_passed(version):
                # Either it was written since we looked, or it is gone.
                content = self._files.read(_commit_file(version))
                if content is None:
                    raise self._cleaned(version)
            if content is None:
                return
            yield self._commit(version, content)
            version += 1

    def commits_back(self, version: int, after: int) -> Iterator[Commit]:
        """The commits `version`, `version` - 1, ..., `after` + 1, as far back as the log has them.

        Raises LogIncomplete where a commit does not tell what it changed; CommitUnreadable.
        """
        while version > after and (content := self._files.read(_commit_file(version))) is not None:
            yield self._commit(version, content)
            version -= 1

    def mark(self, version: int) -> str | None:
        """Tells a commit's file from any other's, also from one with the same version in a table made anew.

        None if the file is not there (any more). Costs a look at one file, and not at all of it if it is large: what
        differs between commits (time, names of files) stands at the beginning.
        """
        found = self._files.head(_commit_file(version), _MARK_BYTES)
        return _mark(*found) if found else None

    def snapshot(self, version: int | None = None) -> Snapshot:
        """The table as of a version, by default the latest.

        Raises TableMissing, UnsupportedTable, or TableProblem for a log that can't be read.
        """
        table = self._open(version)
        _refuse_unsupported(self.uri, table, self.partition_column)
        files: dict[str, list[str]] = {}
        for path, value in _paths(table, self.partition_column):
            if _is_absolute(path):
                raise UnsupportedTable(
                    f"{self.uri}: its file {path} lies outside of it (a shallow clone), which is not supported; "
                    "make a deep clone of it, or write it anew"
                )
            files.setdefault(_NULL if value is None else str(value), []).append(f"{self.uri}/{unquote(path)}")
        by_partition = {partition: tuple(sorted(uris)) for partition, uris in files.items()}
        return Snapshot(str(table.metadata().id), table.version(), by_partition, self.uri)

    def _open(self, version: int | None) -> DeltaTable:
        try:
            return DeltaTable(self.uri, version=version, storage_options=self._storage_options)
        except TableNotFoundError:
            raise self._missing() from None
        except OSError as error:
            raise _unreachable(self.uri, error) from error
        except DeltaError as error:
            if not self._files.names(LOG):
                raise self._missing() from None
            why = _reason(error)
            if re.search("unsupported|catalog.managed|protocol", why, re.IGNORECASE):
                raise UnsupportedTable(
                    f"{self.uri}: deltalake can't read this table ({why}); write it without that feature"
                ) from error
            raise TableProblem(
                f"{self.uri}: deltalake can't read the table's log ({why}); look at {self.uri}/{LOG}"
            ) from error

    def _has_passed(self, version: int) -> bool:
        """Whether the table is at `version` or beyond, asked when that commit's file is not there.

        Log files are removed from the oldest on, up to a checkpoint. So there is nothing new where the commit before
        is there and no checkpoint lies ahead; that holds at most ticks and costs two looks. Else the names tell.
        """
        checkpoint = self._last_checkpoint()
        if checkpoint is not None and checkpoint >= version:
            return True
        if version and self._files.head(_commit_file(version - 1), 0) is not None:
            return False
        versions = [found for name in self._files.names(LOG) if (found := _version(name)) is not None]
        if not versions:
            raise self._missing()
        return max(versions) >= version

    def _last_checkpoint(self) -> int | None:
        content = self._files.read(f"{LOG}/_last_checkpoint")
        with suppress(ValueError, TypeError, KeyError):
            # Only a hint, by the protocol: one that can't be read is none.
            return int(json.loads(content or b"null")["version"])
        return None

    def _commit(self, version: int, content: bytes) -> Commit:
        def modified() -> datetime:
            return self._files.modified(_commit_file(version)) or datetime.now(timezone.utc)

        if not content.strip() and self._files.head(_commit_file(version + 1), 0) is None:
            # An empty one that was followed by another is a commit of nothing, to every reader.
            raise self._unreadable(version, "it is empty")
        try:
            return _parse(version, content, self.partition_column, modified)
        except _PartitionUnknown as error:
            raise LogIncomplete(
                f"{self.uri}: commit {version} removes {error}, and does not say from which {self.partition_column}"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unreadable(version, f"{type(error).__name__}: {error}") from error

    def _unreadable(self, version: int, what: str) -> CommitUnreadable:
        return CommitUnreadable(
            f"{self.uri}/{_commit_file(version)} is not a whole commit yet, or damaged ({what}): nothing from version "
            f"{version} on is taken in until it can be read; if it stays so, its writer has to repair it"
        )

    def _cleaned(self, version: int) -> LogCleaned:
        commits = [found for name in self._files.names(LOG) if (found := _version(name, "json")) is not None]
        oldest = min((found for found in commits if found > version), default=None)
        left = "none of the later ones is there" if oldest is None else f"the next one there is {oldest}"
        return LogCleaned(f"{self.uri}: commit {version} was cleaned up from the log; {left}", oldest)

    def _missing(self) -> TableMissing:
        return TableMissing(f"there is no Delta table at {self.uri}")


def _commit_file(version: int) -> str:
    return f"{LOG}/{version:020}.json"


def _version(name: str, kind: str = r"json|checkpoint\..*parquet|checkpoint\..*json") -> int | None:
    """The version that a file in the log belongs to, by its name: of a commit, or of a checkpoint in any form."""
    match = re.fullmatch(rf"(\d{{20}})\.(?:{kind})", name)
    return int(match[1]) if match else None


def _mark(size: int, beginning: bytes) -> str:
    return hashlib.blake2b(b"%d:%b" % (size, beginning), digest_size=12).hexdigest()


class _PartitionUnknown(Exception):
    pass


class _FileAction(NamedTuple):
    """A file that a commit adds or removes; `changes_data` is False where its rows were there before or stay."""

    added: bool
    path: str
    changes_data: bool
    rows: int | None


def _parse(version: int, content: bytes, column: str, modified: Callable[[], datetime]) -> Commit:
    actions = _actions(content)
    info = next((action for kind, action in actions if kind == "commitInfo"), {})
    table_ids = [action["id"] for kind, action in actions if kind == "metaData"]
    files: dict[str, list[_FileAction]] = {}
    for kind, action in actions:
        if kind in ("add", "remove"):
            files.setdefault(_partition(action, column), []).append(_file_action(kind, action))
    changes = {partition: _change([file for file in of if file.changes_data]) for partition, of in files.items()}
    return Commit(
        version=version,
        timestamp=_committed(info) or modified(),
        operation=str(info.get("operation") or "unknown"),
        changes={partition: change for partition, change in changes.items() if change},
        fingerprint_changes={partition: _fingerprint_change(of) for partition, of in files.items()},
        table_id=table_ids[-1] if table_ids else None,
        check_table=any(_changes_the_table(kind, action) for kind, action in actions),
        mark=_mark(len(content), content[:_MARK_BYTES]),
    )


def _actions(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """A commit's actions: kind and content, one JSON object a line."""
    lines = [json.loads(line) for line in content.split(b"\n") if line.strip()]
    return [(kind, action) for line in lines for kind, action in line.items() if action is not None]


def _file_action(kind: str, action: dict[str, Any]) -> _FileAction:
    rows = None
    with suppress(ValueError, TypeError, KeyError):
        rows = int(json.loads(action["stats"])["numRecords"])
    return _FileAction(kind == "add", unquote(action["path"]), action.get("dataChange") is not False, rows)


def _partition(action: dict[str, Any], column: str) -> str:
    values = action.get("partitionValues") or {}
    if column in values:
        return _NULL if values[column] is None else str(values[column])
    # A writer may leave the values out when it removes a file. Its folder tells them, where there is one.
    for name in unquote(action["path"]).split("/")[:-1]:
        if name.startswith(f"{column}="):
            value = unquote(name[len(column) + 1 :])
            return _NULL if value == _HIVE_NULL else value
    raise _PartitionUnknown(action["path"])


def _change(files: list[_FileAction]) -> PartitionChange | None:
    added, removed = ([file.rows for file in files if file.added is which] for which in (True, False))
    return PartitionChange(len(added), len(removed), _sum(added), _sum(removed)) if files else None


def _sum(rows: list[int | None]) -> int | None:
    known = [number for number in rows if number is not None]
    return sum(known) if len(known) == len(rows) else None


def _fingerprint_change(files: list[_FileAction]) -> int:
    """What to add to a partition's fingerprint.

    A file that is added without changing data, while none is removed, was there before: its statistics or the like
    are new, and in a snapshot it counts once.
    """
    moved = not all(file.added for file in files)
    added = sum(_fingerprint(file.path) for file in files if file.added and (moved or file.changes_data))
    return (added - sum(_fingerprint(file.path) for file in files if not file.added)) % _FINGERPRINTS


def _committed(info: dict[str, Any]) -> datetime | None:
    for key in ("timestamp", "inCommitTimestamp"):
        with suppress(KeyError, TypeError, ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(info[key] / 1000, timezone.utc)
    return None


def _changes_the_table(kind: str, action: dict[str, Any]) -> bool:
    odd = kind == "add" and (action.get("deletionVector") or _is_absolute(action["path"]))
    return bool(odd) or kind in ("protocol", "metaData")


def _is_absolute(path: str) -> bool:
    return re.match(r"/|[A-Za-z][A-Za-z0-9+.-]*:", path) is not None


def _refuse_unsupported(uri: str, table: DeltaTable, column: str) -> None:
    protocol, metadata = table.protocol(), table.metadata()
    features = protocol.reader_features or []
    strange = sorted(set(features) - _HARMLESS_FEATURES)
    if strange or protocol.min_reader_version > 3:
        what = f"the table feature {', '.join(strange)}" if strange else f"version {protocol.min_reader_version}"
        raise UnsupportedTable(
            f"{uri}: to read this table takes {what}, which is not supported; "
            "drop it from the table (ALTER TABLE ... DROP FEATURE), or write the table without it"
        )
    mapping = metadata.configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        raise UnsupportedTable(
            f"{uri} maps its columns (columnMapping, delta.columnMapping.mode = {mapping}), which is not supported; "
            "set it to 'none', which rewrites the table, or write the table without it"
        )
    if metadata.partition_columns != [column]:
        found = ", ".join(metadata.partition_columns) or "no column"
        raise UnsupportedTable(
            f"{uri} is partitioned by {found}; expected {column} alone: write it with partition_by=[{column!r}]"
        )
    kind = next(field.type for field in table.schema().fields if field.name == column)
    if kind not in (PrimitiveType("date"), PrimitiveType("string")):
        name = getattr(kind, "type", kind)
        raise UnsupportedTable(
            f"{uri}: its partition column {column} is of type {name}; expected date, or string as in 2024-01-31"
        )
    if "deletionVectors" in features:
        _refuse_deletion_vectors(uri, table)


def _refuse_deletion_vectors(uri: str, table: DeltaTable) -> None:
    """The feature alone does no harm; rows that are deleted only by a vector are still in the Parquet files."""
    try:
        vectors = any(batch.num_rows for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()))
        found = "has files with deletion vectors (deletionVectors)"
    except DeltaError as error:
        vectors = True
        found = f"seems to have files with deletion vectors (deletionVectors; {_reason(error)})"
    if vectors:
        raise UnsupportedTable(
            f"{uri} {found}, which are not supported; set its property delta.enableDeletionVectors = false, then "
            "have the vectors written out (REORG TABLE ... APPLY (PURGE))"
        )


def _paths(table: DeltaTable, column: str) -> Iterator[tuple[str, object]]:
    """Every file's path as the log has it, and its partition value."""
    files = pa.table(table.get_add_actions(flatten=True))
    yield from zip(files["path"].to_pylist(), files[f"partition.{column}"].to_pylist(), strict=True)


def _reason(error: Exception) -> str:
    """Why delta-rs failed, without the stack that it may add."""
    return reason(error).split(": 0: <unknown>")[0]


class _Files:
    """The files of a table's folder, by their paths in it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def read(self, path: str) -> bytes | None:
        """The file's content, or None if it is not there."""
        found = self._tried(path, lambda: self._read(path, None))
        return found[1] if found else None

    def head(self, path: str, length: int) -> tuple[int, bytes] | None:
        """The file's size and its beginning, or None if it is not there."""
        return self._tried(path, lambda: self._read(path, length))

    def modified(self, path: str) -> datetime | None:
        """When the file was written, or None if it is not there."""
        return self._tried(path, lambda: self._modified(path))

    def names(self, folder: str) -> list[str]:
        """The names in a folder; none if it is not there."""
        return self._tried(folder, lambda: self._names(folder)) or []

    def _tried(self, path: str, work: Callable[[], _Found]) -> _Found | None:
        try:
            return work()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreachable(f"{self._uri}/{path}", error) from error

    def _read(self, path: str, length: int | None) -> tuple[int, bytes]:
        raise NotImplementedError

    def _modified(self, path: str) -> datetime:
        raise NotImplementedError

    def _names(self, folder: str) -> list[str]:
        raise NotImplementedError


class _LocalFiles(_Files):
    def _read(self, path: str, length: int | None) -> tuple[int, bytes]:
        with open(f"{self._uri}/{path}", "rb") as file:
            return os.fstat(file.fileno()).st_size, file.read(length)

    def _modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(os.stat(f"{self._uri}/{path}").st_mtime, timezone.utc)

    def _names(self, folder: str) -> list[str]:
        return os.listdir(f"{self._uri}/{folder}")


class _ObjectStoreFiles(_Files):
    def __init__(self, uri: str, storage_options: dict[str, str] | None) -> None:
        super().__init__(uri)
        self._store = pa.fs.PyFileSystem(DeltaStorageHandler(uri, storage_options))

    def _read(self, path: str, length: int | None) -> tuple[int, bytes]:
        with self._store.open_input_file(path) as file:
            return file.size(), file.read(length)

    def _modified(self, path: str) -> datetime:
        return self._store.get_file_info(path).mtime

    def _names(self, folder: str) -> list[str]:
        found = self._store.get_file_info(pa.fs.FileSelector(folder, allow_not_found=True))
        return [os.path.basename(info.path) for info in found]


def _unreachable(uri: str, error: OSError) -> TableProblem:
    what = "the bucket, the credentials and the network" if "://" in uri else "the folder and its rights"
    return TableProblem(f"{uri} can't be read: {_reason(error)}; check {what}")
