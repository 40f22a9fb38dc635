"""Brings the counts of days up to date with their input, exactly once, even if several runs do so at the same time.

The table of counts is the truth: next to the counts of each day it records which version of the input they reflect. A
day is up to date if no commit has changed it since that version. We record the version that was *read*. The latest
version at the end of a run may be newer, and a commit that landed during the run would pass for processed.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

import pyarrow as pa

from dedp_assets.delta.commits import Commit, DataFile, Prints, Snapshot, fingerprint_of, stamp_of
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.overtaken import pauses
from dedp_assets.delta.problems import LogIncomplete, TableProblem
from dedp_assets.late_data_integrator.device_counts import DeviceCounts, InputVersion, Overtaken, rows_counted


@dataclass(frozen=True)
class LateCommits:
    """Commits that changed a day after it was counted.

    Attributes:
        versions: the versions of the input table that they made, oldest first.
        at: when the last of them was made (UTC).
    """

    versions: tuple[int, ...]
    at: datetime


@dataclass(frozen=True)
class Processed:
    """What was done for one day.

    Attributes:
        version: the version of the input that the day's counts reflect now.
        written: False if the counts were up to date before.
        rows_before: the number of input rows that the counts stood for before.
        rows_after: the number of input rows that they stand for now.
        late: the late commits that are now counted, as far as the log has them. None at the first count of a day, or
            if the log has none of them any more.
    """

    day: str
    version: int
    written: bool
    rows_before: int
    rows_after: int
    late: LateCommits | None = None


def process(
    days: Sequence[str],
    devices: DeltaLog,
    open_counts: Callable[[], DeviceCounts],
    count: Callable[[Snapshot, Sequence[str]], pa.Table],
) -> list[Processed]:
    """Count the devices of the days that are not up to date. All of them are written in one commit.

    Args:
        days: the days to bring up to date.
        devices: the log of the input table.
        open_counts: opens the latest version of the table of counts.
        count: computes the counts of days from one snapshot of the input, as rows of `device_counts.SCHEMA`.

    Returns:
        For each day, in the order of `days`, what was done.

    Raises:
        TableProblem: a table can't be read or written.
        OvertakenTooOften: somebody else committed first, again and again.
        DedpError: what `count` raises.
    """
    counted_for, counts = None, None
    overtaken = pauses(f"the counts of {', '.join(days)}")
    while True:
        # Open the output first and the input second. If somebody commits in between, our commit fails. So our counts
        # never replace counts of newer input.
        output = open_counts()
        snapshot = devices.snapshot()
        recorded = {day: known for day in days if (known := output.recorded(snapshot.table_id, day))}
        changed = changed_since(recorded, snapshot, devices)
        behind = [day for day in days if day not in recorded or day in changed]
        before = output.rows_counted(days)
        if not behind:
            return [_nothing_to_do(day, recorded[day], before.get(day, 0)) for day in days]
        now = {day: input_version(snapshot, day) for day in behind}
        # Counts of an earlier attempt are still right if the files are the same, whatever the version.
        wanted = (snapshot.table_id, {day: found._replace(version=0) for day, found in now.items()})
        if counts is None or counted_for != wanted:
            counted_for, counts = wanted, count(snapshot, behind)
        try:
            output.replace(counts, snapshot.table_id, now)
        except Overtaken:
            next(overtaken)
            continue
        after = rows_counted(counts)
        return [
            Processed(day, snapshot.version, True, before.get(day, 0), after.get(day, 0), changed.get(day))
            if day in now
            else _nothing_to_do(day, recorded[day], before.get(day, 0))
            for day in days
        ]


def input_version(snapshot: Snapshot, day: str) -> InputVersion:
    """What the counts of a day reflect if they are computed from this snapshot."""
    return InputVersion(snapshot.version, snapshot.fingerprint(day), snapshot.stamp(day))


def changed_since(
    recorded: Mapping[str, InputVersion], snapshot: Snapshot, devices: DeltaLog
) -> dict[str, LateCommits | None]:
    """The days whose input is not what their counts reflect.

    The same files are the same input, unless a file was rewritten in place. Other files may be the same input as well:
    a compaction moves rows to new files. To find out, we read the log back from the snapshot, until a day has the files
    that were counted, and see what has changed since. If the log does not lead there, the day counts as changed: the
    commits were removed, or the table was restored from a backup.

    Args:
        recorded: for each day, what its counts reflect.
        snapshot: the input as it is now.
        devices: the log of the input table.

    Returns:
        For each changed day, the commits that changed it since, or None if these are unknown.

    Raises:
        TableProblem: the log can't be read.
    """
    unlike = {day for day, known in recorded.items() if not reflects(known, snapshot.logged_files(day))}
    files = {day: snapshot.logged_files(day) for day in unlike}
    late: dict[str, LateCommits] = {}
    back: list[Commit] = []
    at: dict[str, int] = {}  # by day: the commit before which it had the files that were counted
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


def reflects(recorded: InputVersion, files: Mapping[DataFile, Prints]) -> bool:
    """Whether these files, with their present content, are what was counted.

    If no stamp was recorded, we can't see whether a file was rewritten in place, and take it for unchanged.
    """
    return recorded.fingerprint == fingerprint_of(files) and recorded.stamp in (None, stamp_of(files))


def _moved(
    seem_moved: Mapping[str, InputVersion],
    at: Mapping[str, int],
    back: list[Commit],
    snapshot: Snapshot,
    devices: DeltaLog,
) -> set[str]:
    """The days whose rows were certainly only moved to other files.

    A commit that is read backwards does not say whether a file that it adds was there before. So we read the commits
    again, forwards, from the files that the table had before the first of them.

    Args:
        seem_moved: the days to check, with what their counts reflect.
        at: by day, the commit before which it seemed to have the files that were counted.
        back: the commits that were read, the latest first.
        snapshot: the input as it is now.
        devices: the log of the input table.
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


def _with_earlier(late: LateCommits | None, commit: Commit) -> LateCommits:
    if late is None:
        return LateCommits((commit.version,), commit.timestamp)
    return LateCommits((commit.version, *late.versions), late.at)


def _nothing_to_do(day: str, recorded: InputVersion, rows: int) -> Processed:
    return Processed(day, recorded.version, False, rows, rows)


def lateness(day: str, at: datetime) -> timedelta:
    """How long after the end of a day (UTC) a commit was made, in whole seconds; negative before the end."""
    begin = datetime.combine(date.fromisoformat(day), datetime.min.time(), timezone.utc)
    return timedelta(seconds=int((at - begin).total_seconds())) - timedelta(days=1)
