"""Which runs to request, from the landed files, the copies and the cursor. Plain values only."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from dedp_assets.landing.copies import CopyRecord
from dedp_assets.landing.dated import UNDATED, DatedFolder, Listing
from dedp_assets.landing.versions import FileVersion, Seen, track_versions
from dedp_assets.landing.wanted import Copies, choose_sources
from dedp_assets.partition_runs import consecutive
from sensors import reconciliation
from sensors.landed_files.cursor import Cursor
from sensors.reconciliation import Waiting

# One run takes many consecutive days, but a retry repeats all days of its run. This keeps that bounded.
MAX_DAYS_PER_RUN = 100


class Request(NamedTuple):
    """A run to request. It copies consecutive days, each from one landed file.

    Attributes:
        days: the days, in order.
        run_key: a key that no other request has.
        sources: for each day the path of its file in the landing folder.
        complete: for each of these paths the version that was seen to be complete.
        cause: why reconciliation requests the run, for the UI. "" for a file that has just arrived.
    """

    days: list[str]
    run_key: str
    sources: dict[str, str]
    complete: dict[str, FileVersion]
    cause: str = ""


@dataclass(frozen=True)
class RunPlan:
    """What a tick does.

    Attributes:
        requests: the runs to request.
        unreported: copies that Dagster has no materialization of, by day.
        cursor: the cursor to store.
        notes: what the message of the tick says.
    """

    requests: list[Request]
    unreported: dict[str, CopyRecord]
    cursor: Cursor
    notes: list[str]


@dataclass(frozen=True)
class TickInputs:
    """What a tick knows beside the files, the copies and the cursor.

    Attributes:
        landing: the folder that files arrive in. It names the files in messages.
        now: the time of the tick, in s since the epoch.
        settle_seconds: how long a file must have been seen unchanged, in s.
        due: the days that are over, in order.
        undated_due: the due days that may take the undated file.
        materialized: the days that Dagster has a materialization of.
        in_progress: the days with a run that is queued or under way. None in a tick that does not compare.
        renamed: the files that were renamed into place and need not settle: days, or UNDATED.
    """

    landing: DatedFolder
    now: float
    settle_seconds: float
    due: Sequence[str]
    undated_due: Collection[str]
    materialized: Collection[str]
    in_progress: Collection[str] | None = None
    renamed: Collection[str] = ()


def compares_copies(cursor: Cursor, now: float) -> bool:
    """Whether a tick compares copies and files: once a minute, also after the clock was set back.

    Args:
        cursor: the cursor of the tick before.
        now: the time of the tick, in s since the epoch.
    """
    return not 0 <= now - cursor.compared < reconciliation.INTERVAL_SECONDS


def new_files(listing: Listing, cursor: Cursor) -> dict[str, FileVersion]:
    """The landed files whose present version was not handled yet, by day; UNDATED for the undated file."""
    handled = {UNDATED: cursor.undated, **cursor.asked}
    return {name: version for name, version in listing.files.items() if handled.get(name) != version}


def plan_runs(listing: Listing, cursor: Cursor, copies: Copies, inputs: TickInputs) -> RunPlan:
    """Decide which days to copy now: days with new files and, once a minute, days whose copies are behind.

    Args:
        listing: the files in the landing folder.
        cursor: the cursor of the tick before.
        copies: what is known of each day's copy.
        inputs: what else the tick knows.
    """
    arrivals = _find_arrivals(listing, cursor, inputs)
    complete = arrivals.complete

    def sources_for(days: Collection[str]) -> dict[str, str]:
        return choose_sources(
            days,
            complete,
            copies,
            unusable={*listing.files, *listing.unusable},
            undated_days=set(inputs.undated_due),
            taken_in=inputs.materialized,
        )

    arrived = sources_for(arrivals.days)
    requests = _Requests(cursor, complete, inputs)
    requests.add(arrived, {})
    undated_days = {*arrivals.undated_days, *(day for day, source in arrived.items() if source == UNDATED)}
    following = Cursor(
        began=requests.began,
        seen=arrivals.seen,
        asked=cursor.asked | {day: version for day, version in complete.items() if day and day not in arrivals.seen},
        undated=complete.get(UNDATED, cursor.undated),
        undated_days=sorted(undated_days.difference(inputs.materialized, listing.files, listing.unusable)),
        compared=cursor.compared,
        waiting=cursor.waiting,
        told=arrivals.notes,
    )
    notes, unreported = list(arrivals.notes), {}
    if inputs.in_progress is not None:
        sources = {day: source for day, source in sources_for(inputs.due).items() if day not in arrived}
        behind = {day: complete[source].to_text() for day, source in sources.items()}
        plan = reconciliation.plan_requests(behind, cursor.waiting, inputs.in_progress, inputs.now)
        requests.add({day: sources[day] for day in plan.requests}, plan.requests)
        following = replace(following, compared=inputs.now, waiting=plan.waiting)
        forgotten = [day for day in behind if day not in inputs.in_progress]
        notes += [f"copies behind the landed files: {', '.join(forgotten)}"] if forgotten else []
        unreported = _unreported_copies(copies, inputs, {*arrived, *behind})
    return RunPlan(requests.made, unreported, replace(following, requests=requests.number), notes)


def _unreported_copies(copies: Copies, inputs: TickInputs, others: Collection[str]) -> dict[str, CopyRecord]:
    """Copies that Dagster does not know: made from a command line with another instance, or its history was lost."""
    known = {*inputs.materialized, *others, *(inputs.in_progress or ())}
    found = {day: copies.record_of(day) for day in inputs.due if day not in known}
    return {day: copied for day, copied in found.items() if copied is not None}


@dataclass(frozen=True)
class _Arrivals:
    """What is new in the landing folder.

    Attributes:
        complete: the files that may be copied, in their present versions.
        days: the days for which something is new.
        seen: the files that may not be copied yet, for the cursor.
        undated_days: days for which the undated file was requested before, in its present version.
        notes: what the message of the tick says.
    """

    complete: dict[str, FileVersion]
    days: list[str]
    seen: dict[str, Seen]
    undated_days: set[str]
    notes: list[str]


def _find_arrivals(listing: Listing, cursor: Cursor, inputs: TickInputs) -> _Arrivals:
    new = new_files(listing, cursor)
    seen = track_versions(new, cursor.seen, inputs.now)
    incomplete = {
        name
        for name, known in seen.items()
        if not known.is_complete(inputs.now, inputs.settle_seconds, is_renamed=name in inputs.renamed)
    }
    due = set(inputs.due)
    not_due = [day for day in new if day and day not in incomplete and day not in due]
    complete = {name: v for name, v in listing.files.items() if name not in incomplete and name not in not_due}
    days = {day for day in new if day in due and day not in incomplete}
    undated_days = set(cursor.undated_days)
    if UNDATED in new and UNDATED in complete:
        days |= {*inputs.undated_due} - listing.files.keys()
        undated_days = set()
    elif UNDATED in complete:
        days |= {*inputs.undated_due} - {*inputs.materialized, *undated_days, *listing.files}
    return _Arrivals(
        complete,
        sorted(days),
        {name: known for name, known in seen.items() if name not in complete},
        undated_days,
        [
            *listing.problems,
            *(_describe_incomplete(name, seen[name].version, inputs) for name in new if name in incomplete),
            *(_describe_not_due(day, inputs) for day in not_due),
        ],
    )


def _describe_incomplete(name: str, version: FileVersion, inputs: TickInputs) -> str:
    shown = inputs.landing.name_of(name)
    if not version.size:
        return f"{shown} is empty: waits for its content"
    return f"{shown} is not complete yet: changed less than {inputs.settle_seconds:g} s ago"


def _describe_not_due(day: str, inputs: TickInputs) -> str:
    due, shown = inputs.due, inputs.landing.name_of(day)
    if due and day < due[0]:
        return f"{shown} is older than the first partition, {due[0]}: it is not copied"
    return f"{shown} waits: its day (UTC) is not over"


class _Requests:
    """Collects the runs that a tick requests, and gives each a run key that no run before it had."""

    def __init__(self, cursor: Cursor, complete: Mapping[str, FileVersion], inputs: TickInputs) -> None:
        self.began = cursor.began or inputs.now
        self.number = cursor.requests
        self.made: list[Request] = []
        self._complete, self._due = complete, inputs.due
        self._name_of = inputs.landing.name_of

    def add(self, sources: Mapping[str, str], waiting: Mapping[str, Waiting]) -> None:
        """Request runs for some days.

        Args:
            sources: for each day the file that it takes: a day, or UNDATED.
            waiting: the days as they were waiting, if reconciliation requests them. Else empty.
        """
        for days in consecutive(sorted(sources), self._due, MAX_DAYS_PER_RUN):
            label = days[0] if len(days) == 1 else f"{days[0]}...{days[-1]}"
            self.made.append(
                Request(
                    days,
                    f"{label}:{self.began:.3f}:{self.number}",
                    {day: self._name_of(sources[day]) for day in days},
                    {self._name_of(sources[day]): self._complete[sources[day]] for day in days},
                    reconciliation.describe_cause([waiting[day] for day in days]) if waiting else "",
                )
            )
            self.number += 1
