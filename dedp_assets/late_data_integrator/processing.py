"""Bring the counts of days up to their input, exactly once, whoever else does the same at the same time.

The truth is in the table of counts: next to each day's result, which version of the input it reflects. A day is up to
date when no commit has changed it since that version. The version recorded is the one that was *read*: recording the
table's version at the end of a run would declare a commit processed that landed while it ran.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

import pyarrow as pa

from dedp_assets.delta.commits import Commit, DataFile, Prints, Snapshot, fingerprint_of, stamp_of
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import LogIncomplete, TableProblem
from dedp_assets.late_data_integrator.device_counts import DeviceCounts, Overtaken, Recorded, rows_counted

# Each one is lost to a commit of somebody else: another day's run, mostly.
_ATTEMPTS = 100


class NeverFinished(RuntimeError):
    """The commit was overtaken too often."""


@dataclass(frozen=True)
class Late:
    """Commits that changed a day after it was processed: their versions, and when the last of them was made (UTC)."""

    versions: tuple[int, ...]
    at: datetime


@dataclass(frozen=True)
class Processed:
    """What was done for one day.

    version: of the input that the day's counts reflect now. written: False if they had reflected it already.
    rows_before, rows_after: input rows that the counts stood and stand for. late: the commits that made the day late,
    as far as the log has them; None at its first processing, or if it has none of them any more.
    """

    day: str
    version: int
    written: bool
    rows_before: int
    rows_after: int
    late: Late | None = None


def process(
    days: Sequence[str],
    devices: DeltaLog,
    open_counts: Callable[[], DeviceCounts],
    count: Callable[[Snapshot, Sequence[str]], pa.Table],
) -> list[Processed]:
    """Count the devices of those days whose counts don't reflect their input, and say for each day what was done.

    `count` gets one snapshot of the input, and days whose counts to compute from it; it returns rows of
    `device_counts.SCHEMA`. All days are written in one commit. Raises TableProblem if the input can't be read.
    """
    counted_for, counts = None, None
    for attempt in range(_ATTEMPTS):
        # First the output and then the input: whoever commits in between makes our commit fail, so a result never
        # replaces one that was computed from newer input.
        output = open_counts()
        snapshot = devices.snapshot()
        recorded = {day: known for day in days if (known := output.recorded(snapshot.table_id, day))}
        changed = changed_since(recorded, snapshot, devices)
        behind = [day for day in days if day not in recorded or day in changed]
        before = output.rows_counted(days)
        if not behind:
            return [_nothing_to_do(day, recorded[day], before.get(day, 0)) for day in days]
        now = {day: reflected(snapshot, day) for day in behind}
        # What was counted is still right if the files are the same, at whichever version.
        wanted = (snapshot.table_id, {day: found._replace(version=0) for day, found in now.items()})
        if counts is None or counted_for != wanted:
            counted_for, counts = wanted, count(snapshot, behind)
        try:
            output.replace(counts, snapshot.table_id, now)
        except Overtaken:
            time.sleep(random.uniform(0, min(0.02 * 2**attempt, 0.5)))
            continue
        after = rows_counted(counts)
        return [
            Processed(day, snapshot.version, True, before.get(day, 0), after.get(day, 0), changed.get(day))
            if day in now
            else _nothing_to_do(day, recorded[day], before.get(day, 0))
            for day in days
        ]
    raise NeverFinished(
        f"the counts of {', '.join(days)} could not be written: {_ATTEMPTS} times in a row somebody else committed "
        "first. Let fewer runs write at once."
    )


def reflected(snapshot: Snapshot, day: str) -> Recorded:
    """What counts of a day reflect that are computed from this snapshot."""
    return Recorded(snapshot.version, snapshot.fingerprint(day), snapshot.stamp(day))


def changed_since(recorded: Mapping[str, Recorded], snapshot: Snapshot, devices: DeltaLog) -> dict[str, Late | None]:
    """The days that are not what their counts reflect, with the commits that changed them since: None if none is known.

    The same files are the same input, unless one was written anew in place. Other files may be, too: after compaction.
    The log, read back from the snapshot, leads to the files that were counted, and tells what has changed since. Where
    it leads nowhere, nobody knows, and the day counts as changed: the commits were cleaned up, or the table was put
    back, as from a backup.
    """
    unlike = {day for day, known in recorded.items() if not reflects(known, snapshot.logged_files(day))}
    files = {day: snapshot.logged_files(day) for day in unlike}
    late: dict[str, Late] = {}
    back: list[Commit] = []
    at: dict[str, int] = {}  # the commit before which a day had the files that were counted
    with suppress(LogIncomplete):
        oldest = min((recorded[day].version for day in unlike), default=snapshot.version)
        for commit in devices.commits_back(snapshot.version, after=oldest):
            back.append(commit)
            for day in commit.actions.keys() & files.keys():
                if day in commit.changes:
                    late[day] = _with_earlier(late.get(day), commit)
                files[day] = commit.files_before(day, files[day])
                if fingerprint_of(files[day]) == recorded[day].fingerprint:
                    at[day] = commit.version
                    del files[day]
            if not files:
                break
    seem_moved = {day: recorded[day] for day in at.keys() - late.keys()}
    unlike -= _moved(seem_moved, at, back, snapshot, devices)
    return {day: late.get(day) for day in sorted(unlike)}


def reflects(recorded: Recorded, files: Mapping[DataFile, Prints]) -> bool:
    """Whether counts that reflect this were counted of these files, with what is in them now, as far as that is told.

    The stamp was not always recorded.
    """
    return recorded.fingerprint == fingerprint_of(files) and recorded.stamp in (None, stamp_of(files))


def _moved(
    seem_moved: Mapping[str, Recorded], at: Mapping[str, int], back: list[Commit], snapshot: Snapshot, devices: DeltaLog
) -> set[str]:
    """Those of the days that certainly had the files that were counted before the commit `at`.

    Read back, a commit does not say whether a file that it adds was there before. So this goes the way once more,
    forward, from what the table had before the first of these commits. back: the commits, the latest first.
    """
    if not seem_moved:
        return set()
    first = min(at[day] for day in seem_moved)
    files: dict[str, Mapping[DataFile, Prints]] = {day: {} for day in seem_moved}
    if first > 0:
        try:
            before = devices.snapshot(first - 1)
        except TableProblem:
            return set()
        files = {day: before.logged_files(day) for day in seem_moved}
    counted = set()
    for commit in reversed([commit for commit in back if commit.version >= first]):
        for day in commit.actions.keys() & seem_moved.keys():
            if commit.version == at[day] and reflects(seem_moved[day], files[day]):
                counted.add(day)
            files[day] = commit.files_after(day, files[day])
    return {day for day in counted if files[day].keys() == snapshot.logged_files(day).keys()}


def _with_earlier(late: Late | None, commit: Commit) -> Late:
    return Late((commit.version, *late.versions), late.at) if late else Late((commit.version,), commit.timestamp)


def _nothing_to_do(day: str, recorded: Recorded, rows: int) -> Processed:
    return Processed(day, recorded.version, False, rows, rows)


def lateness(day: str, at: datetime) -> timedelta:
    """How long after the end of a day (UTC) something came, in whole seconds."""
    begin = datetime.combine(date.fromisoformat(day), datetime.min.time(), timezone.utc)
    return timedelta(seconds=int((at - begin).total_seconds())) - timedelta(days=1)
