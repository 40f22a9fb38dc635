"""Hundreds of directories that files arrive in, watched by one sensor instead of a worker slot for each of them.

A tick scans the directories, asks the pipeline's ledger for what is new, and requests runs for the files that are
complete. The rule is in `dedp_assets.landing.arrivals`. Waiting is an entry in the cursor and holds nothing.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from dedp_assets.errors import DedpError, ErrorNote
from dedp_assets.landing.arrivals import (
    MAX_FILES_PER_RUN,
    MAX_NOTES,
    MAX_RUNS,
    Arrival,
    Cursor,
    Known,
    Plan,
    Request,
    Situation,
    TimedOut,
    directories_to_scan,
    files_to_compare,
    in_scan_order,
    plan_arrivals,
    unchanged_since,
)
from dedp_assets.landing.directories import Directory, ObjectFolder, Scan, Scanner
from dedp_assets.landing.object_folders import AnyFolders, sha256_of_object
from dedp_assets.landing.renames import Renames
from dedp_assets.landing.versions import FileVersion, sha256_of
from dedp_assets.origin import origin_tag
from dedp_assets.partition_runs import runs_in_progress
from dedp_assets.run_processes import fail_ended_runs
from dedp_assets.wording import counted
from sensors.ticks import TickReport, errors_first, noting_errors, reporting_tick

# A tick reads so much of the files that it requests, to tell their content; of what is beyond, the run does it.
MAX_READ_BYTES = 64 << 20
# All directories are compared with the ledger once in so many seconds, also those in which nothing has changed: a part
# of them in each tick of the daemon's loop of 5 s.
RECHECK_SECONDS = 500
_LOOP_SECONDS = 5
# After a message that could not be sent, no other is tried for so long.
NOTIFY_PAUSE_SECONDS = 300


class Watched(NamedTuple):
    """The directories to watch.

    Attributes:
        directories: Where they are, and how they are watched.
        problems: What is wrong with the settings that name them.
        max_runs: How many of the sensor's runs may be queued or under way. More files wait, the most urgent first.
        max_files_per_run: How many files a run may take.
    """

    directories: Sequence[Directory]
    problems: Sequence[str]
    max_runs: int = MAX_RUNS
    max_files_per_run: int = MAX_FILES_PER_RUN


class DirectoryTick(NamedTuple):
    """What a tick found, for metrics and tables.

    Attributes:
        directories: All watched directories.
        plan: What the tick does.
        before: The cursor before it.
        now: When it began, in s since the epoch.
        seconds: How long it took.
    """

    directories: Sequence[Directory]
    plan: Plan
    before: Cursor
    now: float
    seconds: float


class Ledger(Protocol):
    """Where a pipeline keeps which version of each file it has dealt with. Its methods raise DedpError."""

    def known_files(self, asked: Mapping[str, Sequence[str]]) -> Mapping[str, Mapping[str, Known]]:
        """The versions that were dealt with last, by client and file; asked for by client."""

    def confirm_versions(self, same: Sequence[tuple[str, str, FileVersion]]) -> None:
        """Note that files (client, name) are in a new version that has the content of the one before."""

    def report(self, tick: DirectoryTick) -> None:
        """Keep what a tick found."""


@dataclass(frozen=True)
class DirectoryPipeline:
    """What a sensor over directories needs to know of its pipeline.

    Attributes:
        targets: The assets that a run takes files with.
        partitions: Of these assets: one for each client.
        watched: The directories to watch now.
        ledger: Opens the ledger, with the resources of the tick.
        run_config: What a run is told: the files that it takes, with the SHA-256 of each where it is known.
        files_of: The files that a run takes, as client and name, from the run's config.
        workflow: The job that its runs are runs of, of these assets only.
        check: A check of the first target that fails while a directory is silent for longer than its limit.
        notify: Tells people of a directory that is silent. It raises DedpError if it can't, and is called again.
    """

    targets: Sequence[dg.AssetKey]
    partitions: dg.DynamicPartitionsDefinition
    watched: Callable[[], Watched]
    ledger: Callable[[dg.SensorEvaluationContext], AbstractContextManager[Ledger]]
    run_config: Callable[[Sequence[tuple[Arrival, str]]], dg.RunConfig]
    files_of: Callable[[dg.DagsterRun], Iterable[tuple[str, str]]]
    workflow: UnresolvedAssetJobDefinition
    check: str
    notify: Callable[[dg.SensorEvaluationContext, TimedOut], None]


def directory_sensor(
    name: str,
    pipeline: DirectoryPipeline,
    *,
    description: str,
    required_resource_keys: set[str] | None = None,
    scanner: Scanner | None = None,
    first: Callable[[], Collection[Path | ObjectFolder]] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dg.SensorDefinition:
    """A sensor that takes the files of any number of directories, each version once.

    Args:
        name: Of the sensor.
        pipeline: What it watches, and what it requests.
        description: For the UI.
        required_resource_keys: The resources that the ledger needs.
        scanner: Scans the directories.
        first: Names directories in which something has changed, as a watcher of a file system or of a queue knows them.
            They are scanned first; everything else is decided as without it. It may name too few, too many, or raise a
            DedpError, which the tick notes.
        metadata: Of the sensor, such as `doorbell.woken_by.woken_by`.
    """
    scanner, renames, turns = scanner or Scanner(AnyFolders().scan), Renames(), count()

    @dg.sensor(
        name=name,
        description=description,
        target=pipeline.workflow,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=1,
        metadata=metadata,
        required_resource_keys=required_resource_keys,
    )
    @reporting_tick
    def sensor(context: dg.SensorEvaluationContext, report: TickReport) -> None:
        began, now = time.monotonic(), datetime.now(timezone.utc).timestamp()
        cursor, problem = Cursor.from_json(context.cursor)
        if problem:
            report.notes.append(f"{problem}; all directories are compared with the ledger again")
        watched = pipeline.watched()
        report.notes += map(ErrorNote, watched.problems)
        due = directories_to_scan(watched.directories, cursor, now)
        hint: Collection[Path | ObjectFolder] = ()
        with noting_errors(report.notes):
            hint = first() if first else ()
        again = _recheck(due, now)
        scans = scanner.scan_all(in_scan_order(due, hint, next(turns)), is_unchanged=unchanged_since(cursor, again))
        with pipeline.ledger(context) as ledger:
            compared = files_to_compare(due, scans, cursor, again)
            known = ledger.known_files(compared)
            situation = replace(
                _situation(context, pipeline, cursor, now, watched),
                renamed=_renamed(renames, due, scans, compared, known),
            )
            plan = plan_arrivals(watched.directories, scans, compared, known, cursor, situation)
            runs = _runs(plan.requests, known, ledger)
            ledger.report(DirectoryTick(watched.directories, plan, cursor, now, time.monotonic() - began))
        clients = sorted({client for run in runs for client in run.clients})
        if clients:
            # Those that are there already stay as they are.
            report.new_partitions = [pipeline.partitions.build_add_request(clients)]
        report.run_requests = [_run_request(pipeline, run) for run in runs]
        report.notes += errors_first(plan.notes)[:MAX_NOTES]
        following = _notified(context, pipeline, plan, now, report.notes)
        report.asset_events += _timeout_check(pipeline, watched.directories, following, cursor)
        if not report.notes:
            report.notes.append(f"nothing new in {counted(len(due), 'watched folder')}")
        report.cursor = following.to_json()

    return sensor


def _recheck(directories: Sequence[Directory], now: float) -> set[str]:
    """The clients whose turn it is to be compared with the ledger although nothing may have changed."""
    turns = RECHECK_SECONDS // _LOOP_SECONDS
    return {directory.client for directory in directories[int(now / _LOOP_SECONDS) % turns :: turns]}


def _renamed(
    renames: Renames,
    directories: Iterable[Directory],
    scans: Mapping[str, Scan],
    compared: Mapping[str, Sequence[str]],
    known: Mapping[str, Mapping[str, Known]],
) -> set[tuple[str, str]]:
    """Which of the files that were compared are new, and were renamed into place; as client and name."""
    # Only folders that have just been scanned: one that hangs would keep us, too.
    failed = {client for client, scan in scans.items() if scan.failure}
    answered = [
        directory
        for directory in directories
        if directory.completeness == "settled"
        and type(directory.path) is not ObjectFolder
        and directory.client in scans
        and directory.client not in failed
    ]
    renames.follow([directory.place for directory in answered])
    return {
        (directory.client, name)
        for directory in (answered if compared else ())
        if directory.client in compared
        for name in renames.complete(directory.place, _new(directory.client, scans, compared, known))
    }


def _new(
    client: str,
    scans: Mapping[str, Scan],
    compared: Mapping[str, Sequence[str]],
    known: Mapping[str, Mapping[str, Known]],
) -> dict[str, FileVersion]:
    files, in_ledger = scans[client].files, known.get(client, {})
    return {
        name: files[name]
        for name in compared[client]
        if name not in in_ledger or in_ledger[name].version != files[name]
    }


def _situation(
    context: dg.SensorEvaluationContext, pipeline: DirectoryPipeline, cursor: Cursor, now: float, watched: Watched
) -> Situation:
    is_waiting_for_runs = any(file.requests for files in cursor.waiting.values() for file in files.values())
    if not is_waiting_for_runs:
        return Situation(now, (), watched.max_runs, watched.max_files_per_run)
    fail_ended_runs(context.instance)
    runs = runs_in_progress(context.instance, pipeline.targets[0])
    in_progress = {file for run in runs for file in pipeline.files_of(run)}
    return Situation(now, in_progress, max(0, watched.max_runs - len(runs)), watched.max_files_per_run)


class _Run(NamedTuple):
    """A run to request: the files that it takes, with the SHA-256 of each where it was read."""

    run_key: str
    priority: int
    files: list[tuple[Arrival, str]]

    @property
    def clients(self) -> set[str]:
        return {arrival.directory.client for arrival, _ in self.files}


def _runs(requests: Sequence[Request], known: Mapping[str, Mapping[str, Known]], ledger: Ledger) -> list[_Run]:
    """The runs to request. Files that only look new, because they were touched, are noted in the ledger instead."""
    may_read = MAX_READ_BYTES
    same: list[tuple[str, str, FileVersion]] = []
    runs = []
    for request in requests:
        files = []
        for arrival in request.arrivals:
            sha256 = ""
            before = known.get(arrival.directory.client, {}).get(arrival.file)
            # An object that is not in the ledger is not downloaded twice, here and by the run.
            is_asked = before is not None or not isinstance(arrival.directory.path, ObjectFolder)
            if is_asked and arrival.version.size <= may_read:
                may_read -= arrival.version.size
                sha256 = _sha256(arrival)
            if before is not None and before.sha256 == sha256:
                same.append((arrival.directory.client, arrival.file, arrival.version))
            else:
                files.append((arrival, sha256))
        if files:
            runs.append(_Run(request.run_key, request.priority, files))
    if same:
        ledger.confirm_versions(same)
    return runs


def _sha256(arrival: Arrival) -> str:
    """The SHA-256 of a file, or "" if it can't be read any more."""
    folder = arrival.directory.path
    if isinstance(folder, ObjectFolder):
        return sha256_of_object(folder, arrival.file) or ""
    return sha256_of(folder / arrival.file) or ""


def _run_request(pipeline: DirectoryPipeline, run: _Run) -> dg.RunRequest:
    # Not over the range of its clients: Dagster would show whatever lies between as failed when the run fails. A run of
    # several clients has no partition, and the materializations that it records have theirs.
    return dg.RunRequest(
        run_key=run.run_key,
        asset_selection=list(pipeline.targets),
        run_config=pipeline.run_config(run.files),
        partition_key=next(iter(run.clients)) if len(run.clients) == 1 else None,
        tags={**origin_tag("file"), "dagster/priority": str(run.priority)},
    )


def _notified(
    context: dg.SensorEvaluationContext, pipeline: DirectoryPipeline, plan: Plan, now: float, notes: list[str]
) -> Cursor:
    """Tell people of silent directories; returns the cursor without those of which nobody could be told."""
    cursor, untold = plan.cursor, [silent.directory.key for silent in plan.timed_out]
    for silent in plan.timed_out if now >= cursor.notify_due else []:
        try:
            pipeline.notify(context, silent)
        except DedpError as error:
            notes.append(ErrorNote(error))
            if error.may_pass:
                # Whoever does not answer may take a minute over it, and meanwhile no file is seen.
                cursor = replace(cursor, notify_due=now + NOTIFY_PAUSE_SECONDS)
                break
        untold.remove(silent.directory.key)
    return replace(cursor, timed_out=tuple(key for key in cursor.timed_out if key not in untold))


def _timeout_check(
    pipeline: DirectoryPipeline, directories: Sequence[Directory], following: Cursor, cursor: Cursor
) -> list[dg.AssetCheckEvaluation]:
    """The check of silent directories, when it changes."""
    silent = set(following.timed_out)
    if silent == set(cursor.timed_out):
        return []
    return [
        dg.AssetCheckEvaluation(
            asset_key=pipeline.targets[0],
            check_name=pipeline.check,
            passed=not silent,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"silent": [directory.client for directory in directories if directory.key in silent]},
        )
    ]
