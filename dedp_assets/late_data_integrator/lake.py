"""The integrator's tables, where the settings say that they are."""

from contextlib import suppress

import dagster as dg

from dedp_assets.delta.log import DeltaLog
from dedp_assets.late_data_integrator import contract, state
from dedp_assets.late_data_integrator.device_counts import DeviceCounts, Overtaken
from dedp_assets.resources.object_store import storage_options


def devices_log() -> DeltaLog:
    """The log of the input table."""
    uri = contract.uri(contract.DEVICES)
    return DeltaLog(uri, storage_options(uri), contract.PARTITION_COLUMN)


def open_counts() -> DeviceCounts:
    """The table of counts as it is now."""
    uri = contract.uri(contract.DEVICE_COUNTS)
    return DeviceCounts.open(uri, storage_options(uri))


def look(instance: dg.DagsterInstance, without_run: str | None = None) -> state.Progress:
    """How far every day is; `without_run` is a run that is taken as over."""
    return state.look(devices_log(), open_counts(), state.days_in_progress(instance, without_run))


def publish_state(instance: dg.DagsterInstance, without_run: str | None = None) -> tuple[state.Progress, bool]:
    """Make the state table say how far every day is; returns that, and whether the table had to be written."""
    uri = contract.uri(contract.PARTITIONS_STATE)
    return state.publish(uri, lambda: look(instance, without_run), storage_options(uri))


def follow_moved_files(progress: state.Progress) -> bool:
    """Record the files that days were moved to by compaction; returns whether there were any.

    Otherwise every look would have to read the log from before the compaction on, to see that nothing has changed.
    """
    if not progress.moved:
        return False
    counts = open_counts()
    # As of now: a run may have recorded something newer since the look.
    known = counts.all_recorded().get(progress.snapshot.table_id, {})
    unchanged = {day: moved for day, moved in progress.moved.items() if known.get(day) == progress.recorded[day]}
    if unchanged:
        with suppress(Overtaken):  # the next look will see them again
            counts.record(progress.snapshot.table_id, unchanged)
    return bool(unchanged)
