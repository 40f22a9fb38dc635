"""Deliveries of many suppliers, watched by one sensor instead of a worker slot for each of them.

A tick scans the folders in which something may have come, asks the pipeline what was taken of them, and requests runs
for the deliveries that are complete. It also reports, once, who has not delivered when the window of a day has closed.
The rule is in `dedp_assets.landing.deliveries`. Waiting is an entry in the cursor and holds nothing.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg

from dedp_assets.errors import DedpError, ErrorNote
from dedp_assets.landing.deliveries import (
    GLANCES_PER_TICK,
    READY,
    Cursor,
    Key,
    Plan,
    Ready,
    Request,
    Situation,
    closed_windows,
    folders_to_scan,
    plan_deliveries,
    state_of,
    told_once,
)
from dedp_assets.landing.delivery_folders import DeliveryFolders, Folders
from dedp_assets.landing.versions import FileVersion
from dedp_assets.origin import origin_tag
from dedp_assets.partition_runs import AHEAD_OF_BACKFILLS, runs_in_progress
from dedp_assets.run_processes import fail_ended_runs
from sensors.ticks import TickReport, errors_first, reporting_tick, some_of

# What a tick says of more is too long to read.
MAX_NOTES = 20
# After a message that could not be sent, no other is tried for so long.
NOTIFY_PAUSE_SECONDS = 300


@dataclass(frozen=True)
class DeliveryPipeline:
    """What a sensor over deliveries needs to know of its pipeline.

    Attributes:
        targets: The assets that a run takes deliveries with.
        checks: The checks of these assets that such a run evaluates.
        suppliers: All of whom deliveries are expected.
        landing: The folder that has a folder for each supplier.
        copies: The folder of our copies of a supplier's deliveries, with a folder for each day.
        settle_seconds: How long a folder that changed after its marker must have been seen unchanged, in s.
        first_day: The first day of which a delivery can be taken.
        window_closes: When the window of a day closes, as UTC without a time zone.
        taken: The files of what was taken last of each delivery, by name. Those of which nothing was are missing.
        run_config: What a run is told: the deliveries that it takes.
        partition: The partition key of a delivery.
        deliveries_of: The deliveries that a run takes.
        missing_check: A check of the first target that fails while a delivery is missing.
        notify: Tells people of a delivery that is missing. It raises DedpError if it can't, and is called again.
        jobs: The jobs that take deliveries, too, and are no jobs of assets.
    """

    targets: Sequence[dg.AssetKey]
    checks: Sequence[dg.AssetCheckKey]
    suppliers: Callable[[], Sequence[str]]
    landing: Callable[[], Path]
    copies: Callable[[str], Path]
    settle_seconds: Callable[[], float]
    first_day: str
    window_closes: Callable[[str], datetime]
    taken: Callable[[dg.SensorEvaluationContext, Iterable[Key]], Mapping[Key, Mapping[str, FileVersion]]]
    run_config: Callable[[Sequence[Ready]], dg.RunConfig]
    partition: Callable[[Key], str]
    deliveries_of: Callable[[dg.DagsterRun], Iterable[Key]]
    missing_check: str
    notify: Callable[[dg.SensorEvaluationContext, Key], None]
    jobs: Collection[str] = ()


def delivery_sensor(
    name: str,
    pipeline: DeliveryPipeline,
    *,
    description: str,
    max_runs: int = 4,
    required_resource_keys: set[str] | None = None,
    folders: DeliveryFolders | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dg.SensorDefinition:
    """A sensor that takes the deliveries of any number of suppliers and days, each version once.

    Args:
        name: Of the sensor.
        pipeline: What it watches, and what it requests.
        description: For the UI.
        max_runs: How many of its runs may be queued or under way at once. More deliveries wait, the largest ones last.
        required_resource_keys: The resources that the pipeline needs.
        folders: Lists and scans the folders.
        metadata: Of the sensor, such as `doorbell.woken_by.woken_by`.
    """
    folders = folders or DeliveryFolders()

    @dg.sensor(
        name=name,
        description=description,
        target=dg.AssetSelection.assets(*pipeline.targets),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=1,
        metadata=metadata,
        required_resource_keys=required_resource_keys,
    )
    @reporting_tick
    def sensor(context: dg.SensorEvaluationContext, report: TickReport) -> None:
        now = datetime.now(timezone.utc)
        cursor, problem = Cursor.from_json(context.cursor)
        if problem:
            report.notes.append(f"{problem}; all folders are scanned again")
        plan = _plan(context, pipeline, folders, cursor, now, max_runs, report.notes)
        report.run_requests = [_run_request(pipeline, request) for request in plan.requests]
        report.notes += errors_first(plan.notes)[:MAX_NOTES]
        if len(plan.notes) > MAX_NOTES:
            report.notes.append(f"and {len(plan.notes) - MAX_NOTES:,} more")
        following = _notified(context, pipeline, plan.cursor, now.timestamp(), report.notes)
        report.asset_events += _missing_check(pipeline, cursor, following)
        if not report.notes:
            report.notes.append("nothing new")
        report.cursor = following.to_json()

    return sensor


def _plan(
    context: dg.SensorEvaluationContext,
    pipeline: DeliveryPipeline,
    folders: DeliveryFolders,
    cursor: Cursor,
    now: datetime,
    max_runs: int,
    notes: list[str],
) -> Plan:
    suppliers, root, today = pipeline.suppliers(), pipeline.landing(), now.date().isoformat()
    found = folders.list(root, suppliers, pipeline.first_day, today)
    new_names, told = told_once(found.useless, cursor.told)
    if new_names:
        notes.append(f"not taken: {some_of(new_names)}")
    notes += found.problems
    closed, closed_until = closed_windows(cursor.closed, now.replace(tzinfo=None), pipeline.window_closes)
    new = [*_never_copied(pipeline, found), *folders.glance(root, found.days, GLANCES_PER_TICK)]
    keys, turn = folders_to_scan(found.days, new, closed, cursor, today)
    scans = folders.scan(root, keys)
    of_closed = [(supplier, day) for day in closed for supplier in suppliers]
    taken = pipeline.taken(context, dict.fromkeys([*scans, *of_closed]))
    may_request = any(state_of(scan) in READY and taken.get(key) != scan.files for key, scan in scans.items())
    in_progress, free_runs = _under_way(context, pipeline, max_runs) if may_request else (set(), max_runs)
    situation = Situation(
        now=now.timestamp(),
        settle_seconds=pipeline.settle_seconds(),
        suppliers=suppliers,
        closed=closed,
        closed_until=closed_until,
        in_progress=in_progress,
        free_runs=free_runs,
    )
    plan = plan_deliveries(scans, taken, cursor, situation)
    return replace(plan, cursor=replace(plan.cursor, turn=turn, told=told))


def _never_copied(pipeline: DeliveryPipeline, found: Folders) -> list[Key]:
    """Folders of which we have no copy, of suppliers whose folder has changed: late deliveries of any day."""
    new = []
    for supplier in sorted(found.changed):
        try:
            copied = set(os.listdir(pipeline.copies(supplier)))
        except OSError:
            copied = set()
        new += [(supplier, day) for day in found.days.get(supplier, ()) if day not in copied]
    return new


def _under_way(context: dg.SensorEvaluationContext, pipeline: DeliveryPipeline, max_runs: int) -> tuple[set[Key], int]:
    """The deliveries that runs are taking, and how many more runs may be requested."""
    fail_ended_runs(context.instance)
    runs = runs_in_progress(context.instance, pipeline.targets[0], jobs=pipeline.jobs)
    return {key for run in runs for key in pipeline.deliveries_of(run)}, max(0, max_runs - len(runs))


def _run_request(pipeline: DeliveryPipeline, request: Request) -> dg.RunRequest:
    # A run of several deliveries has no partition, and the materializations that it records have theirs.
    keys = [delivery.key for delivery in request.deliveries]
    return dg.RunRequest(
        run_key=request.run_key,
        asset_selection=list(pipeline.targets),
        asset_check_keys=list(pipeline.checks),
        run_config=pipeline.run_config(request.deliveries),
        partition_key=pipeline.partition(keys[0]) if len(keys) == 1 else None,
        tags={**origin_tag("file"), **AHEAD_OF_BACKFILLS},
    )


def _notified(
    context: dg.SensorEvaluationContext, pipeline: DeliveryPipeline, cursor: Cursor, now: float, notes: list[str]
) -> Cursor:
    """Tell people of missing deliveries; returns the cursor with those of which nobody could be told."""
    untold = list(cursor.untold)
    for key in cursor.untold if now >= cursor.notify_due else ():
        try:
            pipeline.notify(context, key)
        except DedpError as error:
            notes.append(ErrorNote(error))
            if error.may_pass:
                # Whoever does not answer may take a minute over it, and meanwhile no delivery is seen.
                cursor = replace(cursor, notify_due=now + NOTIFY_PAUSE_SECONDS)
                break
        untold.remove(key)
    return replace(cursor, untold=tuple(untold))


def _missing_check(pipeline: DeliveryPipeline, before: Cursor, following: Cursor) -> list[dg.AssetCheckEvaluation]:
    """The check of missing deliveries, when it changes."""
    if following.missing == before.missing:
        return []
    return [
        dg.AssetCheckEvaluation(
            asset_key=pipeline.targets[0],
            check_name=pipeline.missing_check,
            passed=not following.missing,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"missing": ["/".join(key) for key in following.missing]},
        )
    ]
