"""Whatever writers leave in a log: neither the counts nor the ticks lose a change of a day.

The tests write the commits by hand, also commits that no writer should make, and know the files after each of them.
"""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from deltalake import DeltaTable, Field, Schema

from dedp_assets.delta.commits import Snapshot
from dedp_assets.delta.log import DeltaLog
from dedp_assets.late_data_integrator.processing import changed_since, input_version
from sensors.delta_commits.cursor import Cursor
from sensors.delta_commits.observing import observe_table
from sensors.delta_commits.planning import plan_report

DAY = "2024-01-01"
SCHEMA = Schema([Field(name, "string") for name in ("type", "full_name", "version", "event_time")])  # type: ignore[arg-type]


class File(NamedTuple):
    """A data file: its rows, its size and its time of change."""

    rows: frozenset[int]
    size: int
    modified: int


class Writer:
    """A table of one day, with writers that may do anything. `past` has the day's files at each version, by path."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.choose = random.Random(seed)
        self.uri, self.backup = folder / "devices", folder / "backup"
        DeltaTable.create(str(self.uri), SCHEMA, partition_by=["event_time"])
        self.past: list[dict[str, File]] = [{}]
        self.past_of_backup: list[dict[str, File]] = []
        self.done: list[str] = []
        self._number = 0

    @property
    def rows(self) -> Counter[int]:
        return Counter(row for file in self.past[-1].values() for row in file.rows)

    def step(self) -> None:
        operations: list[Callable[[dict[str, File]], Any]] = [
            self.append,
            self.append_nothing,
            self.remove,
            self.remove_what_is_gone,
            self.compact,
            self.compact_and_name_others,
            self.rewrite_in_place,
            self.refresh_statistics,
            self.remove_and_add_at_once,
            self.purge_what_is_empty,
            self.commit_nothing,
            self.keep_a_backup,
            self.put_the_backup_back,
            self.clean_up,
        ]
        operation = self.choose.choice(operations)
        self.done.append(operation.__name__)
        operation(dict(self.past[-1]))

    def append(self, files: dict[str, File]) -> None:
        path, number = self._new()
        files[path] = File(frozenset({number}), number, number)
        self._commit([self._add(path, files)], files)

    def append_nothing(self, files: dict[str, File]) -> None:
        path, number = self._new()
        files[path] = File(frozenset(), number, number)
        self._commit([self._add(path, files)], files)

    def remove(self, files: dict[str, File]) -> None:
        for path in self._some(files, 1):
            del files[path]
            self._commit([_remove(path)], files)

    def remove_what_is_gone(self, files: dict[str, File]) -> None:
        for path in self._some({path for then in self.past for path in then} - files.keys(), 1):
            self._commit([_remove(path, changes_data=self.choose.random() < 0.5)], files)

    def compact(self, files: dict[str, File]) -> None:
        self._compact(files, [])

    def compact_and_name_others(self, files: dict[str, File]) -> None:
        gone = self._some({path for then in self.past for path in then} - files.keys(), 1)
        self._compact(files, [_remove(path, changes_data=False) for path in gone], kept=1)

    def _compact(self, files: dict[str, File], actions: list[Any], kept: int = 0) -> None:
        paths = self._some(files, self.choose.randint(1, 3))
        if not paths:
            return
        path, number = self._new()
        files[path] = File(frozenset().union(*(files.pop(old).rows for old in paths)), number, number)
        actions += [_remove(old, changes_data=False) for old in paths]
        actions += [self._add(name, files, changes_data=False) for name in self._some(files.keys() - {path}, kept)]
        self._commit([*actions, self._add(path, files, changes_data=False)], files)

    def rewrite_in_place(self, files: dict[str, File]) -> None:
        for path in self._some(files, 1):
            _, number = self._new()
            files[path] = File(frozenset({number}), number, number)
            self._commit([self._add(path, files)], files)

    def refresh_statistics(self, files: dict[str, File]) -> None:
        for path in self._some(files, 1):
            _, number = self._new()
            files[path] = files[path]._replace(modified=self.choose.choice([files[path].modified, number]))
            self._commit([self._add(path, files, changes_data=False)], files)

    def remove_and_add_at_once(self, files: dict[str, File]) -> None:
        for path in self._some(files, 1):
            _, number = self._new()
            changes_data = self.choose.random() < 0.5
            if changes_data:
                files[path] = File(frozenset({number}), number, number)
            self._commit([_remove(path, changes_data), self._add(path, files, changes_data)], files)

    def purge_what_is_empty(self, files: dict[str, File]) -> None:
        for path in self._some({path for path, file in files.items() if not file.rows}, 1):
            del files[path]
            self._commit([_remove(path, changes_data=False)], files)

    def commit_nothing(self, files: dict[str, File]) -> None:
        self._commit([{"commitInfo": {}}], files)

    def keep_a_backup(self, _: dict[str, File]) -> None:
        shutil.rmtree(self.backup, ignore_errors=True)
        shutil.copytree(self.uri, self.backup)
        self.past_of_backup = [*self.past]

    def put_the_backup_back(self, _: dict[str, File]) -> None:
        if self.past_of_backup:
            shutil.rmtree(self.uri)
            shutil.copytree(self.backup, self.uri)
            self.past = [*self.past_of_backup]

    def clean_up(self, _: dict[str, File]) -> None:
        # A checkpoint of deltalake leaves out what a commit removes and adds at once.
        if "remove_and_add_at_once" not in self.done:
            DeltaTable(str(self.uri)).create_checkpoint()
            for version in range(len(self.past) - 1):
                (self.uri / "_delta_log" / f"{version:020}.json").unlink(missing_ok=True)

    def _new(self) -> tuple[str, int]:
        self._number += 1
        return f"event_time={DAY}/{self._number}.parquet", self._number

    def _some(self, of: Any, number: int) -> list[str]:
        return self.choose.sample(sorted(of), min(number, len(of)))

    def _add(self, path: str, files: dict[str, File], changes_data: bool = True) -> dict[str, Any]:
        what = {"size": files[path].size, "modificationTime": files[path].modified, "dataChange": changes_data}
        return {"add": {"path": path, "partitionValues": {"event_time": DAY}} | what}

    def _commit(self, actions: list[dict[str, Any]], files: dict[str, File]) -> None:
        self.choose.shuffle(actions)
        file = self.uri / "_delta_log" / f"{len(self.past):020}.json"
        file.write_text("".join(f"{json.dumps(action)}\n" for action in actions))
        self.past.append(files)


def _remove(path: str, changes_data: bool = True) -> dict[str, Any]:
    what = {"dataChange": changes_data, "deletionTimestamp": 1}
    return {"remove": {"path": path, "partitionValues": {"event_time": DAY}} | what}


def snapshot_of(writer: Writer) -> Snapshot:
    found = DeltaLog(str(writer.uri)).snapshot()
    assert {file.path for file in found.logged_files(DAY)} == writer.past[-1].keys()
    return found


@pytest.mark.parametrize("seed", range(60))
def test_counts_that_do_not_reflect_what_a_day_has_now_are_known_to_be_behind(tmp_path: Path, seed: int) -> None:
    writer = Writer(tmp_path, seed)
    for _ in range(writer.choose.randint(2, 7)):
        writer.step()
    recorded, counted = input_version(snapshot_of(writer), DAY), writer.rows
    for _ in range(7):
        writer.step()
        behind = changed_since({DAY: recorded}, snapshot_of(writer), DeltaLog(str(writer.uri)))
        assert DAY in behind or writer.rows == counted, writer.done


@pytest.mark.parametrize("seed", range(60))
def test_a_change_is_reported_by_the_tick_that_sees_it(tmp_path: Path, seed: int) -> None:
    writer = Writer(tmp_path, seed)
    cursor: Cursor | None = None
    for _ in range(8):
        before: Counter[int] = writer.rows if cursor else Counter()
        for _ in range(writer.choose.randint(0, 3)):
            writer.step()
        is_checked = writer.choose.random() < 0.3
        log = DeltaLog(str(writer.uri))

        def wants_snapshot(_: object, is_checked: bool = is_checked) -> bool:
            return is_checked

        state = observe_table(log, cursor, wants_snapshot=wants_snapshot)
        plan = plan_report(state, cursor, first=DAY, last=DAY, column="event_time")
        assert plan.changes or writer.rows == before, writer.done
        cursor = Cursor.from_json(plan.cursor.to_json())
        assert cursor is not None
        assert cursor.version == len(writer.past) - 1
