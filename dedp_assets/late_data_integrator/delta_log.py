"""Which partitions of a Delta table changed, read from its log; and what the table consists of now.

Delta writers leave `_delta_log/<version>.json` for each commit, with every file that it added and removed. Following
these costs one small file a commit, however old the table is; a snapshot costs a look at all that the table has.
Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
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
_LONGEST_REASON = 300
# So many files are read at a time from an object store.
_AT_ONCE = 16

_CHECKPOINTS = r"checkpoint\..*parquet|checkpoint\..*json"
# The paths in a commit, without parsing it.
_PATHS = re.compile(rb'"path"\s*:\s*"((?:[^"\\]|\\.)*)"')
_DAYS_IN_400_YEARS = 146_097
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
# What deltalake takes for a date.
_DATE = re.compile(r"\s*([+-]?\d{1,6})-\s*(\d{1,2})-\s*(\d{1,2})")


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


class DataFile(NamedTuple):
    """What tells a data file from any other: its path as the log has it, and the unique id of its deletion vector.

    The same Parquet file with another vector has other rows.
    """

    path: str
    vector: str | None = None


class Prints(NamedTuple):
    """A data file in 63 bits each: `fingerprint` tells it from others, `stamp` also from itself, rewritten in place."""

    fingerprint: int
    stamp: int


class FileAction(NamedTuple):
    """A file that a commit adds or removes; `changes_data` is False where its rows were there before or stay.

    prints: the stamp of a file that is removed is not known, 0.
    """

    added: bool
    file: DataFile
    prints: Prints
    changes_data: bool
    rows: int | None


@dataclass(frozen=True)
class Commit:
    """One version of the table, by what it changed.

    timestamp: when it was committed (UTC), by the writer's clock.
    changes: by partition value as the log has it, "" for null; without files that were only moved about (compaction).
    fingerprint_changes: what to add to each partition's fingerprint, modulo 2**63; these with all files.
    table_id: the table's identity, where the commit states it.
    check_table: it changed what the table is, so `DeltaLog.snapshot` has to say whether we can still read it.
    mark: tells this commit's file from any other: see `DeltaLog.mark`.
    actions: what it did to each partition's files.
    """

    version: int
    timestamp: datetime
    operation: str
    changes: dict[str, PartitionChange]
    fingerprint_changes: dict[str, int]
    table_id: str | None
    check_table: bool
    mark: str
    actions: dict[str, tuple[FileAction, ...]] = field(default_factory=dict)

    def files_after(self, partition: str, before: Mapping[DataFile, Prints]) -> dict[DataFile, Prints]:
        """The files of a partition after this commit, by those before it.

        The order of its actions means nothing: it removes from what was there before, and adds to what comes after.
        """
        added, removed = _added_and_removed(self.actions.get(partition, ()))
        return {file: prints for file, prints in before.items() if file not in removed} | added

    def files_before(self, partition: str, after: Mapping[DataFile, Prints]) -> dict[DataFile, Prints]:
        """The files that a partition seems to have had before this commit, by those after it.

        Certain it is not: a commit does not say whether a file that it adds was there already. It seems so where it
        changes no data and removes no other file: then only the file's statistics or the like are new.
        """
        actions = self.actions.get(partition, ())
        added, removed = _added_and_removed(actions)
        kept = {} if removed.keys() - added.keys() else {action.file for action in actions if not action.changes_data}
        return {file: prints for file, prints in after.items() if file not in added or file in kept} | removed


def _added_and_removed(actions: Iterable[FileAction]) -> tuple[dict[DataFile, Prints], dict[DataFile, Prints]]:
    added: dict[DataFile, Prints] = {}
    removed: dict[DataFile, Prints] = {}
    for action in actions:
        # Of two that say the same of one file the first counts, as for deltalake.
        (added if action.added else removed).setdefault(action.file, action.prints)
    return added, removed


@dataclass(frozen=True)
class Snapshot:
    """A version of the table, by its files: absolute URIs below `root`, by partition value, "" for null.

    logged: the same files as the log has them. schema: the type of each column, in Delta's words ("string",
    "decimal(10,2)", "struct").
    """

    table_id: str
    version: int
    files: dict[str, tuple[str, ...]]
    root: str
    logged: dict[str, dict[DataFile, Prints]] = field(default_factory=dict, repr=False)
    schema: dict[str, str] = field(default_factory=dict)

    def fingerprint(self, partition: str) -> int:
        """Tells one set of files from another: 63 bits, in any order of the files; 0 for no files."""
        return fingerprint_of(self.logged_files(partition))

    def fingerprints(self) -> dict[str, int]:
        """The fingerprint of every partition that has files."""
        return {partition: self.fingerprint(partition) for partition in self.files}

    def stamp(self, partition: str) -> int:
        """Tells also the same files from themselves, rewritten in place, by size and time of change: 63 bits."""
        return stamp_of(self.logged_files(partition))

    def logged_files(self, partition: str) -> dict[DataFile, Prints]:
        """A partition's files as the log has them."""
        if partition in self.logged:
            return self.logged[partition]
        paths = (uri[len(self.root) + 1 :] for uri in self.files.get(partition, ()))
        return {DataFile(path): _prints(path, None) for path in paths}


def fingerprint_of(files: Mapping[DataFile, Prints]) -> int:
    """The fingerprint of a set of files: see `Snapshot.fingerprint`."""
    return sum(prints.fingerprint for prints in files.values()) % _FINGERPRINTS


def stamp_of(files: Mapping[DataFile, Prints]) -> int:
    """The stamp of a set of files: see `Snapshot.stamp`."""
    return sum(prints.stamp for prints in files.values()) % _FINGERPRINTS


def add_fingerprints(fingerprints: Mapping[str, int], commits: Iterable[Commit]) -> dict[str, int]:
    """The fingerprints of every partition that has files, after these commits.

    As far as commits tell: what is added once more, or removed twice, counts twice. A snapshot is right.
    """
    found = dict(fingerprints)
    for commit in commits:
        for partition, change in commit.fingerprint_changes.items():
            found[partition] = (found.get(partition, 0) + change) % _FINGERPRINTS
    return {partition: fingerprint for partition, fingerprint in found.items() if fingerprint}


def hash_63(text: str) -> int:
    """63 bits that tell a text from others: what fits in a signed integer of eight bytes."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _prints(path: str, vector: str | None, size: object = None, modified: object = None) -> Prints:
    """path: in the table's folder, decoded. A file without a vector has the fingerprint of its path alone."""
    name = path if vector is None else f"{path}\0{vector}"
    return Prints(hash_63(name), hash_63(f"{path}\0{vector or ''}\0{size}\0{modified}"))


class DeltaLog:
    """The log of one table: a local path, or an object store's URI with delta-rs' storage options for it."""

    def __init__(
        self, uri: str, storage_options: dict[str, str] | None = None, partition_column: str = "event_time"
    ) -> None:
        local = "://" not in uri or uri.startswith("file://")
        self.uri = os.path.abspath(uri.removeprefix("file://")) if local else uri.rstrip("/")
        self.partition_column = partition_column
        self._storage_options = storage_options
        self._has_dates: bool | None = None  # the type of the partition column, once it is known
        self._files: _Files = _LocalFiles(self.uri) if local else _ObjectStoreFiles(self.uri, storage_options)

    def commits(self, after: int, limit: int | None = None) -> Iterator[Commit]:
        """The commits `after` + 1, `after` + 2, ... that there are, at most `limit`. Reads no file of any other.

        A commit that is missing right after one that is there is seen only where the hint at the last checkpoint says
        that there is more. Whether there is, `snapshot` tells for sure.

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
        with self._opened(version) as table:
            _refuse_unsupported(self.uri, table, self.partition_column)
            self._has_dates = _has_dates(table, self.partition_column)
            logged: dict[str, dict[DataFile, Prints]] = {}
            files: dict[str, list[str]] = {}
            for path, value, size, modified in self._files_of(table):
                place = self._place(path)
                partition = _NULL if value is None else value
                logged.setdefault(partition, {})[DataFile(path)] = _prints(place, None, size, modified)
                files.setdefault(partition, []).append(f"{self.uri}/{place}")
            by_partition = {partition: tuple(sorted(uris)) for partition, uris in files.items()}
            schema = {column.name: getattr(column.type, "type", str(column.type)) for column in table.schema().fields}
            return Snapshot(str(table.metadata().id), table.version(), by_partition, self.uri, logged, schema)

    def _files_of(self, table: DeltaTable) -> Iterator[tuple[str, str | None, object, object]]:
        """Every file's path as the log has it, its partition value, its size in bytes, and when it was changed.

        As deltalake reads the log, but for a file that one commit removes and adds: it takes whichever the commit
        names first. By the protocol the order of a commit's actions means nothing, so the file is there.
        """
        files = pa.table(table.get_add_actions(flatten=True))
        values = _as_text(files[f"partition.{self.partition_column}"])
        columns = (files["path"].to_pylist(), values, files["size_bytes"].to_pylist())
        yield from zip(*columns, files["modification_time"].to_pylist(), strict=True)
        there = set(columns[0])
        for path, action in self._added_again(table.version()).items():
            if path in there:
                continue
            if action.get("deletionVector"):
                raise _deletion_vectors(self.uri, "has files with deletion vectors (deletionVectors)")
            value = self._value((action.get("partitionValues") or {}).get(self.partition_column))
            yield path, value or None, action.get("size"), action.get("modificationTime")

    def _added_again(self, version: int) -> dict[str, dict[str, Any]]:
        """The files that a commit after the last checkpoint removed and added at once, and that none removed since."""
        found: dict[str, dict[str, Any]] = {}
        first = (self._last_checkpoint() or -1) + 1
        wanted = [_commit_file(number) for number in range(first, version + 1)]
        for content in self._files.read_all(wanted):
            paths = _PATHS.findall(content or b"")
            if not found and len(paths) == len(set(paths)):
                continue
            with suppress(ValueError):  # of a commit before an unread checkpoint, perhaps
                files = [(kind, action) for kind, action in _actions(content or b"") if kind in ("add", "remove")]
                removed = {(action["path"], _vector(action)) for kind, action in files if kind == "remove"}
                added = {(action["path"], _vector(action)): action for kind, action in files if kind == "add"}
                found = {path: action for path, action in found.items() if (path, _vector(action)) not in removed}
                found |= {file[0]: action for file, action in added.items() if file in removed}
        return found

    def _place(self, path: str) -> str:
        """Where a file of the log is below the table's folder."""
        place = unquote(path)
        if not _is_absolute(path):
            return place
        inside = _inside(place, self.uri)
        if inside is None:
            raise UnsupportedTable(
                f"{self.uri}: its file {path} lies outside of it (a shallow clone), which is not supported; "
                "make a deep clone of it, or write it anew"
            )
        return inside

    def _value(self, value: object) -> str:
        """A partition value in the log as deltalake reads it: of a date, 2024-1-1 is 2024-01-01. "" for null."""
        text = _NULL if value is None else str(value)
        if _DAY.fullmatch(text) or not (found := _DATE.fullmatch(text)) or not self._has_date_column():
            return text
        return _date_text(*(int(part) for part in found.groups())) or text

    def _has_date_column(self) -> bool:
        if self._has_dates is None:
            with self._opened(None) as table:
                self._has_dates = _has_dates(table, self.partition_column)
        return self._has_dates

    @contextmanager
    def _opened(self, version: int | None) -> Iterator[DeltaTable]:
        with ExitStack() as stack:
            try:
                yield self._open(self.uri, version)
                return
            except _NotOpened as problem:
                error = problem.error
            table = self._opened_otherwise(version, error, stack)
            yield table

    def _open(self, uri: str, version: int | None) -> DeltaTable:
        try:
            return DeltaTable(uri, version=version, storage_options=self._storage_options if uri == self.uri else None)
        except TableNotFoundError:
            raise self._missing() from None
        except OSError as error:
            raise _unreachable(self.uri, error) from error
        except DeltaError as error:
            raise _NotOpened(error) from None

    def _opened_otherwise(self, version: int | None, error: DeltaError, stack: ExitStack) -> DeltaTable:
        """The table without what may be damaged although its commits are whole: checkpoints, and the hint at the last.

        Raises UnsupportedTable, or TableProblem that says what is wrong with the log.
        """
        why = _reason(error)
        if re.search("unsupported|not supported|catalog.managed|unknown.*version", why, re.IGNORECASE):
            raise UnsupportedTable(
                f"{self.uri}: deltalake can't read this table ({why}); write it without that feature"
            ) from None
        log = _LogFiles.of(self._files.names(LOG))
        if log.latest is None:
            raise self._missing() from None
        latest = log.latest if version is None else version
        hint = self._last_checkpoint()
        for explicit, then in ((latest, None), ((hint or 0) - 1, latest)) if hint is not None else ():
            with suppress(_NotOpened, DeltaError, TableMissing):
                if explicit >= 0:
                    table = self._open(self.uri, explicit)
                    if then is not None:
                        table.load_as_version(then)
                    return table
        for checkpoint in [*log.checkpoints_up_to(latest), None] if log.checkpoints else ():
            files = log.whole_from(checkpoint, latest)
            with suppress(_NotOpened, TableMissing):
                if files:
                    return self._open(self._copy_of_log(files, stack), latest)
        raise self._damaged(log, latest, hint, why) from None

    def _copy_of_log(self, names: list[str], stack: ExitStack) -> str:
        """A folder with these files of the log, and nothing else."""
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dedp-log-"))
        os.mkdir(f"{folder}/{LOG}")
        for name, content in zip(names, self._files.read_all([f"{LOG}/{name}" for name in names]), strict=True):
            if content is not None:
                with open(f"{folder}/{LOG}/{name}", "wb") as file:
                    file.write(content)
        return folder

    def _damaged(self, log: "_LogFiles", latest: int, hint: int | None, why: str) -> TableProblem:
        """What is wrong with a log that deltalake can't read, where, and what to do."""
        where, unread = f"{self.uri}/{LOG}", f"{self.uri}: deltalake can't read the table's log ({why})"
        checkpoint = next(iter(log.checkpoints_up_to(latest)), None)
        after = -1 if checkpoint is None else checkpoint
        if missing := log.missing(after, latest):
            is_row = len(missing) == missing[-1] - missing[0] + 1
            one = f"commit {missing[0]} is" if len(missing) == 1 else f"the commits {missing[0]} to {missing[-1]} are"
            which = one if is_row else f"{len(missing)} of the commits {missing[0]} to {missing[-1]} are"
            return TableProblem(
                f"{self.uri}: its log has a gap: {which} not there, and no checkpoint after that; the latest is "
                f"{latest}. Put back {where}/{missing[0]:020}.json from a backup, or make the table anew"
            )
        protocol: tuple[str, Any] = ("", None)
        for number in range(after + 1, latest + 1):
            file = f"{self.uri}/{_commit_file(number)}"
            try:
                for kind, action in _actions(self._files.read(_commit_file(number)) or b""):
                    if kind == "protocol":
                        protocol = (file, action.get("minReaderVersion"))
                    elif kind in ("add", "remove"):
                        action["path"]
            except (ValueError, KeyError, TypeError, AttributeError):
                return TableProblem(
                    f"{unread}; look at {file}: it is damaged, or not whole yet. If it stays so, its writer has to "
                    "repair it"
                )
        file, reader = protocol
        if "protocol action" in why and isinstance(reader, int) and reader > 3:
            return UnsupportedTable(
                f"{self.uri}: to read this table takes version {reader} of the protocol, as {file} says, which is not "
                "supported; write it without what needs that"
            )
        if "protocol action" in why:
            return TableProblem(
                f"{self.uri}: its protocol contradicts itself ({why}) in {file or where}; expected reader features "
                f"with minReaderVersion 3, and only then (found: {reader}); its writer has to repair that"
            )
        if "parse value" in why:
            return TableProblem(
                f"{self.uri}: {why}: its partition column {self.partition_column} is of type date, and a file has that "
                f"value in {where}; its writer has to remove the file, or add it with a date such as 2024-01-31"
            )
        if re.search("no .*(protocol|metadata)", why, re.IGNORECASE):
            return TableProblem(
                f"{self.uri}: its log does not say what the table is ({why}); expected protocol and metaData in "
                f"{self.uri}/{_commit_file(0)}: put that file back from a backup, or make the table anew"
            )
        if checkpoint is not None or hint is not None:
            names = [] if checkpoint is None else log.parts(checkpoint)
            files = ", ".join(
                f"{where}/{name}" for name in [*names, *(["_last_checkpoint"] if hint is not None else [])]
            )
            return TableProblem(
                f"{unread}, and not all commits before are there to do without the checkpoint; remove {files}, and put "
                "back what comes before it, as from a backup"
            )
        return TableProblem(f"{unread}; look at {where}")

    def _has_passed(self, version: int) -> bool:
        """Whether the table is at `version` or beyond, asked when that commit's file is not there.

        Log files are removed from the oldest on, up to a checkpoint. So there is nothing new where the commit before
        is there and no checkpoint lies ahead; that holds at most ticks and costs two looks. Else the names tell.
        """
        checkpoint = self._last_checkpoint()
        ahead = checkpoint is not None and checkpoint >= version
        if ahead and self._files.head(f"{LOG}/{checkpoint:020}.checkpoint.parquet", 0) is not None:
            return True
        # The hint may be wrong, or the checkpoint in another form.
        if not ahead and version and self._files.head(_commit_file(version - 1), 0) is not None:
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
            actions = _actions(content)
            for kind, action in actions:
                if kind == "metaData":
                    self._has_dates = _says_date(action, self.partition_column)
            return self._parse(version, content, actions, modified)
        except _PartitionUnknown as error:
            raise LogIncomplete(
                f"{self.uri}: commit {version} removes {error}, and does not say from which {self.partition_column}"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unreadable(version, f"{type(error).__name__}: {error}") from error

    def _parse(
        self, version: int, content: bytes, actions: list[tuple[str, dict[str, Any]]], modified: Callable[[], datetime]
    ) -> Commit:
        info = next((found for kind, found in actions if kind == "commitInfo" and isinstance(found, dict)), {})
        table_ids = [action["id"] for kind, action in actions if kind == "metaData"]
        files: dict[str, list[FileAction]] = {}
        for kind, action in actions:
            if kind in ("add", "remove"):
                files.setdefault(self._partition(kind, action), []).append(self._file_action(kind, action))
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
            actions={partition: tuple(of) for partition, of in files.items()},
        )

    def _file_action(self, kind: str, action: dict[str, Any]) -> FileAction:
        rows = None
        with suppress(ValueError, TypeError, KeyError):
            rows = int(json.loads(action["stats"])["numRecords"])
        path, vector = action["path"], _vector(action)
        place = unquote(path)
        if _is_absolute(path):
            place = _inside(place, self.uri) or place
        prints = _prints(place, vector, action.get("size"), action.get("modificationTime"))
        if kind == "remove":
            prints = prints._replace(stamp=0)
        return FileAction(kind == "add", DataFile(path, vector), prints, action.get("dataChange") is not False, rows)

    def _partition(self, kind: str, action: dict[str, Any]) -> str:
        values = action.get("partitionValues") or {}
        if self.partition_column in values:
            return self._value(values[self.partition_column])
        if kind == "add":
            return _NULL
        # A writer may leave the values out when it removes a file. Its folder tells them, where there is one.
        for name in unquote(action["path"]).split("/")[:-1]:
            if name.startswith(f"{self.partition_column}="):
                value = unquote(name[len(self.partition_column) + 1 :])
                return _NULL if value == _HIVE_NULL else self._value(value)
        raise _PartitionUnknown(action["path"])

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


def _version(name: str, kind: str = rf"json|{_CHECKPOINTS}") -> int | None:
    """The version that a file in the log belongs to, by its name: of a commit, or of a checkpoint in any form."""
    match = re.fullmatch(rf"(\d{{20}})\.(?:{kind})", name)
    return int(match[1]) if match else None


def _mark(size: int, beginning: bytes) -> str:
    return hashlib.blake2b(b"%d:%b" % (size, beginning), digest_size=12).hexdigest()


class _PartitionUnknown(Exception):
    pass


class _NotOpened(Exception):
    def __init__(self, error: DeltaError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class _LogFiles:
    """The names in a log, its commits, and its checkpoints in whatever form."""

    names: tuple[str, ...]
    commits: frozenset[int]
    checkpoints: frozenset[int]

    @classmethod
    def of(cls, names: Iterable[str]) -> "_LogFiles":
        known = tuple(sorted(names))
        commits = frozenset(found for name in known if (found := _version(name, "json")) is not None)
        every = frozenset(found for name in known if (found := _version(name, _CHECKPOINTS)) is not None)
        return cls(known, commits, every)

    @property
    def latest(self) -> int | None:
        return max(self.commits | self.checkpoints, default=None)

    def checkpoints_up_to(self, version: int) -> list[int]:
        """The newest first."""
        return sorted((found for found in self.checkpoints if found <= version), reverse=True)

    def missing(self, checkpoint: int, version: int) -> list[int]:
        """The commits after a checkpoint that are not there; -1 for from the beginning on."""
        return [number for number in range(checkpoint + 1, version + 1) if number not in self.commits]

    def whole_from(self, checkpoint: int | None, version: int) -> list[str]:
        """The files from which alone the table can be read as of a version; none if one of them is missing."""
        start = -1 if checkpoint is None else checkpoint
        if self.missing(start, version):
            return []
        commits = [f"{number:020}.json" for number in range(start + 1, version + 1)]
        return commits if checkpoint is None else [*self.parts(checkpoint), *commits]

    def parts(self, checkpoint: int) -> list[str]:
        """The names of a checkpoint's files."""
        return [name for name in self.names if name.startswith(f"{checkpoint:020}.checkpoint")]


def _actions(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """A commit's actions: kind and content. One JSON object a line, or however they are laid out. Raises ValueError."""
    try:
        objects = [json.loads(line) for line in content.split(b"\n") if line.strip()]
    except ValueError:
        objects = list(_objects(content.decode("utf-8")))
    return [(kind, action) for found in objects for kind, action in found.items() if action is not None]


def _objects(text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        else:
            found, at = decoder.raw_decode(text, at)
            yield found


def _vector(action: dict[str, Any]) -> str | None:
    """The unique id of a file's deletion vector, by the protocol; None without one."""
    vector = action.get("deletionVector")
    if not vector:
        return None
    offset = vector.get("offset")
    return f"{vector['storageType']}{vector['pathOrInlineDv']}" + ("" if offset is None else f"@{offset}")


def _inside(path: str, root: str) -> str | None:
    """Where an absolute path is below `root`; None if it is not."""
    path = re.sub(r"^file:/+", "/", path)
    for begin in {root, root.replace("s3://", "s3a://", 1), root.replace("s3a://", "s3://", 1)}:
        if path.startswith(f"{begin}/"):
            return path[len(begin) + 1 :]
    return None


def _change(files: list[FileAction]) -> PartitionChange | None:
    added, removed = ([file.rows for file in files if file.added is which] for which in (True, False))
    return PartitionChange(len(added), len(removed), _sum(added), _sum(removed)) if files else None


def _sum(rows: list[int | None]) -> int | None:
    known = [number for number in rows if number is not None]
    return sum(known) if len(known) == len(rows) else None


def _fingerprint_change(files: list[FileAction]) -> int:
    """What to add to a partition's fingerprint.

    A file that is removed and added at once stays. One that is added without changing data, while none is removed, was
    there before: its statistics or the like are new, and in a snapshot it counts once.
    """
    added, removed = _added_and_removed(files)
    if not removed.keys() - added.keys():
        added = {file.file: file.prints for file in files if file.added and file.changes_data}
    new = {file: prints for file, prints in added.items() if file not in removed}
    gone = {file: prints for file, prints in removed.items() if file not in added}
    return (fingerprint_of(new) - fingerprint_of(gone)) % _FINGERPRINTS


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
        if any(batch.num_rows for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors())):
            raise _deletion_vectors(uri, "has files with deletion vectors (deletionVectors)")
    except DeltaError as error:
        what = f"seems to have files with deletion vectors (deletionVectors; {_reason(error)})"
        raise _deletion_vectors(uri, what) from None


def _deletion_vectors(uri: str, what: str) -> UnsupportedTable:
    return UnsupportedTable(
        f"{uri} {what}, which are not supported; set its property delta.enableDeletionVectors = false, then "
        "have the vectors written out (REORG TABLE ... APPLY (PURGE))"
    )


def _has_dates(table: DeltaTable, column: str) -> bool:
    return any(field.name == column and field.type == PrimitiveType("date") for field in table.schema().fields)


def _says_date(metadata: dict[str, Any], column: str) -> bool | None:
    """Whether a metaData action has the column as a date; None if it does not say."""
    with suppress(ValueError, TypeError, KeyError):
        fields = json.loads(metadata["schemaString"])["fields"]
        return any(field["name"] == column and field["type"] == "date" for field in fields)
    return None


def _as_text(values: pa.ChunkedArray) -> list[str | None]:
    """Partition values as the log has them."""
    if not pa.types.is_date(values.type):
        return [None if value is None else str(value) for value in values.to_pylist()]
    days = pc.cast(pc.cast(values, pa.date32()), pa.int32()).to_pylist()
    texts = {day: None if day is None else _date_text(*_civil(day)) for day in set(days)}
    return [texts[day] for day in days]


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of so many days after 1970-01-01, also where Python has no dates."""
    cycles, rest = divmod(days + date(1970, 1, 1).toordinal() - 1, _DAYS_IN_400_YEARS)
    found = date.fromordinal(rest + 1)
    return found.year + 400 * cycles, found.month, found.day


def _date_text(year: int, month: int, day: int) -> str | None:
    """A date in the form that values have in the log; None if there is no such date."""
    try:
        date(2000 + year % 400, month, day)  # of any year: every 400 the calendar is the same again
    except ValueError:
        return None
    sign = "+" if year > 9999 else "-" if year < 0 else ""
    return f"{sign}{abs(year):04}-{month:02}-{day:02}"


def _reason(error: Exception) -> str:
    """Why delta-rs failed, without the stack and the insides that it may add."""
    text = reason(error).split(": 0: <unknown>")[0].split(": ParsedLogPath")[0]
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


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

    def read_all(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        """The contents of files, in order; None for one that is not there."""
        return map(self.read, paths)

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

    def read_all(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(self.read, paths)

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
