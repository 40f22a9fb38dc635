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

from dedp_assets.late_data_integrator.delta_log import Commit, DeltaLog, LogIncomplete, Snapshot
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
        reflects = {day: Recorded(snapshot.version, snapshot.fingerprint(day)) for day in behind}
        # What was counted is still right if the files are the same, at whichever version.
        wanted = (snapshot.table_id, {day: files.fingerprint for day, files in reflects.items()})
        if counts is None or counted_for != wanted:
            counted_for, counts = wanted, count(snapshot, behind)
        try:
            output.replace(counts, snapshot.table_id, reflects)
        except Overtaken:
            time.sleep(random.uniform(0, min(0.02 * 2**attempt, 0.5)))
            continue
        after = rows_counted(counts)
        return [
            Processed(day, snapshot.version, True, before.get(day, 0), after.get(day, 0), changed.get(day))
            if day in reflects
            else _nothing_to_do(day, recorded[day], before.get(day, 0))
            for day in days
        ]
    raise NeverFinished(
        f"the counts of {', '.join(days)} could not be written: {_ATTEMPTS} times in a row somebody else committed "
        "first. Let fewer runs write at once."
    )


def changed_since(recorded: Mapping[str, Recorded], snapshot: Snapshot, devices: DeltaLog) -> dict[str, Late | None]:
    """The days that are not what their counts reflect, with the commits that changed them since: None if none is known.

    The same files are the same input. Other files may be, too: after compaction. The log, read back from the snapshot,
    leads to the files that were counted, and tells what has changed since. Where it leads nowhere, nobody knows, and
    the day counts as changed: the commits were cleaned up, or the table was put back, as from a backup.
    """
    files = {
        day: snapshot.fingerprint(day)
        for day, known in recorded.items()
        if known.fingerprint != snapshot.fingerprint(day)
    }
    late: dict[str, Late] = {}
    with suppress(LogIncomplete):
        oldest = min((recorded[day].version for day in files), default=snapshot.version)
        for commit in devices.commits_back(snapshot.version, after=oldest):
            for day in commit.fingerprint_changes.keys() & files.keys():
                if day in commit.changes:
                    late[day] = _with_earlier(late.get(day), commit)
                files[day] = commit.fingerprint_before(day, files[day])
                if files[day] == recorded[day].fingerprint:
                    del files[day]
            if not files:
                break
    return {day: late.get(day) for day in sorted({*files, *late})}


def _with_earlier(late: Late | None, commit: Commit) -> Late:
    return Late((commit.version, *late.versions), late.at) if late else Late((commit.version,), commit.timestamp)


def _nothing_to_do(day: str, recorded: Recorded, rows: int) -> Processed:
    return Processed(day, recorded.version, False, rows, rows)


def lateness(day: str, at: datetime) -> timedelta:
    """How long after the end of a day (UTC) something came, in whole seconds."""
    end = datetime.combine(date.fromisoformat(day), datetime.min.time(), timezone.utc) + timedelta(days=1)
    return timedelta(seconds=int((at - end).total_seconds()))
