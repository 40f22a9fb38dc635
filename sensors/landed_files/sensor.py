"""The sensor that has each day's file copied once it has arrived."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg

from dedp_assets.landing.dated import DatedFolder, scan_landing
from dedp_assets.landing.renames import Renames
from dedp_assets.landing.taking_in import LandedFiles, materialization
from dedp_assets.landing.versions import FileVersion
from dedp_assets.landing.wanted import StoredCopies
from dedp_assets.partition_runs import partitions_in_progress, range_tags
from dedp_assets.run_processes import fail_ended_runs
from sensors.landed_files.cursor import Cursor
from sensors.landed_files.planning import Request, TickInputs, compares_copies, new_files, plan_runs
from sensors.reconciliation import CAUSE_TAG
from sensors.ticks import TickReport, errors_first, reporting_tick

# More notes would make a tick message too long to read.
_MAX_NOTES = 20


def run_request(request: Request, key: dg.AssetKey) -> dg.RunRequest:
    """Request a run over one partition, or over a range of partitions.

    Args:
        request: the days, and the landed file of each.
        key: the asset that copies landed files.
    """
    files = LandedFiles(
        sources=request.sources, complete={name: version.to_text() for name, version in request.complete.items()}
    )
    return dg.RunRequest(
        run_key=request.run_key,
        asset_selection=[key],
        run_config=dg.RunConfig(ops={key.to_python_identifier(): files}),
        partition_key=request.days[0] if len(request.days) == 1 else None,
        tags=range_tags(request.days) | ({CAUSE_TAG: request.cause} if request.cause else {}),
    )


def landed_files_sensor(
    name: str,
    key: dg.AssetKey,
    *,
    partitions: dg.PartitionsDefinition,
    landing: Callable[[], DatedFolder],
    copy_of: Callable[[str], Path],
    due_days: Callable[[datetime], Sequence[str]],
    undated_due_days: Callable[[datetime], Collection[str]],
    settle_seconds: Callable[[], float],
    description: str,
    metadata: Mapping[str, Any] | None = None,
) -> dg.SensorDefinition:
    """Make a sensor that requests a run for each day whose file is there, complete and new. Waiting takes up no run.

    Args:
        name: the name of the sensor.
        key: the asset that copies a day's file, with `LandedFiles` as its config.
        partitions: the partitions of that asset.
        landing: returns the folder that files arrive in, as the settings name it.
        copy_of: returns the path of a day's copy.
        due_days: returns the days that are over at a given time, in order.
        undated_due_days: returns the due days that may take the undated file.
        settle_seconds: returns how long a file must have been seen unchanged, in s.
        description: what the UI says of the sensor.
        metadata: of the sensor, such as `doorbell.woken_by.woken_by`.
    """

    renames = Renames()

    def evaluate(context: dg.SensorEvaluationContext, report: TickReport) -> None:
        now = datetime.now(timezone.utc)
        cursor = Cursor.from_json(context.cursor)
        # Read the runs before the copies. Otherwise a run that ends in between would be requested again.
        in_progress = None
        if compares_copies(cursor, now.timestamp()):
            fail_ended_runs(context.instance)
            in_progress = partitions_in_progress(context.instance, key, partitions)
        folder = landing()
        listing = scan_landing(folder)
        # A folder is followed once it has been listed, so a file that came together with its folder has to settle.
        renames.follow([str(folder.path), *(str(folder.path / day) for day in listing.folders)])
        inputs = TickInputs(
            landing=folder,
            now=now.timestamp(),
            settle_seconds=settle_seconds(),
            due=due_days(now),
            undated_due=undated_due_days(now),
            materialized=context.instance.get_materialized_partitions(key),
            in_progress=in_progress,
            renamed=renamed_files(renames, folder, new_files(listing, cursor)),
        )
        plan = plan_runs(listing, cursor, StoredCopies(folder, copy_of), inputs)
        if plan.cursor.told != cursor.told and not plan.requests:
            # Not in every tick: Dagster keeps the log of each tick in a file of its own.
            for note in plan.notes:
                context.log.info(note)
        report.run_requests = [run_request(request, key) for request in plan.requests]
        report.asset_events += [materialization(key, day, copied) for day, copied in plan.unreported.items()]
        report.notes += errors_first(plan.notes)[:_MAX_NOTES] or [f"nothing new in {folder.path}"]
        report.cursor = plan.cursor.to_json()

    make_sensor = dg.sensor(
        name=name,
        description=description,
        target=dg.AssetSelection.assets(key),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=1,
        metadata=metadata,
    )
    return make_sensor(reporting_tick(evaluate))


def renamed_files(renames: Renames, folder: DatedFolder, files: Mapping[str, FileVersion]) -> set[str]:
    """Which of the landed files were renamed into place and need not settle.

    Args:
        renames: what is known of the folders.
        folder: the landing folder.
        files: new files in the versions that were found, by day; UNDATED for the undated file.
    """
    name = folder.file_name
    return {day for day, version in files.items() if renames.complete(str(folder.path / day), {name: version})}
