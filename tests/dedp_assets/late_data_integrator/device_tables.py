"""A Delta table of devices that somebody else writes, its counts, and a way to count without Spark."""

import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

from dedp_assets.delta.commits import Snapshot
from dedp_assets.delta.log import DeltaLog
from dedp_assets.late_data_integrator import contract
from dedp_assets.late_data_integrator.device_counts import SCHEMA, DeviceCounts
from dedp_assets.late_data_integrator.processing import Processed

# Computes the counts of days from a snapshot, as the Spark job does.
Counting: TypeAlias = Callable[[Snapshot, Sequence[str]], pa.Table]
# A part of a commit: JSON of any form.
Action: TypeAlias = dict[str, Any]


class Run(Protocol):
    """Brings the counts of days up to date without Spark, and says for each day what was done."""

    def __call__(self, *days: str, while_counting: Callable[[], object] = ...) -> list[Processed]:
        """`while_counting` is called at each attempt, after the input is read and before the counts are written."""


class Lake:
    """The input table and the table of counts, in the test's own home."""

    def __init__(self) -> None:
        self.devices_uri = contract.uri(contract.DEVICES)
        self.counts_uri = contract.uri(contract.DEVICE_COUNTS)
        Path(self.devices_uri).parent.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> DeltaLog:
        return DeltaLog(self.devices_uri)

    def open_counts(self) -> DeviceCounts:
        return DeviceCounts.open(self.counts_uri, {})

    def append(self, day: str, *names: str) -> int:
        """Append devices with these names to a day, in one commit. Returns its version."""
        write_deltalake(self.devices_uri, self.rows(day, *names), mode="append", partition_by=["event_time"])
        return self.devices.version()

    def overwrite(self, day: str, *names: str) -> None:
        where = f"event_time = '{day}'"
        write_deltalake(self.devices_uri, self.rows(day, *names), mode="overwrite", predicate=where)

    @staticmethod
    def rows(day: str, *names: str) -> pa.Table:
        columns = {"type": ["phone"] * len(names), "full_name": list(names), "version": ["1"] * len(names)}
        return pa.table({**columns, "event_time": pa.array([date.fromisoformat(day)] * len(names), pa.date32())})

    @property
    def devices(self) -> DeltaTable:
        return DeltaTable(self.devices_uri)

    def counts(self, day: str) -> dict[str, int]:
        """The counts of a day, by the names of the devices."""
        table = DeltaTable(self.counts_uri).to_pyarrow_table(filters=[("event_time", "=", date.fromisoformat(day))])
        return dict(zip(table["full_name"].to_pylist(), table["count"].to_pylist(), strict=True))

    def versions_written(self) -> int:
        """How often the table of counts has been written since its creation."""
        return DeltaTable(self.counts_uri).version()


def count(snapshot: Snapshot, days: Sequence[str]) -> pa.Table:
    """The same as the Spark job computes, for small tables: from the files of the snapshot."""
    parts = [
        pq.read_table(file, columns=["type", "full_name", "version"], partitioning=None).append_column(
            "event_time", pa.array([date.fromisoformat(day)] * rows, pa.date32())
        )
        for day in days
        for file in snapshot.files.get(day, ())
        for rows in [pq.read_metadata(file).num_rows]
    ]
    if not parts:
        return SCHEMA.empty_table()
    groups = (
        pa.concat_tables(parts).group_by(["event_time", "type", "full_name", "version"]).aggregate([([], "count_all")])
    )
    return groups.rename_columns(SCHEMA.names)


def commit_file(lake: Lake, version: int) -> Path:
    return Path(lake.devices_uri) / "_delta_log" / f"{version:020}.json"


def actions(lake: Lake, version: int, kind: str) -> list[Action]:
    lines = commit_file(lake, version).read_text().splitlines()
    return [found[kind] for line in lines if kind in (found := json.loads(line))]


def write_commit(lake: Lake, version: int, *actions: Action) -> None:
    commit_file(lake, version).write_text("".join(f"{json.dumps(action)}\n" for action in actions))


def removal(add: Action, **changed: object) -> Action:
    return {"remove": {name: add[name] for name in ("path", "partitionValues")} | {"dataChange": True} | changed}


def forget_commits(lake: Lake, *versions: int) -> None:
    """Remove commits from the log, after a checkpoint, as Delta does."""
    lake.devices.create_checkpoint()
    for version in versions:
        commit_file(lake, version).unlink(missing_ok=True)
