"""The two Delta tables of the integrator, in memory.

Of the input, what the code under test reads is real: the bytes of its commits, parsed by `DeltaLog`, and `Snapshot`s.
The table of counts has what `DeviceCounts` has, and the one property that everything rests on: a commit fails when
somebody else has committed since the table was opened.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timezone
from typing import Any, NamedTuple

import pyarrow as pa

from dedp_assets.late_data_integrator import device_counts
from dedp_assets.late_data_integrator.delta_log import LOG, DeltaLog, Snapshot, TableProblem
from dedp_assets.late_data_integrator.device_counts import Overtaken, Recorded

# type, full_name, version -> how many rows
Rows = Counter[tuple[str, str, str]]
Pause = Callable[[str], None]

_URI = "memory:/devices"


def do_not_pause(where: str) -> None:
    """For whoever is not interrupted."""


class Devices:
    """The input table, with everything that it has ever been."""

    def __init__(self) -> None:
        self.number = 1  # of the tables that there have been
        self.versions: list[dict[str, str]] = []  # per version: the files, path -> day
        self.changed: list[set[str]] = []  # per version: the days whose data it changed
        self.log: dict[str, bytes] = {}
        self.rows: dict[str, Rows] = {}  # of each file that is there, by path
        self.changes: Counter[str] = Counter()  # how often each was, in this table and those before it
        self.compactions: Counter[str] = Counter()
        self.cleaned = 0  # the oldest version whose commit is still in the log
        self.log_was_cleaned = False  # of this table, or one before it
        self.was_put_back = False  # since then versions do not tell what is newer
        self._files = 0

    @property
    def table_id(self) -> str:
        return f"table-{self.number}"

    @property
    def version(self) -> int:
        return len(self.versions) - 1

    @property
    def files(self) -> dict[str, str]:
        """The files of the latest version, path -> day."""
        return self.versions[-1] if self.versions else {}

    def of_day(self, day: str, version: int = -1) -> list[str]:
        """The files of a day."""
        return [path for path, its_day in self.versions[version].items() if its_day == day] if self.versions else []

    def recount(self, day: str) -> Rows:
        """What the counts of a day have to be now."""
        return sum((self.rows[path] for path in self.of_day(day)), Rows())

    def append(self, days: Iterable[str]) -> None:
        """New rows in each of the days."""
        self._commit("WRITE", [self._new_file(day) for day in days], [])

    def overwrite(self, day: str) -> None:
        """Other rows in place of those that the day has."""
        self._commit("WRITE", [self._new_file(day)], self.of_day(day))

    def delete(self, day: str) -> None:
        """The day without its oldest rows."""
        self._commit("DELETE", [], self.of_day(day)[:1])

    def compact(self, day: str) -> None:
        """One file with the same rows in place of the files that the day has."""
        self.compactions[day] += 1
        self._commit("OPTIMIZE", [self._new_file(day, self.recount(day))], self.of_day(day), changes_data=False)

    def restore(self, day: str, version: int) -> None:
        """The files that the day had in an earlier version."""
        now, then = self.of_day(day), self.of_day(day, version)
        back = [(path, day) for path in then if path not in now]
        self._commit("RESTORE", back, [path for path in now if path not in then])

    def clean_log(self) -> None:
        """Remove every commit before the latest, which a checkpoint holds."""
        for version in range(self.cleaned, self.version):
            self.log.pop(_commit_file(version), None)
        self.cleaned, self.log_was_cleaned = self.version, True
        self.log[f"{LOG}/_last_checkpoint"] = json.dumps({"version": self.version}).encode()

    def vacuum(self) -> None:
        """Remove the files that the latest version does not have."""
        self.rows = {path: rows for path, rows in self.rows.items() if path in self.files}

    def put_back(self, version: int) -> None:
        """The table as it was at a version, as from a backup. Its next commits have the numbers of others."""
        now, then = self.files, self.versions[version]
        self.changes.update({(now | then)[path] for path in now.keys() ^ then.keys()})
        for later in range(version + 1, len(self.versions)):
            del self.log[_commit_file(later)]
        del self.versions[version + 1 :], self.changed[version + 1 :]
        self.was_put_back = True

    def make_anew(self) -> None:
        """Another table in the same place, with nothing in it yet."""
        self.number += 1
        self.versions.clear()
        self.changed.clear()
        self.log.clear()
        self.cleaned = 0
        self._write([{"metaData": {"id": self.table_id}}, {"commitInfo": {"operation": "CREATE TABLE"}}], {}, set())

    def _new_file(self, day: str, rows: Rows | None = None) -> tuple[str, str]:
        self._files += 1
        path = f"event_time={day}/part-{self._files}.parquet"
        # Its first row is in no other file, its second one is in all.
        self.rows[path] = rows or Rows({("phone", f"device {self._files}", "1"): 1, ("tablet", "common", "1"): 1})
        return path, day

    def _commit(
        self, operation: str, add: list[tuple[str, str]], remove: list[str], *, changes_data: bool = True
    ) -> None:
        if not self.versions:
            self._write([{"metaData": {"id": self.table_id}}, {"commitInfo": {"operation": "CREATE TABLE"}}], {}, set())
        days = {path: day for path, day in add} | {path: self.files[path] for path in remove}
        actions: list[dict[str, Any]] = [{"commitInfo": {"operation": operation}}]
        for path in remove:
            actions.append({"remove": _action(path, days[path], changes_data)})
        for path, day in add:
            rows = self.rows[path].total()
            actions.append({"add": _action(path, day, changes_data) | {"stats": json.dumps({"numRecords": rows})}})
        kept = {path: day for path, day in self.files.items() if path not in remove}
        self._write(actions, kept | dict(add), set(days.values()) if changes_data else set())

    def _write(self, actions: list[dict[str, Any]], files: dict[str, str], changed: set[str]) -> None:
        self.versions.append(files)
        self.changed.append(changed)
        self.changes.update(changed)
        for action in actions:
            if "commitInfo" in action:
                action["commitInfo"]["timestamp"] = 1_704_000_000_000 + self.version
        self.log[_commit_file(self.version)] = b"\n".join(json.dumps(action).encode() for action in actions)


def _action(path: str, day: str, changes_data: bool) -> dict[str, Any]:
    return {"path": path, "partitionValues": {"event_time": day or None}, "dataChange": changes_data}


def _commit_file(version: int) -> str:
    return f"{LOG}/{version:020}.json"


class Log(DeltaLog):
    """What `DeltaLog` is to a table on a disk."""

    def __init__(self, table: Devices, pause: Pause = do_not_pause) -> None:
        # Not the base's: it would open a folder.
        self.uri, self.partition_column = _URI, "event_time"
        self._storage_options, self._has_dates = None, None
        self._files = _Files(table.log)
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
        if not self._table.versions:
            raise self._missing()
        version = self._table.version if version is None else version
        if version > self._table.version:
            raise TableProblem(f"{_URI} has no version {version} any more")
        files: dict[str, list[str]] = {}
        for path, day in self._table.versions[version].items():
            files.setdefault(day, []).append(f"{_URI}/{path}")
        return Snapshot(self._table.table_id, version, {day: tuple(sorted(uris)) for day, uris in files.items()}, _URI)


class _Files:
    """The files of the log, as `DeltaLog` asks for them."""

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
    """A commit to the table of counts: the rows of the days that it replaced, what its days reflect now and before."""

    table_id: str
    rows: Mapping[str, Rows]
    reflects: Mapping[str, Recorded]
    before: Mapping[str, Recorded | None]


class CountsTable:
    """The table of counts. `committed` is told of each commit to it. devices: the table that is counted."""

    def __init__(self, devices: Devices) -> None:
        self.devices = devices
        self.version = 0
        self.rows: dict[str, Rows] = {}
        self.recorded: dict[tuple[str, str], Recorded] = {}
        self.committed: Callable[[Commit], None] = lambda commit: None


class Counts:
    """What `DeviceCounts` is to a table on a disk: the table as of the version in which it was opened."""

    def __init__(self, table: CountsTable, pause: Pause = do_not_pause) -> None:
        pause("opens the counts")
        self._table, self._pause = table, pause
        self.version, self._rows, self._recorded = table.version, dict(table.rows), dict(table.recorded)

    def recorded(self, table_id: str, day: str) -> Recorded | None:
        return self._recorded.get((table_id, day))

    def all_recorded(self) -> dict[str, dict[str, Recorded]]:
        found: dict[str, dict[str, Recorded]] = {}
        for (table_id, day), recorded in sorted(self._recorded.items()):
            found.setdefault(table_id, {})[day] = recorded
        return found

    def rows_counted(self, days: Sequence[str]) -> dict[str, int]:
        return {day: self._rows[day].total() for day in days if self._rows.get(day)}

    def _is_overtaken(self) -> bool:
        return self._table.version != self.version

    def replace(self, counts: pa.Table, table_id: str, reflects: Mapping[str, Recorded]) -> None:
        rows = {day: Rows() for day in reflects}
        for row in counts.to_pylist():
            rows[row["event_time"].isoformat()][row["type"], row["full_name"], row["version"]] += row["count"]
        self._commit(rows, table_id, reflects)

    def record(self, table_id: str, reflects: Mapping[str, Recorded]) -> None:
        self._commit({}, table_id, reflects)

    def _commit(self, rows: dict[str, Rows], table_id: str, reflects: Mapping[str, Recorded]) -> None:
        self._pause("commits")
        table = self._table
        if self._is_overtaken():
            raise Overtaken
        table.version += 1
        before = {day: table.recorded.get((table_id, day)) for day in reflects}
        table.rows |= rows
        # What was recorded of another table holds no more.
        kept = {(of, day): recorded for (of, day), recorded in table.recorded.items() if day not in reflects}
        table.recorded = kept | {(table_id, day): recorded for day, recorded in reflects.items()}
        table.committed(Commit(table_id, rows, reflects, before))


def count(devices: Devices, snapshot: Snapshot, days: Sequence[str]) -> pa.Table:
    """What Spark counts. Raises FileNotFoundError for a file that was vacuumed."""
    counted = {day: Rows() for day in days}
    for day in days:
        for uri in snapshot.files.get(day, ()):
            path = uri.removeprefix(f"{_URI}/")
            if path not in devices.rows:
                raise FileNotFoundError(path)
            counted[day] += devices.rows[path]
    rows = [(date.fromisoformat(day), *device, number) for day in days for device, number in counted[day].items()]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in device_counts.SCHEMA]
    return pa.table(columns, schema=device_counts.SCHEMA)
