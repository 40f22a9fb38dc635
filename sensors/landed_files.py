"""Files that land in a folder by day: which days have something new to take in.

A landed file is one of two. `2024-01-03/dataset.csv` belongs to its day: every version of it is for that day.
`dataset.csv` belongs to no day: each day that is over and has not been taken in takes it once, and a later version is
for later days. What a version is and when it is complete, `landing.versions` says; which day wants which file,
`landing.wanted`.

A tick asks for what is new since the tick before. Once a minute it also compares levels: what each day's copy reflects
with what lies there. So a run that failed, a daemon that was away or a cursor that was lost end in the right state.
Nothing waits here in the sense of holding a slot: a tick looks, decides and ends.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from dedp_assets.landing.copies import CopyRecord
from dedp_assets.landing.dated import UNDATED, DatedFolder, Listing, scan_landing
from dedp_assets.landing.taking_in import LandedFiles, materialization
from dedp_assets.landing.versions import FileVersion, Seen, track_versions
from dedp_assets.landing.wanted import Copies, StoredCopies, choose_sources
from dedp_assets.partition_runs import consecutive, partitions_in_progress, range_tags
from dedp_assets.run_processes import fail_ended_runs
from sensors import reconciliation
from sensors.reconciliation import Waiting

# One run takes a burst of consecutive days; more than these are split, so that a retry does not repeat a year.
MAX_DAYS_PER_RUN = 100

_CURSOR_VERSION = 2


@dataclass(frozen=True)
class Cursor:
    """What the ticks before have left: kept by Dagster, as JSON.

    began: when this cursor was begun, in s since the epoch. requests: how many runs were requested since; both are part
    of each run key, which so is never used twice.
    seen: files that have not been asked for in their present version, and since when they have been unchanged.
    asked: the version of each day's own file that was dealt with last. undated: that of the undated file, and
    undated_days, the days that it was asked for and that have not been taken in yet.
    compared: when levels were compared last, in s since the epoch. waiting: the days that were behind then.
    told: what was last said of the files.
    """

    began: float = 0.0
    requests: int = 0
    seen: dict[str, Seen] = field(default_factory=dict)
    asked: dict[str, FileVersion] = field(default_factory=dict)
    undated: FileVersion | None = None
    undated_days: list[str] = field(default_factory=list)
    compared: float = 0.0
    waiting: dict[str, Waiting] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps({"cursor": _CURSOR_VERSION, **self.__dict__})

    @classmethod
    def from_json(cls, text: str | None) -> "Cursor":
        """The cursor that was stored, or an empty one; both when there is none and when it is not of this version.

        Both are safe: the copies say what was taken in before, and from which version.
        """
        try:
            stored = json.loads(text or "{}")
            if stored.pop("cursor") != _CURSOR_VERSION:
                return cls()
            seen = {name: Seen(_version(version), float(since)) for name, (version, since) in stored["seen"].items()}
            asked = {day: _version(version) for day, version in stored["asked"].items()}
            undated = _version(stored["undated"]) if stored["undated"] else None
            waiting = {day: Waiting(str(i), int(n), float(due)) for day, (i, n, due) in stored["waiting"].items()}
            return cls(**{**stored, "seen": seen, "asked": asked, "undated": undated, "waiting": waiting})
        except (KeyError, TypeError, ValueError, AttributeError):
            return cls()


def _version(stored: Any) -> FileVersion:
    return FileVersion(*map(int, stored))


class Request(NamedTuple):
    """Consecutive days to take in with one run, each from one landed file.

    sources: day -> the file's path in the landing folder; complete: that path -> the version that was seen to be
    complete; cause: for whoever wonders about the run, or "".
    """

    days: list[str]
    run_key: str
    sources: dict[str, str]
    complete: dict[str, FileVersion]
    cause: str = ""


@dataclass(frozen=True)
class RunPlan:
    """What a tick does: runs to request, copies to tell Dagster of, the cursor to keep, notes for its readers."""

    requests: list[Request]
    untold: dict[str, CopyRecord]
    cursor: Cursor
    notes: list[str]


@dataclass(frozen=True)
class Situation:
    """What a tick finds, beside the files.

    landing: the folder that they arrive in, which names them.
    now: s since the epoch. settle_seconds: how long a file must have been seen unchanged, in s.
    due: days that are over, in order. undated_due: those of them that may take the undated file.
    materialized: days that Dagster knows to be taken in, from whichever file.
    in_progress: those with a run that is queued or under way; None in a tick that does not compare levels.
    """

    landing: DatedFolder
    now: float
    settle_seconds: float
    due: Sequence[str]
    undated_due: Collection[str]
    materialized: Collection[str]
    in_progress: Collection[str] | None = None


def plan_runs(listing: Listing, cursor: Cursor, copies: Copies, situation: Situation) -> RunPlan:
    """Which days to take in now: what has arrived since the last tick and, once a minute, what is behind."""
    arrivals = _watch(listing, cursor, situation)
    complete = arrivals.complete

    def wanted_by(days: Collection[str]) -> dict[str, str]:
        return choose_sources(
            days,
            complete,
            copies,
            unusable={*listing.files, *listing.unusable},
            undated_days=set(situation.undated_due),
            taken_in=situation.materialized,
        )

    arrived = wanted_by(arrivals.new_days)
    requests = _Requests(cursor, complete, situation)
    requests.add(arrived, {})
    undated_days = {*arrivals.undated_days, *(day for day, source in arrived.items() if source == UNDATED)}
    following = Cursor(
        began=requests.began,
        seen=arrivals.seen,
        asked=cursor.asked | {day: version for day, version in complete.items() if day and day not in arrivals.seen},
        undated=complete.get(UNDATED, cursor.undated),
        undated_days=sorted(undated_days.difference(situation.materialized, listing.files, listing.unusable)),
        compared=cursor.compared,
        waiting=cursor.waiting,
        told=arrivals.notes,
    )
    notes, untold = list(arrivals.notes), {}
    if situation.in_progress is not None:
        sources = {day: source for day, source in wanted_by(situation.due).items() if day not in arrived}
        behind = {day: complete[source].to_text() for day, source in sources.items()}
        decision = reconciliation.decide(behind, cursor.waiting, situation.in_progress, situation.now)
        requests.add({day: sources[day] for day in decision.request}, decision.request)
        following = replace(following, compared=situation.now, waiting=decision.waiting)
        forgotten = [day for day in behind if day not in situation.in_progress]
        notes += [f"behind what lies there: {', '.join(forgotten)}"] if forgotten else []
        untold = _untold(copies, situation, {*arrived, *behind})
    return RunPlan(requests.made, untold, replace(following, requests=requests.number), notes)


def _untold(copies: Copies, situation: Situation, others: Collection[str]) -> dict[str, CopyRecord]:
    """Copies that Dagster does not know of: a command line with another instance made them, or it was lost."""
    known = {*situation.materialized, *others, *(situation.in_progress or ())}
    found = {day: copies.record_of(day) for day in situation.due if day not in known}
    return {day: copied for day, copied in found.items() if copied is not None}


@dataclass(frozen=True)
class _Arrivals:
    """What of the files is new: those that are complete; days to look at; what the cursor keeps, and notes."""

    complete: dict[str, FileVersion]
    new_days: list[str]
    seen: dict[str, Seen]
    undated_days: set[str]
    notes: list[str]


def _watch(listing: Listing, cursor: Cursor, situation: Situation) -> _Arrivals:
    dealt_with = {UNDATED: cursor.undated, **cursor.asked}
    other = {name: version for name, version in listing.files.items() if dealt_with.get(name) != version}
    seen = track_versions(other, cursor.seen, situation.now)
    incomplete = {
        name for name, known in seen.items() if not known.is_complete(situation.now, situation.settle_seconds)
    }
    due = set(situation.due)
    early = [day for day in other if day and day not in incomplete and day not in due]
    complete = {name: v for name, v in listing.files.items() if name not in incomplete and name not in early}
    new_days = {day for day in other if day in due and day not in incomplete}
    undated_days = set(cursor.undated_days)
    if UNDATED in other and UNDATED in complete:
        new_days |= {*situation.undated_due} - listing.files.keys()
        undated_days = set()
    elif UNDATED in complete:
        new_days |= {*situation.undated_due} - {*situation.materialized, *undated_days, *listing.files}
    return _Arrivals(
        complete,
        sorted(new_days),
        {name: known for name, known in seen.items() if name not in complete},
        undated_days,
        [
            *listing.problems,
            *(_waits(name, seen[name].version, situation) for name in other if name in incomplete),
            *(_not_due(day, situation) for day in early),
        ],
    )


def _waits(name: str, version: FileVersion, situation: Situation) -> str:
    shown = situation.landing.name_of(name)
    if not version.size:
        return f"{shown} is empty: waits for its content"
    return f"{shown} is not complete yet: changed less than {situation.settle_seconds:g} s ago"


def _not_due(day: str, situation: Situation) -> str:
    due, shown = situation.due, situation.landing.name_of(day)
    if due and day < due[0]:
        return f"{shown} is older than the first partition, {due[0]}: not taken in"
    return f"{shown} waits: its day (UTC) is not over"


class _Requests:
    """The runs that a tick asks for: `made`, of which each has another run key than all before it."""

    def __init__(self, cursor: Cursor, complete: Mapping[str, FileVersion], situation: Situation) -> None:
        self.began = cursor.began or situation.now
        self.number = cursor.requests
        self.made: list[Request] = []
        self._complete, self._due = complete, situation.due
        self._name_of = situation.landing.name_of

    def add(self, sources: Mapping[str, str], waited: Mapping[str, Waiting]) -> None:
        """Runs for days, each from its source. `waited`: the days' state, where reconciliation asks for them."""
        for days in consecutive(sorted(sources), self._due, MAX_DAYS_PER_RUN):
            label = days[0] if len(days) == 1 else f"{days[0]}...{days[-1]}"
            self.made.append(
                Request(
                    days,
                    f"{label}:{self.began:.3f}:{self.number}",
                    {day: self._name_of(sources[day]) for day in days},
                    {self._name_of(sources[day]): self._complete[sources[day]] for day in days},
                    reconciliation.cause_of([waited[day] for day in days]) if waited else "",
                )
            )
            self.number += 1


def compares_levels(cursor: Cursor, now: float) -> bool:
    """Whether a tick at `now` is to compare levels: once a minute, also after the clock was set back."""
    return not 0 <= now - cursor.compared < reconciliation.INTERVAL_SECONDS


def run_request(request: Request, key: dg.AssetKey) -> dg.RunRequest:
    """One partition, or a range of partitions as a single run, of the asset that the files are taken in by."""
    files = LandedFiles(
        sources=request.sources, complete={name: version.to_text() for name, version in request.complete.items()}
    )
    return dg.RunRequest(
        run_key=request.run_key,
        asset_selection=[key],
        run_config=dg.RunConfig(ops={key.to_python_identifier(): files}),
        partition_key=request.days[0] if len(request.days) == 1 else None,
        tags=range_tags(request.days) | ({reconciliation.CAUSE_TAG: request.cause} if request.cause else {}),
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
) -> dg.SensorDefinition:
    """A sensor that takes in each day's file once it is there, complete and new. Waiting costs no run.

    Args:
        name: of the sensor.
        key: the asset that copies a day's file, with `LandedFiles` as its config.
        partitions: of that asset.
        landing: the folder that files arrive in, as the settings say.
        copy_of: where a day's copy is kept.
        due_days: the days that are over at a time, in order.
        undated_due_days: those of them that may take the undated file.
        settle_seconds: how long a file must have been seen unchanged, in s.
        description: for the UI.
    """

    @dg.sensor(
        name=name,
        description=description,
        target=dg.AssetSelection.assets(key),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=1,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = datetime.now(timezone.utc)
        cursor = Cursor.from_json(context.cursor)
        # First the runs, then what they have done: a run that ends in between is not taken for one that never was.
        in_progress = None
        if compares_levels(cursor, now.timestamp()):
            fail_ended_runs(context.instance)
            in_progress = partitions_in_progress(context.instance, key, partitions)
        folder = landing()
        situation = Situation(
            landing=folder,
            now=now.timestamp(),
            settle_seconds=settle_seconds(),
            due=due_days(now),
            undated_due=undated_due_days(now),
            materialized=context.instance.get_materialized_partitions(key),
            in_progress=in_progress,
        )
        plan = plan_runs(scan_landing(folder), cursor, StoredCopies(folder, copy_of), situation)
        if plan.cursor.told != cursor.told or plan.requests:
            # Not at every tick: the log of each is a file of its own.
            for note in plan.notes:
                context.log.info(note)
        return dg.SensorResult(
            run_requests=[run_request(request, key) for request in plan.requests],
            asset_events=[materialization(key, day, copied) for day, copied in plan.untold.items()],
            skip_reason=None if plan.requests else "; ".join(plan.notes[:20]) or f"nothing new in {folder.path}",
            cursor=plan.cursor.to_json(),
        )

    return sensor
