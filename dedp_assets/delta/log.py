"""Reads from the log of a Delta table which partitions changed, and which files the table has now.

A Delta writer leaves a file `_delta_log/<version>.json` for each commit. It names every data file that the commit added
or removed. To follow the commits costs one small file for each, however old the table is. A snapshot costs a read of
everything that the log has about the table.
Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timezone

import pyarrow as pa
from deltalake import DeltaTable

from dedp_assets.delta.actions import (
    MARK_BYTES,
    Action,
    PartitionUnknown,
    actions_of,
    added_again,
    changes_the_table,
    committed_at,
    file_action,
    mark_of,
    partition_of,
    place_of,
)
from dedp_assets.delta.commits import (
    Commit,
    DataFile,
    FileAction,
    Prints,
    Snapshot,
    change_of,
    fingerprint_change,
    prints_of,
)
from dedp_assets.delta.log_files import (
    LOG,
    Files,
    LocalFiles,
    ObjectStoreFiles,
    commit_file,
    commit_version,
    last_checkpoint,
    version_of,
)
from dedp_assets.delta.opening import opened
from dedp_assets.delta.problems import CommitUnreadable, LogCleaned, LogIncomplete, missing
from dedp_assets.delta.supported import has_deletion_vectors, lies_outside, refuse_unsupported
from dedp_assets.delta.values import NULL, as_text, date_as_read, has_dates, may_be_odd_date, says_date


class DeltaLog:
    """The log of one table.

    Args:
        uri: a local path, or the URI of an object store.
        storage_options: delta-rs' options for that store.
        partition_column: the one column that the table is partitioned by. Its type must be date or string.
    """

    def __init__(
        self, uri: str, storage_options: dict[str, str] | None = None, partition_column: str = "event_time"
    ) -> None:
        local = "://" not in uri or uri.startswith("file://")
        self.uri = os.path.abspath(uri.removeprefix("file://")) if local else uri.rstrip("/")
        self.partition_column = partition_column
        self._storage_options = storage_options
        self._has_dates: bool | None = None  # the type of the partition column, once it is known
        self._files: Files = LocalFiles(self.uri) if local else ObjectStoreFiles(self.uri, storage_options)

    def commits(self, after: int, limit: int | None = None) -> Iterator[Commit]:
        """Read the commits after a version, in order. Reads no file of any other commit.

        If the log ends before `after`, this yields nothing. Use `mark` to see whether it is still the same table.
        This does not always notice that the next commit was removed: only if the hint at the last checkpoint says
        that the table has more. `snapshot` knows for certain.

        Args:
            after: the version before the first commit to read; -1 for all commits.
            limit: the greatest number of commits to read, or None for no limit.

        Raises:
            LogCleaned: the next commit was removed from the log.
            LogIncomplete: a commit does not say what it changed.
            CommitUnreadable: a commit is not complete yet, or damaged.
            TableMissing: there is no table.
        """
        version = after + 1
        while limit is None or version <= after + limit:
            content = self._files.read(commit_file(version))
            if content is None and self._has_passed(version):
                # Either it was written in the meantime, or it was removed.
                content = self._files.read(commit_file(version))
                if content is None:
                    raise self._cleaned(version)
            if content is None:
                return
            yield self._commit(version, content)
            version += 1

    def commits_back(self, version: int, after: int) -> Iterator[Commit]:
        """Read commits backwards, as far back as the log has them.

        Args:
            version: the first commit to read, which is the latest one.
            after: the version before the last commit to read.

        Raises:
            LogIncomplete: a commit does not say what it changed.
            CommitUnreadable: a commit is not complete yet, or damaged.
        """
        while version > after and (content := self._files.read(commit_file(version))) is not None:
            yield self._commit(version, content)
            version -= 1

    def mark(self, version: int) -> str | None:
        """A hash that tells a commit's file from any other, also from the same version of a table made anew.

        This reads only the beginning of the file, which has the time and the file names. None if there is no such file.
        """
        found = self._files.head(commit_file(version), MARK_BYTES)
        return mark_of(*found) if found else None

    def snapshot(self, version: int | None = None) -> Snapshot:
        """The files of the table as of a version.

        Args:
            version: the version, or None for the latest.

        Raises:
            TableMissing: there is no table.
            UnsupportedTable: we can't read such a table.
            TableProblem: the log can't be read; the class says why.
        """
        with self._opened(version) as table:
            refuse_unsupported(self.uri, table, self.partition_column)
            self._has_dates = has_dates(table, self.partition_column)
            logged: dict[str, dict[DataFile, Prints]] = {}
            files: dict[str, list[str]] = {}
            for path, value, size, modified in self._files_of(table):
                place = place_of(path, self.uri)
                if place is None:
                    raise lies_outside(self.uri, path)
                partition = NULL if value is None else value
                logged.setdefault(partition, {})[DataFile(path)] = prints_of(place, None, size, modified)
                files.setdefault(partition, []).append(f"{self.uri}/{place}")
            by_partition = {partition: tuple(sorted(uris)) for partition, uris in files.items()}
            schema = {column.name: getattr(column.type, "type", str(column.type)) for column in table.schema().fields}
            return Snapshot(str(table.metadata().id), table.version(), by_partition, self.uri, logged, schema)

    def _opened(self, version: int | None) -> AbstractContextManager[DeltaTable]:
        return opened(self._files, self._storage_options, version, self.partition_column)

    def _files_of(self, table: DeltaTable) -> Iterator[tuple[str, str | None, object, object]]:
        """For each file: its path in the log, its partition value, its size in bytes, and its time of change.

        This is what deltalake reads, with one correction. If one commit both removes and adds a file, deltalake takes
        the action that the commit names first. The protocol gives the order no meaning, so the file is in the table.
        """
        files = pa.table(table.get_add_actions(flatten=True))
        values = as_text(files[f"partition.{self.partition_column}"])
        columns = (files["path"].to_pylist(), values, files["size_bytes"].to_pylist())
        yield from zip(*columns, files["modification_time"].to_pylist(), strict=True)
        there = set(columns[0])
        first = (last_checkpoint(self._files) or -1) + 1
        wanted = [commit_file(number) for number in range(first, table.version() + 1)]
        for path, action in added_again(self._files.read_all(wanted)).items():
            if path in there:
                continue
            if action.get("deletionVector"):
                raise has_deletion_vectors(self.uri)
            value = self._value((action.get("partitionValues") or {}).get(self.partition_column))
            yield path, value or None, action.get("size"), action.get("modificationTime")

    def _value(self, value: object) -> str:
        """A partition value of the log in deltalake's form: the date 2024-1-1 becomes 2024-01-01, null becomes ""."""
        text = NULL if value is None else str(value)
        return date_as_read(text) if may_be_odd_date(text) and self._has_date_column() else text

    def _has_date_column(self) -> bool:
        if self._has_dates is None:
            with self._opened(None) as table:
                self._has_dates = has_dates(table, self.partition_column)
        return self._has_dates

    def _has_passed(self, version: int) -> bool:
        """Whether the table is at `version` or a later one. Ask this if the file of that commit is missing.

        Old commits are removed up to a checkpoint, the oldest first. So if the commit before is there, and there is no
        checkpoint at `version` or later, nothing is new. That is so at most ticks, and costs two small requests.
        Otherwise we list the log.
        """
        checkpoint = last_checkpoint(self._files)
        ahead = checkpoint is not None and checkpoint >= version
        if ahead and self._files.head(f"{LOG}/{checkpoint:020}.checkpoint.parquet", 0) is not None:
            return True
        # The hint may be wrong, or the checkpoint may have another form.
        if not ahead and version and self._files.head(commit_file(version - 1), 0) is not None:
            return False
        versions = [found for name in self._files.names(LOG) if (found := version_of(name)) is not None]
        if not versions:
            raise missing(self.uri)
        return max(versions) >= version

    def _commit(self, version: int, content: bytes) -> Commit:
        if not content.strip() and self._files.head(commit_file(version + 1), 0) is None:
            # Every reader takes an empty file for a commit without actions, but only if another commit follows it.
            raise self._unreadable(version, "it is empty")
        try:
            actions = actions_of(content)
            for kind, action in actions:
                if kind == "metaData":
                    self._has_dates = says_date(action, self.partition_column)
            return self._parse(version, content, actions)
        except PartitionUnknown as error:
            raise LogIncomplete(
                f"{self.uri}: commit {version} removes {error}, and does not say from which {self.partition_column}"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unreadable(version, f"{type(error).__name__}: {error}") from error

    def _parse(self, version: int, content: bytes, actions: list[Action]) -> Commit:
        info = next((found for kind, found in actions if kind == "commitInfo" and isinstance(found, dict)), {})
        table_ids = [action["id"] for kind, action in actions if kind == "metaData"]
        files: dict[str, list[FileAction]] = {}
        for kind, action in actions:
            if kind in ("add", "remove"):
                partition = self._value(partition_of(kind, action, self.partition_column))
                files.setdefault(partition, []).append(file_action(kind, action, self.uri))
        changes = {partition: change_of(file for file in of if file.changes_data) for partition, of in files.items()}
        return Commit(
            version=version,
            timestamp=committed_at(info) or self._files.modified(commit_file(version)) or datetime.now(timezone.utc),
            operation=str(info.get("operation") or "unknown"),
            changes={partition: change for partition, change in changes.items() if change},
            fingerprint_changes={partition: fingerprint_change(of) for partition, of in files.items()},
            table_id=table_ids[-1] if table_ids else None,
            check_table=any(changes_the_table(kind, action) for kind, action in actions),
            mark=mark_of(len(content), content[:MARK_BYTES]),
            actions={partition: tuple(of) for partition, of in files.items()},
        )

    def _unreadable(self, version: int, what: str) -> CommitUnreadable:
        return CommitUnreadable(
            f"{self.uri}/{commit_file(version)} is not a complete commit yet, or damaged ({what}): version {version} "
            "and later ones wait until it can be read; if it stays so, its writer has to repair it"
        )

    def _cleaned(self, version: int) -> LogCleaned:
        commits = [found for name in self._files.names(LOG) if (found := commit_version(name)) is not None]
        oldest = min((found for found in commits if found > version), default=None)
        left = "no later commit is left" if oldest is None else f"the next commit that is left is {oldest}"
        return LogCleaned(f"{self.uri}: commit {version} was removed from the log; {left}", oldest)
