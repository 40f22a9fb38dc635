"""A real Delta table that somebody else writes, and ticks of the sensor that follows it."""

import json
import shutil
from datetime import date, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import time_machine
from deltalake import DeltaTable, write_deltalake

from dedp_assets.delta.commits import Snapshot
from dedp_assets.delta.log import DeltaLog
from dedp_assets.late_data_integrator import contract
from dedp_assets.resources_from_settings import LakeFromSettings
from sensors.delta_commits.cursor import Cursor
from sensors.pipelines.late_data_integrator import devices_committed
from tests.ticks import SensorTicks, Tick

FIRST, SECOND, THIRD, FOURTH = "2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"
AT = datetime(2024, 1, 5, tzinfo=timezone.utc)
FUTURE = (datetime.now(timezone.utc) + timedelta(days=40)).date()

# The types that the partition column may have.
KINDS = {"string": pa.string(), "date": pa.date32()}

# An action of a commit, as its file has it.
Action = dict[str, Any]

VECTOR: Action = {
    "storageType": "u",
    "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA",
    "offset": 1,
    "sizeInBytes": 36,
    "cardinality": 1,
}


class Devices:
    """The table that somebody else writes. Every row gets a name of its own."""

    def __init__(self, kind: str = "string") -> None:
        self.uri, self.kind, self.names = contract.uri(contract.DEVICES), kind, count()
        Path(self.uri).parent.mkdir(parents=True, exist_ok=True)

    @property
    def delta(self) -> DeltaTable:
        return DeltaTable(self.uri)

    @property
    def snapshot(self) -> Snapshot:
        return DeltaLog(self.uri).snapshot()

    def rows(self, *days: str | None) -> pa.Table:
        values = [date.fromisoformat(day) if day and self.kind == "date" else day for day in days]
        names = [str(next(self.names)) for _ in days]
        columns = {"type": ["phone"] * len(days), "full_name": names, "version": ["1"] * len(days)}
        return pa.table({**columns, "event_time": pa.array(values, KINDS[self.kind])})

    def append(self, *days: str | None, configuration: dict[str, str | None] | None = None) -> None:
        write_deltalake(
            self.uri, self.rows(*days), mode="append", partition_by=["event_time"], configuration=configuration
        )

    def overwrite(self, day: str) -> None:
        write_deltalake(self.uri, self.rows(day), mode="overwrite", predicate=f"event_time = '{day}'")

    def remove(self) -> None:
        shutil.rmtree(self.uri)

    def commit_file(self, version: int) -> Path:
        return Path(self.uri) / "_delta_log" / f"{version:020}.json"

    def actions(self, version: int, kind: str) -> list[Action]:
        lines = [json.loads(line) for line in self.commit_file(version).read_text().splitlines()]
        return [line[kind] for line in lines if kind in line]

    def write_commit(self, version: int, *actions: Action) -> None:
        self.commit_file(version).write_text("".join(f"{json.dumps(action)}\n" for action in actions))

    def clean_up(self, kept: int = 1) -> None:
        """Write a checkpoint, and remove the commits before it except the last `kept` ones."""
        version = self.delta.version()
        self.delta.create_checkpoint()
        for old in range(version + 1 - kept):
            self.commit_file(old).unlink(missing_ok=True)


def add_of(day: str) -> Action:
    """An add action, with a file that does not exist."""
    return {
        "path": f"event_time={day}/x.parquet",
        "partitionValues": {"event_time": day},
        "size": 1,
        "modificationTime": 1,
        "dataChange": True,
    }


def protocol_with(*features: str) -> Action:
    """The action that makes a table need these features of its readers and writers."""
    versions = {"minReaderVersion": 3, "minWriterVersion": 7}
    return {"protocol": versions | {"readerFeatures": list(features), "writerFeatures": list(features)}}


class CommitTicks(SensorTicks):
    """Ticks of `devices_committed`."""

    def __init__(self, instance: dg.DagsterInstance, records_events: bool = True) -> None:
        super().__init__(
            devices_committed, instance, resources={"lake": LakeFromSettings()}, records_events=records_events
        )

    def __call__(self) -> Tick:
        result = super().__call__()
        assert not result.run_requests
        return result

    def reported(self) -> dict[str, int]:
        """The days that a tick reports, with their data versions."""
        return versions(self())

    @property
    def left(self) -> Cursor:
        """The cursor that the last tick stored."""
        cursor = Cursor.from_json(self.cursor)
        assert cursor is not None
        return cursor


def versions(tick: Tick) -> dict[str, int]:
    """The days that a tick reported, with their data versions."""
    found: dict[str, int] = {}
    for event in tick.events:
        assert event.partition
        assert event.partition not in found
        found[event.partition] = int((event.tags or {})["dagster/data_version"])
    return found


def a_minute_later() -> time_machine.travel:
    """A block in which it is a minute later, so that a snapshot is due."""
    return time_machine.travel(datetime.now(timezone.utc) + timedelta(seconds=61))
