"""Who follows the commits, who reads a snapshot with deltalake, and Spark say the same of a table, after each commit.

Random sequences of what writers do to a real table with real deltalake: append, delete, update, overwrite, optimize,
restore, vacuum, checkpoint; and by hand, removing old commits behind a checkpoint. The seed tells the sequence:
`THREE_READERS=100` plays that many.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import DeltaError

from dedp_assets.delta.commits import Snapshot
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.log_files import LOG
from dedp_assets.delta.problems import LogCleaned, TableProblem
from dedp_assets.late_data_integrator.counting import count_devices
from dedp_assets.resources_from_settings import SparkFromSettings
from tests.corpora.following import Following

STEPS = 8
SEEDS = range(int(os.environ.get("THREE_READERS", "4")))
DAYS = [f"2024-01-0{number}" for number in range(1, 5)]

Counts = dict[str, Counter[tuple[str | None, ...]]]


class Writer:
    """Somebody who writes the table, in every way that there is."""

    def __init__(self, uri: str, chance: random.Random) -> None:
        self.uri, self.chance, self.written = uri, chance, 0
        self.append()

    @property
    def table(self) -> DeltaTable:
        return DeltaTable(self.uri)

    def rows(self, *days: str) -> pa.Table:
        """A few devices for each day, some of them with a column more."""
        times = [date.fromisoformat(day) for day in days for _ in range(self.chance.randint(1, 4))]
        names = [self.chance.choice("abc") for _ in times]
        self.written += 1
        versions = pa.array([self.chance.choice([None, "1", "2"]) for _ in times], pa.string())
        return pa.table({"type": ["phone"] * len(times), "full_name": names, "version": versions, "event_time": times})

    def some_days(self) -> list[str]:
        return self.chance.sample(DAYS, self.chance.randint(1, 3))

    def append(self) -> None:
        write_deltalake(self.uri, self.rows(*self.some_days()), mode="append", partition_by=["event_time"])

    def append_with_a_column_more(self) -> None:
        data = self.rows(*self.some_days())
        more = data.append_column("more", pa.array([1] * len(data)))
        write_deltalake(self.uri, more, mode="append", schema_mode="merge", partition_by=["event_time"])

    def delete_some(self) -> None:
        self.table.delete(f"full_name = '{self.chance.choice('abc')}' AND event_time = '{self.chance.choice(DAYS)}'")

    def delete_a_day(self) -> None:
        self.table.delete(f"event_time = '{self.chance.choice(DAYS)}'")

    def update(self) -> None:
        self.table.update(new_values={"version": "7"}, predicate=f"full_name = '{self.chance.choice('abc')}'")

    def overwrite_a_day(self) -> None:
        day = self.chance.choice(DAYS)
        write_deltalake(self.uri, self.rows(day), mode="overwrite", predicate=f"event_time = '{day}'")

    def overwrite_all(self) -> None:
        write_deltalake(self.uri, self.rows(*self.some_days()), mode="overwrite", schema_mode="overwrite")

    def optimize(self) -> None:
        self.table.optimize.compact()

    def restore(self) -> None:
        self.table.restore(self.chance.randint(0, self.table.version()))

    def restore_what_is_left(self) -> None:
        """Files that were vacuumed are not there any more: nobody can read their days then."""
        self.table.restore(self.chance.randint(0, self.table.version()), ignore_missing_files=True)

    def vacuum(self) -> None:
        self.table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)

    def checkpoint(self) -> None:
        self.table.create_checkpoint()

    def clean_up_the_log(self) -> None:
        self.table.create_checkpoint()
        latest = self.table.version()
        for file in Path(self.uri, LOG).glob("*.json"):
            if file.stem.isdigit() and int(file.stem) < latest:
                file.unlink()


WAYS: list[Callable[[Writer], None]] = [
    Writer.append,
    Writer.append,
    Writer.append_with_a_column_more,
    Writer.delete_some,
    Writer.delete_a_day,
    Writer.update,
    Writer.overwrite_a_day,
    Writer.overwrite_all,
    Writer.optimize,
    Writer.restore,
    Writer.restore_what_is_left,
    Writer.vacuum,
    Writer.checkpoint,
    Writer.clean_up_the_log,
]


class Follower:
    """A reader that follows commits, and takes a snapshot only if the log does not say what comes next."""

    def __init__(self, log: DeltaLog) -> None:
        self.log = log
        self.version = -1
        self.following = Following(Snapshot("", -1, {}, log.uri))

    def look(self) -> set[str] | None:
        """The days that have changed since the last look; None for: compare."""
        changed: set[str] = set()
        try:
            for commit in self.log.commits(self.version):
                self.following.take(commit)
                self.version = commit.version
                changed |= set(commit.changes)
        except LogCleaned:
            snapshot = self.log.snapshot()
            self.version, self.following = snapshot.version, Following(snapshot)
            return None
        return changed


def by_deltalake(uri: str) -> Counts | str:
    """The counts of each day by deltalake's own query; what it says if it can't read the rows."""
    try:
        query = (
            QueryBuilder()
            .register("t", DeltaTable(uri))
            .execute("SELECT event_time, type, full_name, version, count(*) AS n FROM t GROUP BY ALL")
        )
        rows = pa.table(query.read_all()).to_pylist()
    except (DeltaError, OSError, ValueError) as error:
        return str(error)
    except Exception as error:  # as its query's errors are
        return str(error)
    return counted(rows)


def by_spark(uri: str) -> Counts | str:
    """The same by `count_devices`, of our snapshot."""
    try:
        snapshot = DeltaLog(uri).snapshot()
        rows = count_devices(SparkFromSettings().session, snapshot, DAYS).to_pylist()
    except TableProblem as problem:
        return str(problem)
    except Exception as error:
        return str(error)
    return counted(rows)


def counted(rows: list[dict[str, Any]]) -> Counts:
    found: Counts = {}
    for row in rows:
        day, *device, number = row.values()
        found.setdefault(day.isoformat(), Counter())[tuple(device)] += number
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_the_three_readers_of_a_table_agree_after_each_commit(spark_remote: str, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    uri = str(tmp_path / "devices")
    writer, follower = Writer(uri, chance), Follower(DeltaLog(uri))
    story = ["append"]
    known: Counts | None = {}
    for _ in range(STEPS):
        expected, found = by_deltalake(uri), by_spark(uri)
        if isinstance(expected, str) or isinstance(found, str):
            assert isinstance(expected, str), (story, found)
            assert isinstance(found, str), (story, expected)
        else:
            assert found == expected, story
        # Not after each commit: others look every minute, and the log may have been cleaned up in between.
        if chance.random() < 0.7:
            changed = follower.look()
            snapshot = DeltaLog(uri).snapshot()
            assert follower.version == snapshot.version, story
            assert follower.following.state == Following(snapshot).state, story
            now = expected if isinstance(expected, dict) else None
            if changed is not None and known is not None and now is not None:
                others = {day for day in DAYS if now.get(day) != known.get(day)}
                assert others <= changed, (story, others, changed)
            known = now
        way = chance.choice(WAYS)
        story.append(way.__name__)
        with suppress(DeltaError):  # a version to restore whose files or commits are gone
            way(writer)
