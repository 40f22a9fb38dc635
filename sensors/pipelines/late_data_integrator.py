"""What the late-data integrator watches: commits to its input, and days that don't reflect it, whatever events say."""

from collections.abc import Collection, Mapping
from datetime import datetime, timezone

import dagster as dg

from dedp_assets.days import closed_days
from dedp_assets.delta.problems import TableMissing
from dedp_assets.late_data_integrator import contract, state, tables
from dedp_assets.resources.lake import LakeResource
from sensors import reconciliation
from sensors.delta_commits import commit_sensor

TARGETS = [contract.DEVICE_COUNTS, contract.PARTITIONS_STATE, contract.BACKFILLING_CONFIGURATION]


def days_behind(
    progress: state.Progress, appeared: Collection[str], known: Collection[str], told: Mapping[str, int]
) -> dict[str, str]:
    """The days that should be processed again, or for the first time, with what identifies their input.

    appeared: days of which the input has ever had data. known: days that there are partitions for. told: the version
    of the latest materialization of each day's counts that Dagster knows.
    """
    closed = closed_days(known, appeared)
    new = closed & progress.snapshot.files.keys() - progress.recorded.keys()
    changed = closed.intersection(progress.late) | set(progress.recorded_before)
    # Written by a run that died before it could say so: a run that finds nothing to do will. What was told last may
    # also be a version that this table has not come to yet, if another one was there before.
    latest = max([progress.snapshot.version, *(recorded.version for recorded in progress.recorded.values())])
    untold = {day for day, recorded in progress.recorded.items() if not recorded.version <= told.get(day, -1) <= latest}
    snapshot = progress.snapshot
    behind = {day: f"{snapshot.fingerprint(day)}.{snapshot.stamp(day)}" for day in new | changed}
    return {day: f"untold {progress.recorded[day].version}" for day in sorted(untold)} | dict(sorted(behind.items()))


def versions_told(instance: dg.DagsterInstance) -> dict[str, int]:
    """The version of the input that Dagster's latest materialization of each day's counts names."""
    tag = "dagster/data_version"
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        contract.DEVICE_COUNTS, dg.DagsterEventType.ASSET_MATERIALIZATION, [tag]
    )
    return {day: int(found[tag]) for day, found in tags.items() if found.get(tag, "").isdigit()}


def _observe(context: dg.SensorEvaluationContext) -> reconciliation.Observed:
    lake: LakeResource = context.resources.lake
    try:
        progress, repaired = tables.publish_state(lake, context.instance)
    except TableMissing as problem:
        raise reconciliation.NotObservable(str(problem)) from problem
    now = datetime.now(timezone.utc)
    behind = days_behind(
        progress,
        appeared=context.instance.get_materialized_partitions(contract.DEVICES),
        known=contract.DAYS.get_partition_keys(current_time=now),
        told=versions_told(context.instance),
    )
    tables.record_moved_files(progress, lambda: tables.open_counts(lake))
    notes = ["the state table was put right"] if repaired else []
    return reconciliation.Observed(behind, progress.in_progress, notes)


devices_committed = commit_sensor(
    "devices_committed",
    contract.DEVICES,
    partitions=contract.DAYS,
    partition_column=contract.PARTITION_COLUMN,
    pool=contract.POOL,
    writer="`dedp load-delta`",
)

late_data_reconciled = reconciliation.reconciling_sensor(
    "late_data_reconciled",
    TARGETS,
    _observe,
    description="Requests days that are still behind their input, and puts the state table right after a crash.",
    required_resource_keys={"lake"},
)
