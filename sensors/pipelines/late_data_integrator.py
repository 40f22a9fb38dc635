"""What the late-data integrator watches: commits to its input, and days whose counts do not reflect the input."""

from collections.abc import Collection, Mapping
from datetime import datetime, timezone

import dagster as dg

from dedp_assets.days import closed_days
from dedp_assets.doorbell.woken_by import woken_by
from dedp_assets.late_data_integrator import contract, state, tables
from dedp_assets.resources.lake import LakeResource
from sensors.delta_commits.sensor import commit_sensor
from sensors.reconciliation import Observation, reconciling_sensor
from sensors.ticks import noting_errors

TARGETS = [contract.DEVICE_COUNTS, contract.PARTITIONS_STATE, contract.BACKFILLING_CONFIGURATION]


def days_behind(
    progress: state.Progress, appeared: Collection[str], known: Collection[str], reported: Mapping[str, int]
) -> dict[str, str]:
    """The days that should be counted, or counted again, each with what identifies the version of its input.

    Args:
        progress: the input and the counts of every day.
        appeared: the days for which the input has ever had data.
        known: the days that Dagster has partitions for.
        reported: the data version of the latest materialization of each day's counts, see `reported_versions`.
    """
    closed = closed_days(known, appeared)
    new = closed & progress.snapshot.files.keys() - progress.recorded.keys()
    changed = closed.intersection(progress.late) | set(progress.recorded_before)
    # A run wrote these counts and died before Dagster knew. Another run finds nothing to count, and reports them. The
    # reported version may also be higher than any version of this table, if another table was at its place before.
    latest = max([progress.snapshot.version, *(recorded.version for recorded in progress.recorded.values())])
    unreported = {
        day for day, recorded in progress.recorded.items() if not recorded.version <= reported.get(day, -1) <= latest
    }
    snapshot = progress.snapshot
    behind = {day: f"{snapshot.fingerprint(day)}.{snapshot.stamp(day)}" for day in new | changed}
    # "untold" is in stored cursors.
    return {day: f"untold {progress.recorded[day].version}" for day in sorted(unreported)} | dict(
        sorted(behind.items())
    )


def reported_versions(instance: dg.DagsterInstance) -> dict[str, int]:
    """For each day, the version of the input that the latest materialization of its counts names."""
    tag = "dagster/data_version"
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        contract.DEVICE_COUNTS, dg.DagsterEventType.ASSET_MATERIALIZATION, [tag]
    )
    return {day: int(found[tag]) for day, found in tags.items() if found.get(tag, "").isdigit()}


def _observe(context: dg.SensorEvaluationContext, notes: list[str]) -> Observation:
    lake: LakeResource = context.resources.lake
    progress = _publish_progress(lake, context.instance, notes)
    now = datetime.now(timezone.utc)
    behind = days_behind(
        progress,
        appeared=context.instance.get_materialized_partitions(contract.DEVICES),
        known=contract.DAYS.get_partition_keys(current_time=now),
        reported=reported_versions(context.instance),
    )
    with noting_errors(notes):  # The next tick can do this, too.
        tables.record_moved_files(progress, lambda: tables.open_counts(lake))
    return Observation(behind, progress.in_progress)


def _publish_progress(lake: LakeResource, instance: dg.DagsterInstance, notes: list[str]) -> state.Progress:
    with noting_errors(notes):
        progress, is_repaired = tables.publish_state(lake, instance)
        if is_repaired:
            notes.append("the state table was put right")
        return progress
    # Only readers elsewhere need the state table. What has to run is known without it.
    return tables.observe_progress(lake, state.days_in_progress(instance))


devices_committed = commit_sensor(
    "devices_committed",
    contract.DEVICES,
    partitions=contract.DAYS,
    partition_column=contract.PARTITION_COLUMN,
    pool=contract.POOL,
    writer="`dedp load-delta`",
    metadata=woken_by(folders="sensors.watched_folders:devices_table"),
)

late_data_reconciled = reconciling_sensor(
    "late_data_reconciled",
    TARGETS,
    _observe,
    description="Requests days that are still behind their input, and puts the state table right after a crash.",
    required_resource_keys={"lake"},
)
