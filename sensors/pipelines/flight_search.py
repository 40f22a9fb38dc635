"""What the flight searches watch: files of events that land, and days whose aggregations are behind the searches."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from dedp_assets import settings
from dedp_assets.days import day_of
from dedp_assets.delta.commits import Snapshot, hash_63
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import LogIncomplete, TableMissing
from dedp_assets.doorbell.woken_by import woken_by
from dedp_assets.flight_search import aggregations, contract, searches
from dedp_assets.flight_search.aggregations import Input, is_current
from dedp_assets.flight_search.ingestion import Ingestion, landing_directory, waiting_files
from dedp_assets.landing.directories import Scanner
from dedp_assets.landing.versions import FileVersion, Seen, track_versions
from dedp_assets.partition_runs import partitions_in_progress, runs_in_progress
from dedp_assets.resources.lake import LakeResource
from dedp_assets.wording import counted
from sensors.pools import ensure_limit
from sensors.reconciliation import CAUSE_TAG, Observation, pause, reconciling_sensor
from sensors.ticks import TickReport, reporting_tick, some_of

AGGREGATED = [contract.PER_ROUTE, contract.PER_HOUR]

# A tick reads so much of one file, to tell a day that it has events of.
_PEEK_BYTES = 64 << 10
# A run is told of so many files that they are complete.
_MOST_TOLD = 1000


@dataclass(frozen=True)
class Cursor:
    """What a tick has to know of the ticks before it.

    Attributes:
        seen: the waiting files, and since when each has been unchanged.
        asked: the waiting files for which a run was requested, each with a hash of its version.
        requests: how many runs have been requested for these files.
        due: when the next one may be requested for them, in s since the epoch.
        reported: the version of the table up to which Dagster knows which days have changed; -1 for none.
        mark: tells the commit of this version from that of another table.
    """

    seen: Mapping[str, Seen] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)
    requests: int = 0
    due: float = 0.0
    reported: int = -1
    mark: str | None = None

    def to_json(self) -> str:
        return json.dumps(
            asdict(self) | {"seen": {name: [*each.version, each.since] for name, each in self.seen.items()}}
        )

    @classmethod
    def from_json(cls, text: str | None) -> "Cursor":
        """The stored cursor; an empty one if there is none, or if it is not ours."""
        try:
            stored = json.loads(text or "{}")
            seen = {
                name: Seen(FileVersion(*map(int, version)), float(since))
                for name, [*version, since] in stored.get("seen", {}).items()
            }
            return cls(**{**stored, "seen": seen})
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            return cls()


class Request(NamedTuple):
    """A run to request.

    Attributes:
        files: the files that wait and are complete, in order.
        run_key: a key that no other request has.
        cause: why the run is requested, for the UI.
    """

    files: list[str]
    run_key: str
    cause: str


def plan_request(
    waiting: Mapping[str, FileVersion], cursor: Cursor, *, now: float, settle_seconds: float, is_in_progress: bool
) -> tuple[Request | None, Cursor]:
    """Decide whether to request a run: once for each file that is complete and, with ever longer pauses, again.

    Args:
        waiting: the files that were not taken in, in their present versions.
        cursor: the cursor of the tick before.
        now: the time of the tick, in s since the epoch.
        settle_seconds: how long a file must have been seen unchanged, in s.
        is_in_progress: whether a run is queued or under way. It may take in these files.
    """
    seen = track_versions(waiting, cursor.seen, now)
    complete = {
        name: hash_63(known.version.to_text())
        for name, known in sorted(seen.items())
        if known.is_complete(now, settle_seconds)
    }
    asked = {name: version for name, version in cursor.asked.items() if complete.get(name) == version}
    # If the clock was set back, do not wait longer than one pause.
    due = min(cursor.due, now + pause(cursor.requests))
    following = replace(cursor, seen=seen, asked=asked, due=due)
    is_new = complete.keys() != asked.keys()
    if not complete or is_in_progress or not (is_new or due <= now):
        return None, following
    requests = 0 if is_new else cursor.requests
    names = [*complete]
    cause = "" if is_new else f"still not taken in (request {requests + 1}): {some_of(names)}"
    key = f"{hash_63(json.dumps(complete))}:{requests}:{due:.3f}"
    return Request(names, key, cause), replace(
        following, asked=complete, requests=requests + 1, due=now + pause(requests + 1)
    )


def first_day(path: Path) -> str | None:
    """A day that a file has events of, from its first lines; None if they tell none."""
    with suppress(OSError), open(path, "rb") as file:
        for line in file.read(_PEEK_BYTES).splitlines():
            # A line may be anything. The run says what is wrong with it.
            with suppress(ValueError, TypeError, KeyError, RecursionError, OverflowError):
                at = datetime.fromisoformat(str(json.loads(line)["searched_at"]).replace("Z", "+00:00"))
                return at.astimezone(timezone.utc).date().isoformat()
    return None


def unreported_days(
    log: DeltaLog, cursor: Cursor, known: Mapping[str, str], days: Collection[str]
) -> tuple[dict[str, int], Cursor]:
    """The days that a commit has changed, and that Dagster does not know of: a run died after its commit.

    Args:
        log: the log of the table.
        cursor: the cursor of the tick before.
        known: for each day, the data version of its latest materialization.
        days: the days that have partitions.

    Returns:
        For each such day, the version of the latest commit that has changed it; and the cursor.

    Raises:
        TableProblem: the log can't be read.
    """
    after = cursor.reported if cursor.reported >= 0 and log.mark(cursor.reported) == cursor.mark else -1
    changed: dict[str, int] = {}
    version = after
    try:
        for commit in log.commits(after):
            changed |= dict.fromkeys(commit.changes, commit.version)
            version = commit.version
    except TableMissing:
        return {}, cursor
    except LogIncomplete:
        # Old commits were cleaned up. Report every day that the table has.
        snapshot = log.snapshot()
        changed, version = dict.fromkeys(snapshot.files, snapshot.version), snapshot.version
    unknown = {day: found for day, found in changed.items() if day in days and not _is_known(known.get(day, ""), found)}
    return unknown, replace(cursor, reported=version, mark=log.mark(version) if version >= 0 else None)


def _is_known(data_version: str, version: int) -> bool:
    return data_version.isdigit() and int(data_version) >= version


_scanner = Scanner()


def _evaluate(context: dg.SensorEvaluationContext, report: TickReport) -> None:
    lake: LakeResource = context.resources.lake
    now = datetime.now(timezone.utc)
    cursor = Cursor.from_json(context.cursor)
    directory = landing_directory()
    # Read the runs before the table. Otherwise a run that ends in between would be requested again.
    is_in_progress = bool(runs_in_progress(context.instance, contract.SEARCHES))
    scan = _scanner.scan_all([directory])[directory.client]
    report.notes += [*scan.problems, *([scan.failure] if scan.failure else [])]
    taken = searches.taken_in(lake.open_table(contract.SEARCHES), lake.storage_options())
    waiting = {name: scan.files[name] for name in waiting_files(scan, taken)}
    request, cursor = plan_request(
        waiting,
        cursor,
        now=now.timestamp(),
        settle_seconds=settings.settle_seconds(),
        is_in_progress=is_in_progress,
    )
    partitions = contract.DAYS.get_partition_keys(current_time=now)
    if request:
        ensure_limit(context.instance, contract.POOL)
        day = first_day(contract.landing_folder() / request.files[0])
        report.run_requests = [
            dg.RunRequest(
                run_key=request.run_key,
                partition_key=day if day in partitions else partitions[-1],
                asset_selection=[contract.SEARCHES],
                run_config=_run_config(request, waiting),
                tags={CAUSE_TAG: request.cause} if request.cause else {},
            )
        ]
    if not is_in_progress:  # a run reports its days at its end
        log = lake.open_log(contract.SEARCHES, contract.PARTITION_COLUMN)
        unreported, cursor = unreported_days(log, cursor, _reported_versions(context.instance), set(partitions))
        report.asset_events += [
            dg.AssetMaterialization(contract.SEARCHES, partition=day, tags={"dagster/data_version": str(version)})
            for day, version in sorted(unreported.items())
        ]
    report.notes.append(_describe_waiting(waiting, request))
    report.cursor = cursor.to_json()


def _run_config(request: Request, waiting: Mapping[str, FileVersion]) -> dg.RunConfig:
    # The run need not wait until these files have settled. For others it does, so not all have to be told.
    complete = {name: waiting[name].to_text() for name in request.files[:_MOST_TOLD]}
    return dg.RunConfig(ops={contract.SEARCHES.to_python_identifier(): Ingestion(complete=complete)})


def _reported_versions(instance: dg.DagsterInstance) -> dict[str, str]:
    tag = "dagster/data_version"
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        contract.SEARCHES, dg.DagsterEventType.ASSET_MATERIALIZATION, [tag]
    )
    return {day: found.get(tag, "") for day, found in tags.items()}


def _describe_waiting(waiting: Mapping[str, FileVersion], request: Request | None) -> str:
    if request:
        return f"requested a run for {counted(len(request.files), 'file')}: {some_of(request.files)}"
    if waiting:
        return f"{counted(len(waiting), 'file')} not complete, or waiting for a run: {some_of([*waiting])}"
    return f"nothing new in {contract.landing_folder()}"


flight_searches_landed = dg.sensor(
    name="flight_searches_landed",
    description="Has the files of events taken in once they are complete. It holds no slot while it waits.",
    target=dg.AssetSelection.assets(contract.SEARCHES),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=1,
    metadata=woken_by(folders="sensors.watched_folders:flight_searches", own_runs=True),
    required_resource_keys={"lake"},
)(reporting_tick(_evaluate))


def days_behind(
    snapshot: Snapshot | None, recorded: Collection[Mapping[str, Input]], days: Collection[str]
) -> dict[str, str]:
    """The days of which some aggregation does not reflect the searches, each with what identifies its input.

    Args:
        snapshot: the searches, or None if there are none.
        recorded: for each aggregation, what its days reflect.
        days: the days that have partitions.
    """
    if snapshot is None:
        return {}
    possible = {day for day in {*snapshot.files}.union(*recorded) if day_of(day) and day in days}
    return {
        day: str(snapshot.fingerprint(day))
        for day in sorted(possible)
        if not all(is_current(known, snapshot, day) for known in recorded)
    }


def _observe(context: dg.SensorEvaluationContext, notes: list[str]) -> Observation:
    lake: LakeResource = context.resources.lake
    now = datetime.now(timezone.utc)
    in_progress = {day for key in AGGREGATED for day in partitions_in_progress(context.instance, key, contract.DAYS)}
    recorded = [aggregations.recorded_inputs(lake.open_table(each.key), lake) for each in aggregations.ALL]
    snapshot = None
    with suppress(TableMissing):
        snapshot = lake.open_log(contract.SEARCHES, contract.PARTITION_COLUMN).snapshot()
    days = set(contract.DAYS.get_partition_keys(current_time=now))
    return Observation(days_behind(snapshot, recorded, days), in_progress)


flight_search_reconciled = reconciling_sensor(
    "flight_search_reconciled",
    AGGREGATED,
    _observe,
    description="Requests days whose aggregations are still behind the searches.",
    required_resource_keys={"lake"},
)
