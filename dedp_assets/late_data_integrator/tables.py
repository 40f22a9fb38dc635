"""The integrator's tables in a lake, and what they say together."""

from collections.abc import Callable, Collection
from contextlib import suppress

import dagster as dg

from dedp_assets.delta.log import DeltaLog
from dedp_assets.late_data_integrator import contract, state
from dedp_assets.late_data_integrator.device_counts import DeviceCounts, Overtaken
from dedp_assets.resources.lake import LakeResource


def open_devices_log(lake: LakeResource) -> DeltaLog:
    """The log of the input table."""
    return lake.open_log(contract.DEVICES, contract.PARTITION_COLUMN)


def open_counts(lake: LakeResource) -> DeviceCounts:
    """The latest version of the table of counts. Creates the table if there is none."""
    return DeviceCounts.open(lake.table_uri(contract.DEVICE_COUNTS), lake.storage_options())


def observe_progress(lake: LakeResource, in_progress: Collection[str]) -> state.Progress:
    """How far every day is now. Creates and writes nothing.

    Args:
        lake: where the tables are.
        in_progress: the days whose runs are queued or under way; see `state.days_in_progress`.

    Raises:
        TableProblem: a table can't be read, or there is no input table.
    """
    table = lake.open_table(contract.DEVICE_COUNTS)
    counts = None if table is None else DeviceCounts(table, lake.storage_options())
    return state.observe_progress(open_devices_log(lake), counts, in_progress)


def publish_state(
    lake: LakeResource, instance: dg.DagsterInstance, without_run: str | None = None
) -> tuple[state.Progress, bool]:
    """Make the state table say how far every day is.

    Args:
        lake: where the tables are.
        instance: tells which runs are queued or under way.
        without_run: the id of a run that counts as finished.

    Returns:
        How far every day is, and whether the state table had to be written.

    Raises:
        TableProblem: a table can't be read or written, or there is no input table.
        OvertakenTooOften: other runs kept writing the state table first.
    """
    return state.publish(
        lake.table_uri(contract.PARTITIONS_STATE),
        lambda: observe_progress(lake, state.days_in_progress(instance, without_run)),
        lake.storage_options(),
    )


def record_moved_files(progress: state.Progress, open_counts: Callable[[], DeviceCounts]) -> bool:
    """Record the files that the rows of days were moved to by compaction. Returns whether there were any.

    Without this, every tick would read the log again from before the compaction on, to see that no row has changed.

    Args:
        progress: what was observed.
        open_counts: opens the latest version of the table of counts.

    Raises:
        TableProblem: the table of counts can't be read or written.
    """
    if not progress.moved:
        return False
    counts = open_counts()
    # A run may have recorded something newer since the progress was observed.
    known = counts.all_recorded().get(progress.snapshot.table_id, {})
    unchanged = {day: moved for day, moved in progress.moved.items() if known.get(day) == progress.recorded[day]}
    if unchanged:
        with suppress(Overtaken):  # the next tick will see them again
            counts.record(progress.snapshot.table_id, unchanged)
    return bool(unchanged)
