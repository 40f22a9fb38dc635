"""Where each day stands, for people: what its counts reflect, and which late commits they don't reflect yet.

This only reads: it creates, writes and starts nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias

import dagster as dg

from dedp_assets.days import closed_days
from dedp_assets.delta.commits import Commit
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import CommitUnreadable, LogCleaned, LogIncomplete
from dedp_assets.late_data_integrator import contract, state
from dedp_assets.late_data_integrator.processing import LateCommits, lateness
from dedp_assets.partition_runs import partitions_of

# We read at most this many commits, the latest ones: each of them is a file of its own.
MAX_COMMITS = 5_000
# We ask for at most this many finished runs, to find those that failed.
MAX_RUNS = 1_000

Status: TypeAlias = Literal["failed", "late", "running", "waiting", "open", "clean"]

# What each status means. The statuses that may need somebody's attention come first.
STATUSES: dict[Status, str] = {
    "failed": "its latest run failed, and its counts don't reflect its input",
    "late": "counted before; changed since, or gone",
    "running": "a run of it is queued or under way",
    "waiting": "closed (the next day has appeared), and not counted yet",
    "open": "not counted yet; the next day has not appeared",
    "clean": "its counts reflect its input",
}


class Row(NamedTuple):
    """Where a day stands.

    Attributes:
        input_version: the version that last changed the day; None if the log has no such commit any more.
        counts_version: the version of the input that its counts reflect; None if there are no counts of this table.
        late_commits: the versions that changed the day since it was counted.
        late_at: when the last of them was made (UTC).
        lateness: how long after the end of the day that was.
        gone: the day was counted, and the input has no data of it any more.
        of_another_table: the counts reflect an earlier table at the same place.
    """

    day: str
    status: Status
    input_version: int | None
    counts_version: int | None
    late_commits: tuple[int, ...] = ()
    late_at: datetime | None = None
    lateness: timedelta | None = None
    gone: bool = False
    of_another_table: bool = False


@dataclass(frozen=True)
class History:
    """The commits to a table, oldest first, and how many of its versions are not among them."""

    commits: tuple[Commit, ...]
    missing: int = 0


def day_rows(
    progress: state.Progress, history: History, known: Collection[str], failed: Collection[str] = ()
) -> list[Row]:
    """A row for every day that has data, was counted or is being counted, ordered by status and then by day.

    Args:
        progress: how far every day is.
        history: the commits to the input table.
        known: the days that Dagster has a partition for. Other partitions of the table are left out.
        failed: the days whose latest run failed.
    """
    changed = {day: commit.version for commit in history.commits for day in commit.changes}
    counted = {*progress.recorded, *progress.recorded_before}
    appeared = {*progress.snapshot.files, *changed, *counted} & set(known)
    closed, late = closed_days(appeared | set(progress.in_progress), appeared), progress.late_commits
    rows = [
        _row(day, _status(day, progress, closed, failed), changed.get(day), progress, late.get(day))
        for day in appeared & {*progress.snapshot.files, *counted} | set(progress.in_progress)
    ]
    order = list(STATUSES)
    return sorted(rows, key=lambda row: (order.index(row.status), row.day))


def known_days(now: datetime) -> set[str]:
    """The days that there are partitions for."""
    return set(contract.DAYS.get_partition_keys(current_time=now))


def read_history(log: DeltaLog, version: int, limit: int = MAX_COMMITS) -> History:
    """The latest commits up to a version. Commits that are gone, or don't say what they changed, are left out.

    Args:
        log: the log of the table.
        version: the last version to read.
        limit: the greatest number of versions to read.

    Raises:
        TableProblem: the log can't be read.
    """
    commits: list[Commit] = []
    after = max(version - limit, -1)
    while after < version:
        try:
            for commit in log.commits(after, version - after):
                commits.append(commit)
                after = commit.version
            after += 1  # this commit is missing; there may be later ones
        except LogCleaned as cleaned:
            if cleaned.oldest is None:
                break
            after = cleaned.oldest - 1
        except (LogIncomplete, CommitUnreadable):
            after += 1
    return History(tuple(commits), version + 1 - len(commits))


def days_failed(instance: dg.DagsterInstance) -> set[str]:
    """The days whose latest finished run failed to count them. Only the last MAX_RUNS finished runs are read."""
    over = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    latest: dict[str, dg.DagsterRunStatus] = {}
    for run in instance.get_runs(dg.RunsFilter(statuses=over), limit=MAX_RUNS):  # the latest first
        if contract.DEVICE_COUNTS in (run.asset_selection or ()):
            latest = {day: run.status for day in partitions_of(run, contract.DAYS)} | latest
    return {day for day, status in latest.items() if status == dg.DagsterRunStatus.FAILURE}


def _status(day: str, progress: state.Progress, closed: Collection[str], failed: Collection[str]) -> Status:
    if day in progress.in_progress:
        return "running"
    is_late = day in progress.late
    if day in progress.recorded and not is_late:
        return "clean"
    if day in failed:
        return "failed"
    if is_late:
        return "late"
    return "waiting" if day in closed else "open"


def _row(day: str, status: Status, changed: int | None, progress: state.Progress, late: LateCommits | None) -> Row:
    recorded = progress.recorded.get(day)
    row = Row(day, status, changed, recorded.version if recorded else None)
    if day not in progress.late:
        return row
    row = row._replace(gone=day not in progress.snapshot.files, of_another_table=recorded is None)
    if late is None:
        return row
    return row._replace(
        input_version=late.versions[-1], late_commits=late.versions, late_at=late.at, lateness=lateness(day, late.at)
    )
