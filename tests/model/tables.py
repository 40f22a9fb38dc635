"""The two Delta tables of the integrator, in memory.

Of the input, what the code under test reads is real: the bytes of its commits, parsed by `DeltaLog`, and `Snapshot`s.
The table of counts has what `DeviceCounts` has, and the one property that everything rests on: a commit fails when
somebody else has committed since the table was opened.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any, NamedTuple

import pyarrow as pa

from dedp_assets.delta.actions import file_action
from dedp_assets.delta.commits import DataFile, Prints, Snapshot
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.log_files import LOG
from dedp_assets.delta.problems import DamagedTable, UnsupportedTable, missing
from dedp_assets.late_data_integrator import device_counts
from dedp_assets.late_data_integrator.device_counts import InputVersion, Overtaken

# type, full_name, version -> how many rows
Rows = Counter[tuple[str, str, str]]
Pause = Callable[[str], None]

_URI = "memory:/devices"


def do_not_pause(where: str) -> None:
    """Does not pause, for work that is not interrupted."""


class File(NamedTuple):
    """A file of a version.

    Attributes:
        written: the number of its content, of all contents ever written to its path. Its time of change follows.
        vector: its deletion vector, or None.
    """

    day: str
    written: int
    vector: str | None = None


class Version(NamedTuple):
    """The table as of one commit.

    Attributes:
        files: its files, by path.
        renamed: whether its columns have other names.
        adds_again: the commit moved rows to other files, and also added a file that was there before. If such a commit
            is read backwards, it does not say which file is which.
    """

    table_id: str
    files: dict[str, File]
    renamed: bool = False
    adds_again: bool = False


class _Past(NamedTuple):
    """A backup of an earlier table at the same path."""

    versions: list[Version]
    changed: list[set[str]]
    log: dict[str, bytes]
    cleaned: int


class Devices:
    """The input table with all its versions, and every earlier table at the same path."""

    def __init__(self) -> None:
        self.versions: list[Version] = []
        self.changed: list[set[str]] = []  # per version: the days whose data it changed
        self.log: dict[str, bytes] = {}
        self.disk: dict[str, int] = {}  # the files that are there: which content each one has, by path
        self.changes: Counter[str] = Counter()  # how often each was, in this table and those before it
        self.compactions: Counter[str] = Counter()
        self.cleaned = 0  # the oldest version whose commit is still in the log
        self.replaced = 0  # how often another table took the place of the one that was there
        self.log_is_uncertain = False  # some of this table's, or one before it, does not tell what a day consisted of
        self.was_put_back = False  # since then versions do not tell what is newer
        self._past: list[_Past] = []
        self._contents: dict[tuple[str, int], Rows] = {}
        self._vectors: dict[str, Rows] = {}  # the rows that each one takes away
        self._tables = self._paths = self._writes = self._commits = 0

    @property
    def table_id(self) -> str:
        return self.versions[-1].table_id if self.versions else "none"

    @property
    def version(self) -> int:
        return len(self.versions) - 1

    @property
    def files(self) -> dict[str, File]:
        """The files of the latest version, by path."""
        return self.versions[-1].files if self.versions else {}

    @property
    def has_vectors(self) -> bool:
        """Whether rows are deleted only by a vector, so that the table is refused."""
        return any(file.vector for file in self.files.values())

    @property
    def is_renamed(self) -> bool:
        """Whether the columns have other names now, so that the table can't be counted."""
        return bool(self.versions) and self.versions[-1].renamed

    @property
    def has_earlier(self) -> bool:
        """Whether there is a backup of an earlier table."""
        return bool(self._past)

    def of_day(self, day: str, version: int = -1) -> dict[str, File]:
        """The files of a day."""
        files = self.versions[version].files if self.versions else {}
        return {path: file for path, file in files.items() if file.day == day}

    def gone(self, day: str) -> list[str]:
        """The paths of files that the day had once and does not have any more."""
        once = {path: None for version in self.versions for path, file in version.files.items() if file.day == day}
        return [path for path in once if path not in self.files]

    def rows(self, path: str, file: File) -> Rows:
        """The present content of a file. Raises FileNotFoundError if it was vacuumed."""
        if path not in self.disk:
            raise FileNotFoundError(path)
        content = self._contents[path, self.disk[path]]
        return content - self._vectors[file.vector] if file.vector else content

    def are_there(self, files: Mapping[str, File]) -> bool:
        """Whether these files exist with the content that they had when they were added."""
        return all(self.disk.get(path) == file.written for path, file in files.items())

    def recount(self, day: str) -> Rows:
        """What the counts of a day have to be now."""
        return sum((self.rows(path, file) for path, file in self.of_day(day).items()), Rows())

    # What others do to it

    def append(self, days: Iterable[str]) -> None:
        """Append new rows to each of the days."""
        self._commit("WRITE", self._new_files(days), {})

    def overwrite(self, day: str) -> None:
        """Replace the rows of a day."""
        self._commit("WRITE", self._new_files([day]), self.of_day(day))

    def delete(self, day: str) -> None:
        """Remove the oldest rows of a day."""
        self._commit("DELETE", {}, dict(list(self.of_day(day).items())[:1]))

    def compact(self, day: str, *, again: bool = False) -> None:
        """Replace the files of a day by one file with the same rows.

        Args:
            again: keep the last file. The commit adds it again, as if it had new statistics.
        """
        self.compactions[day] += 1
        old = self.of_day(day)
        kept = dict(list(old.items())[-1:]) if again else {}
        old = {path: file for path, file in old.items() if path not in kept}
        rows = sum((self.rows(path, file) for path, file in old.items()), Rows())
        self._commit("OPTIMIZE", self._new_files([day], rows) | kept, old, changes_data=False)
        if again:
            self.versions[-1] = self.versions[-1]._replace(adds_again=True)
            self.log_is_uncertain = True

    def restore(self, day: str, version: int) -> None:
        """Restore the files that the day had at an earlier version."""
        now, then = self.of_day(day), self.of_day(day, version)
        back = {path: file for path, file in then.items() if now.get(path) != file}
        self._commit("RESTORE", back, {path: file for path, file in now.items() if then.get(path) != file})

    def write_again(self, day: str, path: str, *, swapped: bool = False, other_rows: bool = True) -> None:
        """Add a path again that the table has or had.

        Args:
            swapped: whether the same commit also removes it.
            other_rows: whether the file is rewritten in place, with other rows. Nobody can read the earlier rows then.
        """
        known = self.files.get(path)
        file = File(day, self._write_file(path), None) if other_rows or known is None else known
        self._commit("WRITE", {path: file}, {path: known} if swapped and known else {})

    def delete_by_vector(self, day: str) -> None:
        """Delete one row by a deletion vector. The row stays in its file."""
        for path, file in self.of_day(day).items():
            rows = self.rows(path, file)
            if rows.total() > 1:
                vector = f"vector-{len(self._vectors)}"
                before = self._vectors[file.vector] if file.vector else Rows()
                self._vectors[vector] = before + Rows({min(rows): 1})
                self._commit("DELETE", {path: file._replace(vector=vector)}, {path: file})
                return

    def purge(self, day: str) -> None:
        """Rewrite the day's files that have deletion vectors, without the deleted rows."""
        self.compactions[day] += 1
        old = {path: file for path, file in self.of_day(day).items() if file.vector}
        new: dict[str, File] = {}
        for path, file in old.items():
            new |= self._new_files([day], self.rows(path, file))
        self._commit("REORG", new, old, changes_data=False)

    def rename_columns(self, renamed: bool) -> None:
        """Rename the columns, or rename them back."""
        latest = self.versions[-1]
        self._write(
            [self._metadata(latest.table_id), _info("SET COLUMNS")],
            latest._replace(renamed=renamed, adds_again=False),
            set(),
        )

    def vacuum(self) -> None:
        """Remove the files that the latest version does not have."""
        self.disk = {path: written for path, written in self.disk.items() if path in self.files}

    # What happens to its log

    def clean_log(self) -> None:
        """Write a checkpoint of the latest version, and remove all earlier commits."""
        for version in range(self.cleaned, self.version):
            self.log.pop(_commit_file(version), None)
        self.cleaned, self.log_is_uncertain = self.version, True
        self.checkpoint()
        self.hint(self.version)

    def lose_commit(self, version: int) -> None:
        """Remove one commit. A checkpoint has the latest version, so the table stays readable."""
        self.log.pop(_commit_file(version), None)
        self.log_is_uncertain = True
        self.checkpoint()

    def has_commit(self, version: int) -> bool:
        """Whether the commit of a version is still in the log."""
        return _commit_file(version) in self.log

    def is_readable(self, version: int) -> bool:
        """Whether the log can still give this version, from a checkpoint and the commits after it."""
        if not 0 <= version <= self.version:
            return False
        while _checkpoint_file(version) not in self.log:
            if not self.has_commit(version):
                return False
            if version == 0:
                return True
            version -= 1
        return True

    def checkpoint(self) -> None:
        """Write a checkpoint of the latest version. `_last_checkpoint` may not name it."""
        self.log[_checkpoint_file(self.version)] = b""

    def hint(self, version: int | None) -> None:
        """Make `_last_checkpoint` name a version, whether it has a checkpoint or not; None removes the file."""
        self.log.pop(f"{LOG}/_last_checkpoint", None)
        if version is not None:
            self.log[f"{LOG}/_last_checkpoint"] = json.dumps({"version": version}).encode()

    def put_back(self, version: int) -> None:
        """Put back the table as of a version, as from a backup. Its next commits reuse version numbers."""
        now, then = self.files, self.versions[version].files
        self.changes.update({(now | then)[path].day for path in now.keys() | then if now.get(path) != then.get(path)})
        for later in range(version + 1, len(self.versions)):
            for name in [name for name in self.log if name.startswith(f"{LOG}/{later:020}.")]:
                del self.log[name]
        self.replaced += self.versions[version].table_id != self.table_id
        del self.versions[version + 1 :], self.changed[version + 1 :]
        self.disk |= {path: file.written for path, file in then.items()}
        self.was_put_back = True
        if not self.is_readable(version):
            self.checkpoint()  # whoever makes a backup has one that can be read

    # Other tables in its place

    def make_anew(self) -> None:
        """Delete the folder, and create another, empty table in its place."""
        self._past.append(_Past(self.versions[:], self.changed[:], dict(self.log), self.cleaned))
        self.replaced += 1
        self.versions.clear()
        self.changed.clear()
        self.log.clear()
        self.cleaned = 0
        self._create()

    def put_back_earlier(self) -> bool:
        """Put back the table that was there before the table was made anew, with its files."""
        if not self._past:
            return False
        past = self._past.pop(0)
        self._past.append(_Past(self.versions[:], self.changed[:], dict(self.log), self.cleaned))
        self.changes.update({file.day for file in [*self.files.values(), *past.versions[-1].files.values()]})
        self.replaced += 1
        self.versions[:], self.changed[:], self.cleaned = past.versions, past.changed, past.cleaned
        self.log.clear()
        self.log.update(past.log)
        self.disk |= {path: file.written for path, file in self.files.items()}
        self.was_put_back = True
        return True

    def create_over(self) -> None:
        """As `DeltaTable.create(mode="overwrite")`: another, empty table in the same log."""
        self.replaced += 1
        self._tables += 1
        self._commit("CREATE OR REPLACE TABLE", {}, dict(self.files), table=Version(f"table-{self._tables}", {}))

    def restore_table(self, version: int) -> None:
        """Restore all files of an earlier version, with its identity and its columns."""
        now, then = self.files, self.versions[version]
        self.replaced += then.table_id != self.table_id
        back = {path: file for path, file in then.files.items() if now.get(path) != file}
        remove = {path: file for path, file in now.items() if then.files.get(path) != file}
        self._commit("RESTORE", back, remove, table=then)

    # How all that is written

    def add_action(self, path: str, file: File, changes_data: bool = True) -> dict[str, Any]:
        """How the log adds a file."""
        rows = self._contents[path, file.written].total()
        stats = json.dumps({"numRecords": rows})
        return _action(path, file, changes_data) | {
            "size": 100 + rows,
            "modificationTime": _TIME + file.written,
            "stats": stats,
        }

    def _new_files(self, days: Iterable[str], rows: Rows | None = None) -> dict[str, File]:
        new = {}
        for day in days:
            self._paths += 1
            path = f"event_time={day}/part-{self._paths}.parquet"
            new[path] = File(day, self._write_file(path, rows))
        return new

    def _write_file(self, path: str, rows: Rows | None = None) -> int:
        self._writes += 1
        # Its first row is in no other file, its second one is in all.
        if rows is None:
            rows = Rows({("phone", f"device {self._writes}", "1"): 1, ("tablet", "common", "1"): 1})
        self._contents[path, self._writes] = rows
        self.disk[path] = self._writes
        return self._writes

    def _create(self) -> None:
        self._tables += 1
        table = Version(f"table-{self._tables}", {})
        self._write([self._metadata(table.table_id), _info("CREATE TABLE")], table, set())

    def _commit(
        self,
        operation: str,
        add: Mapping[str, File],
        remove: Mapping[str, File],
        *,
        changes_data: bool = True,
        table: Version | None = None,
    ) -> None:
        if not self.versions:
            self._create()
        actions: list[dict[str, Any]] = [_info(operation)]
        if table:
            actions.append(self._metadata(table.table_id))
        actions += [{"remove": _action(path, file, changes_data)} for path, file in remove.items()]
        actions += [{"add": self.add_action(path, file, changes_data)} for path, file in add.items()]
        latest = table or self.versions[-1]
        kept = {path: file for path, file in self.files.items() if path not in remove}
        days = {file.day for file in [*add.values(), *remove.values()]}
        self._write(actions, latest._replace(files=kept | dict(add), adds_again=False), days if changes_data else set())

    def _metadata(self, table_id: str) -> dict[str, Any]:
        return {"metaData": {"id": table_id}}

    def _write(self, actions: list[dict[str, Any]], version: Version, changed: set[str]) -> None:
        self.versions.append(version)
        self.changed.append(changed)
        self.changes.update(changed)
        for action in actions:
            if "commitInfo" in action:
                # Each another one, also where a table that was put back gets another commit of the same version.
                self._commits += 1
                action["commitInfo"]["timestamp"] = _TIME + self._commits
        self.log[_commit_file(self.version)] = b"\n".join(json.dumps(action).encode() for action in actions)


_TIME = 1_704_000_000_000


def _info(operation: str) -> dict[str, Any]:
    return {"commitInfo": {"operation": operation}}


def _action(path: str, file: File, changes_data: bool) -> dict[str, Any]:
    action = {"path": path, "partitionValues": {"event_time": file.day or None}, "dataChange": changes_data}
    if file.vector:
        action["deletionVector"] = {"storageType": "u", "pathOrInlineDv": file.vector, "offset": 1, "sizeInBytes": 40}
    return action


def _checkpoint_file(version: int) -> str:
    return f"{LOG}/{version:020}.checkpoint.parquet"


def _commit_file(version: int) -> str:
    return f"{LOG}/{version:020}.json"


class Log(DeltaLog):
    """Stands for `DeltaLog`."""

    def __init__(self, table: Devices, pause: Pause = do_not_pause) -> None:
        # Not the base's: it would open a folder.
        self.uri, self.partition_column = _URI, "event_time"
        self._storage_options, self._has_dates = None, None
        self._files: Any = _Files(table.log)
        self._table, self._pause = table, pause

    def commits(self, after: int, limit: int | None = None) -> Any:
        self._pause("reads the log")
        return super().commits(after, limit)

    def commits_back(self, version: int, after: int) -> Any:
        if version > after:
            self._pause("reads the log")
        return super().commits_back(version, after)

    def snapshot(self, version: int | None = None) -> Snapshot:
        self._pause("reads the snapshot")
        table = self._table
        if not table.versions:
            raise missing(_URI)
        version = table.version if version is None else version
        if not table.is_readable(version):
            raise DamagedTable(f"{_URI}: version {version} can't be read, it is not in the log (any more)")
        if any(file.vector for file in table.versions[version].files.values()):
            raise UnsupportedTable(f"{_URI} has files with deletion vectors")
        return snapshot_of(table, version)


def snapshot_of(table: Devices, version: int) -> Snapshot:
    """A version of the table as `DeltaLog.snapshot` returns it, but without refusing any table."""
    latest = table.versions[version]
    files: dict[str, list[str]] = {}
    logged: dict[str, dict[DataFile, Prints]] = {}
    for path, file in latest.files.items():
        files.setdefault(file.day, []).append(f"{_URI}/{path}")
        added = file_action("add", table.add_action(path, file), _URI)
        logged.setdefault(file.day, {})[added.file] = added.prints
    by_day = {day: tuple(sorted(uris)) for day, uris in files.items()}
    return _Snapshot(latest.table_id, version, by_day, _URI, logged, renamed=latest.renamed, entries=latest.files)


@dataclass(frozen=True)
class _Snapshot(Snapshot):
    """And what Spark finds out by reading the files. It is not told whether a file is the one that was added."""

    renamed: bool = False
    entries: Mapping[str, File] = field(default_factory=dict)


class _Files:
    """Stands for the files that `DeltaLog` reads."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self._content = content

    def read(self, path: str) -> bytes | None:
        return self._content.get(path)

    def head(self, path: str, length: int) -> tuple[int, bytes] | None:
        content = self._content.get(path)
        return None if content is None else (len(content), content[:length])

    def modified(self, path: str) -> datetime:
        return datetime(2024, 1, 1, tzinfo=timezone.utc)

    def names(self, folder: str) -> list[str]:
        return [path.removeprefix(f"{folder}/") for path in self._content]


class Commit(NamedTuple):
    """A commit to the table of counts: the new rows of its days, and what these days reflect now and before."""

    table_id: str
    rows: Mapping[str, Rows]
    reflects: Mapping[str, InputVersion]
    before: Mapping[str, InputVersion | None]


class CountsTable:
    """The table of counts. It calls `committed` with each commit. `devices` is the table that is counted."""

    def __init__(self, devices: Devices) -> None:
        self.devices = devices
        self.version = 0
        self.rows: dict[str, Rows] = {}
        self.recorded: dict[tuple[str, str], InputVersion] = {}
        self.committed: Callable[[Commit], None] = lambda commit: None


class Counts:
    """Stands for `DeviceCounts`: the table as of the version at which it was opened."""

    def __init__(self, table: CountsTable, pause: Pause = do_not_pause) -> None:
        pause("opens the counts")
        self._table, self._pause = table, pause
        self.version, self._rows, self._recorded = table.version, dict(table.rows), dict(table.recorded)

    def recorded(self, table_id: str, day: str) -> InputVersion | None:
        return self._recorded.get((table_id, day))

    def all_recorded(self) -> dict[str, dict[str, InputVersion]]:
        found: dict[str, dict[str, InputVersion]] = {}
        for (table_id, day), recorded in sorted(self._recorded.items()):
            found.setdefault(table_id, {})[day] = recorded
        return found

    def rows_counted(self, days: Sequence[str]) -> dict[str, int]:
        return {day: self._rows[day].total() for day in days if self._rows.get(day)}

    def _is_overtaken(self) -> bool:
        return self._table.version != self.version

    def replace(self, counts: pa.Table, table_id: str, reflects: Mapping[str, InputVersion]) -> None:
        rows = {day: Rows() for day in reflects}
        for row in counts.to_pylist():
            rows[row["event_time"].isoformat()][row["type"], row["full_name"], row["version"]] += row["count"]
        self._commit(rows, table_id, reflects)

    def record(self, table_id: str, reflects: Mapping[str, InputVersion]) -> None:
        self._commit({}, table_id, reflects)

    def _commit(self, rows: dict[str, Rows], table_id: str, reflects: Mapping[str, InputVersion]) -> None:
        self._pause("commits")
        table = self._table
        if self._is_overtaken():
            raise Overtaken
        table.version += 1
        before = {day: table.recorded.get((table_id, day)) for day in reflects}
        table.rows |= rows
        table.recorded = self._still_holds(reflects) | {(table_id, day): found for day, found in reflects.items()}
        table.committed(Commit(table_id, rows, reflects, before))

    def _still_holds(self, days: Collection[str]) -> dict[tuple[str, str], InputVersion]:
        """What stays recorded when these days are counted again: everything about other days."""
        return {(of, day): recorded for (of, day), recorded in self._table.recorded.items() if day not in days}


def count(devices: Devices, snapshot: Snapshot, days: Sequence[str]) -> pa.Table:
    """Count as Spark does. Raises FileNotFoundError for a vacuumed file, and UnsupportedTable for renamed columns."""
    assert isinstance(snapshot, _Snapshot)
    if snapshot.renamed:
        raise UnsupportedTable(f"{_URI} has other columns")
    counted = {day: Rows() for day in days}
    for day in days:
        for uri in snapshot.files.get(day, ()):
            path = uri.removeprefix(f"{_URI}/")
            counted[day] += devices.rows(path, snapshot.entries[path])
    rows = [(date.fromisoformat(day), *device, number) for day in days for device, number in counted[day].items()]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in device_counts.SCHEMA]
    return pa.table(columns, schema=device_counts.SCHEMA)
