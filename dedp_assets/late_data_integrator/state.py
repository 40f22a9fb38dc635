"""How far each day is, and what follows from it for readers elsewhere: state table and backfilling configuration.

Everything here is derived: from the input's snapshot and log, from what the counts record, and from Dagster's runs
under way. Nothing here is asked when it is decided what to process.
"""

import json
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import dagster as dg
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from dedp_assets.delta.commits import Snapshot
from dedp_assets.delta.creation import create_if_missing
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.reading import read_columns
from dedp_assets.late_data_integrator import contract
from dedp_assets.late_data_integrator.device_counts import DeviceCounts, Recorded
from dedp_assets.late_data_integrator.processing import Late, NeverFinished, changed_since, reflected
from dedp_assets.partition_runs import partitions_of, runs_in_progress

# Each one is lost to another run that says how far it is.
_ATTEMPTS = 100

SCHEMA = pa.schema(
    [
        pa.field("partition", pa.string()),
        pa.field("isProcessed", pa.bool_()),
        pa.field("lastProcessedVersion", pa.int64()),
    ]
)


class PartitionState(NamedTuple):
    """A row of the state table. `is_processed` is the original's name for: it is being processed."""

    partition: str
    is_processed: bool
    last_processed_version: int | None


@dataclass(frozen=True)
class Progress:
    """Input and output of every day at one moment, and the days whose runs are queued or under way.

    recorded: what the counts reflect of the input table; recorded_before: days whose counts reflect a table that was
    there before under the same path, or one that nobody knows.
    """

    snapshot: Snapshot
    recorded: Mapping[str, Recorded]
    recorded_before: Collection[str]
    changed: Mapping[str, Late | None]
    in_progress: Collection[str]

    @cached_property
    def late(self) -> list[str]:
        """The days that were processed and have changed since, or are gone, in order."""
        return sorted({*self.changed, *self.recorded_before})

    @property
    def late_commits(self) -> dict[str, Late]:
        """The commits that changed a day since what was recorded, as far as they are known."""
        return {day: late for day, late in self.changed.items() if late}

    @property
    def moved(self) -> dict[str, Recorded]:
        """Days whose input is in other files than is recorded, with the same content; what they reflect.

        Also those of which too little is recorded to tell a file from itself, rewritten in place.
        """
        now = {
            day: reflected(self.snapshot, day)._replace(version=known.version) for day, known in self.recorded.items()
        }
        return {day: found for day, found in now.items() if day not in self.changed and found != self.recorded[day]}


def look(devices: DeltaLog, counts: DeviceCounts, in_progress: Collection[str]) -> Progress:
    """Where everything is now. Raises TableProblem if the input can't be read."""
    snapshot = devices.snapshot()
    all_recorded = counts.all_recorded()
    recorded = all_recorded.pop(snapshot.table_id, {})
    before = {day for days in all_recorded.values() for day in days} - recorded.keys()
    return Progress(snapshot, recorded, before, changed_since(recorded, snapshot, devices), in_progress)


def state_rows(recorded: Mapping[str, Recorded], in_progress: Collection[str]) -> list[PartitionState]:
    """The state table: every day that was processed or is being processed, in order."""
    return [
        PartitionState(
            contract.partition_name(day), day in in_progress, recorded[day].version if day in recorded else None
        )
        for day in sorted({*recorded, *in_progress})
    ]


def to_backfill(progress: Progress, current: str) -> list[str]:
    """The days before `current` that have to be processed again, by the original's rule.

    Processed before, not being processed, and changed since or gone.
    """
    return [day for day in progress.late if day < current and day not in progress.in_progress]


def backfilling_configuration(days: Iterable[str]) -> str:
    """The original's file: `{"partitions":["event_time=2024-01-02"]}`."""
    return json.dumps({"partitions": [contract.partition_name(day) for day in days]}, separators=(",", ":"))


def read_state(uri: str, storage_options: dict[str, str]) -> list[PartitionState]:
    """The rows of the state table, in order; none if it is not there."""
    if not DeltaTable.is_deltatable(uri, storage_options):
        return []
    return _rows(DeltaTable(uri, storage_options=storage_options))


def publish(uri: str, look_again: Callable[[], Progress], storage_options: dict[str, str]) -> tuple[Progress, bool]:
    """Make the state table say how far every day is; returns that, and whether the table had to be written.

    The table is opened before the look: whoever writes in between makes this write fail, and the next look tells. So
    what was seen earlier never replaces what was seen later.
    """
    create_if_missing(uri, SCHEMA, storage_options, partition_by=[])
    for attempt in range(_ATTEMPTS):
        table = DeltaTable(uri, storage_options=storage_options)
        progress = look_again()
        rows = state_rows(progress.recorded, progress.in_progress)
        if _rows(table) == rows:
            return progress, False
        data = pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=SCHEMA)
        try:
            write_deltalake(table, data, mode="overwrite", commit_properties=CommitProperties(max_commit_retries=0))
        except CommitFailedError:
            time.sleep(random.uniform(0, min(0.02 * 2**attempt, 0.5)))
        else:
            return progress, True
    raise NeverFinished(
        f"the state table {uri} could not be written: {_ATTEMPTS} times in a row somebody else committed first. "
        "Let fewer runs write at once."
    )


def days_in_progress(instance: dg.DagsterInstance, without_run: str | None = None) -> set[str]:
    """The days whose counts a run has yet to bring up to date, be it queued or under way.

    `without_run` leaves one of them out.
    """
    return {
        day
        for run in runs_in_progress(instance, contract.DEVICE_COUNTS)
        if run.run_id != without_run
        for day in partitions_of(run, contract.DAYS) - _counted_by(instance, run)
    }


def _counted_by(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """The days whose counts the run has brought up to date. It may still have other assets to do."""
    if run.status not in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING):
        return set()
    events = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    return {
        event.partition_key for event in events if event.asset_key == contract.DEVICE_COUNTS and event.partition_key
    }


def _rows(table: DeltaTable) -> list[PartitionState]:
    columns = read_columns(table, SCHEMA.names)
    return sorted(PartitionState(*row.values()) for row in columns.to_pylist())
