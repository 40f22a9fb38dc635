"""How far each day is, and what follows for readers elsewhere: the state table and the backfilling configuration.

Everything here is derived: from the input's snapshot and log, from what the counts record, and from Dagster's queued
and running runs. Nothing decides from it what to process.
"""

import json
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
from dedp_assets.delta.overtaken import pauses
from dedp_assets.delta.problems import named_problems
from dedp_assets.delta.reading import read_columns
from dedp_assets.late_data_integrator import contract
from dedp_assets.late_data_integrator.device_counts import DeviceCounts, InputVersion
from dedp_assets.late_data_integrator.processing import LateCommits, changed_since, input_version
from dedp_assets.partition_runs import partitions_of, runs_in_progress

SCHEMA = pa.schema(
    [
        pa.field("partition", pa.string()),
        pa.field("isProcessed", pa.bool_()),
        pa.field("lastProcessedVersion", pa.int64()),
    ]
)
DESCRIPTIONS = {
    "partition": "The day, as event_time=2024-01-31.",
    "isProcessed": "True while a run that counts the day is queued or under way. The original chose the name.",
    "lastProcessedVersion": "The version of lake/devices that the day's counts reflect. Null before the first count.",
}


class PartitionState(NamedTuple):
    """A row of the state table.

    Attributes:
        partition: the day, as `event_time=2024-01-02`.
        is_processed: whether the day is being processed now. The original chose the name.
        last_processed_version: the version of the input that the day's counts reflect, or None.
    """

    partition: str
    is_processed: bool
    last_processed_version: int | None


@dataclass(frozen=True)
class Progress:
    """The input and the output of every day at one moment.

    Attributes:
        snapshot: the input table.
        recorded: for each counted day, the version of this input table that its counts reflect.
        recorded_before: days whose counts reflect an earlier table at the same place, or an unknown one.
        changed: the days whose input is not what their counts reflect, with the commits that changed it, or None where
            these are unknown.
        in_progress: the days whose runs are queued or under way.
    """

    snapshot: Snapshot
    recorded: Mapping[str, InputVersion]
    recorded_before: Collection[str]
    changed: Mapping[str, LateCommits | None]
    in_progress: Collection[str]

    @cached_property
    def late(self) -> list[str]:
        """The days that were counted before and have late data since, or have lost their data, in order."""
        return sorted({*self.changed, *self.recorded_before})

    @property
    def late_commits(self) -> dict[str, LateCommits]:
        """For each day, the commits that changed it since it was counted. Days without known commits are left out."""
        return {day: late for day, late in self.changed.items() if late}

    @property
    def moved(self) -> dict[str, InputVersion]:
        """Days whose unchanged rows are in other files than recorded, with the input version to record instead.

        This includes days without a recorded stamp: without one, a file that is rewritten in place looks the same.
        """
        now = {
            day: input_version(self.snapshot, day)._replace(version=known.version)
            for day, known in self.recorded.items()
        }
        return {day: found for day, found in now.items() if day not in self.changed and found != self.recorded[day]}


def observe_progress(devices: DeltaLog, counts: DeviceCounts | None, in_progress: Collection[str]) -> Progress:
    """How far every day is now.

    Args:
        devices: the log of the input table.
        counts: the table of counts, opened before this call, or None if there is none.
        in_progress: the days whose runs are queued or under way.

    Raises:
        TableProblem: the input or the counts can't be read.
    """
    snapshot = devices.snapshot()
    all_recorded = {} if counts is None else counts.all_recorded()
    recorded = all_recorded.pop(snapshot.table_id, {})
    before = {day for days in all_recorded.values() for day in days} - recorded.keys()
    return Progress(snapshot, recorded, before, changed_since(recorded, snapshot, devices), in_progress)


def state_rows(recorded: Mapping[str, InputVersion], in_progress: Collection[str]) -> list[PartitionState]:
    """The rows of the state table: every day that was counted or is being counted, in order."""
    return [
        PartitionState(
            contract.partition_name(day), day in in_progress, recorded[day].version if day in recorded else None
        )
        for day in sorted({*recorded, *in_progress})
    ]


def to_backfill(progress: Progress, current: str) -> list[str]:
    """The days before `current` that have to be processed again, by the rule of the original.

    These days were counted before, have late data since or have lost their data, and are not being processed.
    """
    return [day for day in progress.late if day < current and day not in progress.in_progress]


def backfilling_configuration(days: Iterable[str]) -> str:
    """The content of the original's file: `{"partitions":["event_time=2024-01-02"]}`."""
    return json.dumps({"partitions": [contract.partition_name(day) for day in days]}, separators=(",", ":"))


def read_state(uri: str, storage_options: dict[str, str]) -> list[PartitionState]:
    """The rows of the state table, in order; empty if there is no such table.

    Raises:
        TableUnreachable, DamagedTable: the table can't be read.
    """
    with named_problems(uri):
        if not DeltaTable.is_deltatable(uri, storage_options):
            return []
        return _rows(DeltaTable(uri, storage_options=storage_options))


def publish(uri: str, observe_again: Callable[[], Progress], storage_options: dict[str, str]) -> tuple[Progress, bool]:
    """Make the state table say how far every day is.

    The table is opened before the progress is observed. If somebody writes in between, our write fails, and we observe
    again. So an older observation never replaces a newer one.

    Args:
        uri: the state table.
        observe_again: observes the progress.
        storage_options: delta-rs' options for the table's store; empty for a folder.

    Returns:
        The progress that the table shows now, and whether the table had to be written.

    Raises:
        OvertakenTooOften: somebody else committed first, again and again.
        TableProblem: a table can't be read or written.
    """
    create_if_missing(uri, SCHEMA, storage_options, partition_by=[])
    overtaken = pauses(f"the state table {uri}")
    while True:
        with named_problems(uri):
            table = DeltaTable(uri, storage_options=storage_options)
        progress = observe_again()
        rows = state_rows(progress.recorded, progress.in_progress)
        if _rows(table) == rows:
            return progress, False
        data = pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=SCHEMA)
        try:
            with named_problems(uri, "written"):
                write_deltalake(table, data, mode="overwrite", commit_properties=CommitProperties(max_commit_retries=0))
        except CommitFailedError:
            next(overtaken)
        else:
            return progress, True


def days_in_progress(instance: dg.DagsterInstance, without_run: str | None = None) -> set[str]:
    """The days whose counts a queued or running run has yet to bring up to date.

    Args:
        instance: tells which runs there are.
        without_run: the id of a run to leave out, or None.
    """
    return {
        day
        for run in runs_in_progress(instance, contract.DEVICE_COUNTS)
        if run.run_id != without_run
        for day in partitions_of(run, contract.DAYS) - _counted_by(instance, run)
    }


def _counted_by(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """The days whose counts the run has brought up to date. It may still have other assets to materialize."""
    if run.status not in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING):
        return set()
    events = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    return {
        event.partition_key for event in events if event.asset_key == contract.DEVICE_COUNTS and event.partition_key
    }


def _rows(table: DeltaTable) -> list[PartitionState]:
    columns = read_columns(table, SCHEMA.names)
    return sorted(PartitionState(*row.values()) for row in columns.to_pylist())
