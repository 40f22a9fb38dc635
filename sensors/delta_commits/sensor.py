"""The sensor that reports every day of a Delta table that a commit changed."""

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import TableMissing
from dedp_assets.errors import ErrorNote
from dedp_assets.resources.lake import LakeResource
from sensors.delta_commits.cursor import Cursor
from sensors.delta_commits.events import materialization
from sensors.delta_commits.observing import observe_table, snapshot_is_due
from sensors.delta_commits.planning import plan_report
from sensors.pools import ensure_limit
from sensors.ticks import TickReport, reporting_tick


def commit_sensor(
    name: str,
    key: dg.AssetKey,
    *,
    partitions: dg.TimeWindowPartitionsDefinition,
    partition_column: str,
    pool: str,
    writer: str,
    metadata: Mapping[str, Any] | None = None,
) -> dg.SensorDefinition:
    """Make a sensor that reports every day of a Delta table that a commit changed. It requests no runs.

    The resource `lake` says where the table is.

    Args:
        name: the name of the sensor.
        key: the asset that stands for the table. Each change becomes a materialization of it.
        partitions: the partitions of the asset.
        partition_column: the one column that the table is partitioned by.
        pool: the concurrency pool of the runs that follow. It gets its default limit before the first of them.
        writer: what writes the table. The message names it while there is no table.
        metadata: of the sensor, such as `doorbell.woken_by.woken_by`.
    """
    # When the last snapshot was taken (s since the epoch), by the table and by whether there were new commits. It is
    # kept here and not in the cursor: the cursor would change although nothing is new in the table.
    snapshots_taken: dict[tuple[str, bool], float] = {}

    def evaluate(context: dg.SensorEvaluationContext, report: TickReport) -> None:
        lake: LakeResource = context.resources.lake
        log, cursor = lake.open_log(key, partition_column), Cursor.from_json(context.cursor)

        def wants_snapshot(has_commits: bool) -> bool:
            return snapshot_is_due(snapshots_taken.get((log.uri, has_commits)), time.time())

        try:
            state = observe_table(log, cursor, wants_snapshot=wants_snapshot)
        except TableMissing:
            missing = _describe_missing(log, cursor, writer)
            report.notes.append(ErrorNote(missing) if cursor else missing)
            return
        if state.has_read_snapshot:
            snapshots_taken[log.uri, bool(state.commits)] = time.time()
        first, last = _first_and_last_day(partitions, datetime.now(timezone.utc))
        plan = plan_report(state, cursor, first=first, last=last, column=log.partition_column)
        if plan.changes:
            ensure_limit(context.instance, pool)
        if state.notes or plan.changes:
            # Not in every tick: Dagster keeps the log of each tick in a file of its own.
            for note in plan.notes:
                context.log.info(note)
        report.asset_events += [materialization(key, change) for change in plan.changes]
        report.notes += plan.notes or [f"nothing new in {log.uri} since version {state.version}"]
        report.cursor = plan.cursor.to_json()

    make_sensor = dg.sensor(
        name=name,
        description=f"Reports every day of {key.to_user_string()} that a commit changed, once it can be read.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=1,
        metadata=metadata,
        required_resource_keys={"lake"},
    )
    return make_sensor(reporting_tick(evaluate))


def _first_and_last_day(partitions: dg.TimeWindowPartitionsDefinition, now: datetime) -> tuple[str, str]:
    # Not by listing every partition: in each tick, that would take longer than everything else.
    with dg.partition_loading_context(now):
        days = partitions.get_first_partition_key(), partitions.get_last_partition_key()
    return days[0] or "", days[1] or ""


def _describe_missing(log: DeltaLog, cursor: Cursor | None, writer: str) -> str:
    if cursor is None:
        return f"there is no Delta table at {log.uri} yet: {writer} writes one"
    return (
        f"the Delta table at {log.uri} is gone; it was followed to version {cursor.version}. When there is a table "
        f"again, every day that differs is reported; {writer} writes one"
    )
