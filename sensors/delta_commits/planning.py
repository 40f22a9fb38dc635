"""Which days to report, from what was observed of the table and the cursor. Plain values only."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from dedp_assets.days import day_of
from dedp_assets.delta.commits import Commit, Snapshot, add_fingerprints
from dedp_assets.wording import counted
from sensors.delta_commits.cursor import Cursor
from sensors.delta_commits.observing import TableState
from sensors.ticks import some_of


@dataclass(frozen=True)
class ChangedDay:
    """A day to report.

    Attributes:
        day: the partition.
        version: the latest version of the table that changed the day.
        commits: the commits of this tick that changed the day, oldest first. Empty if none did.
        files: how many files the day has, if the change was found by comparing and not in the log.
    """

    day: str
    version: int
    commits: tuple[Commit, ...] = ()
    files: int | None = None


@dataclass(frozen=True)
class ReportPlan:
    """What a tick does.

    Attributes:
        changes: the days to report, in order.
        cursor: the cursor to store.
        notes: what the message of the tick says.
    """

    changes: list[ChangedDay]
    cursor: Cursor
    notes: list[str]


def plan_report(state: TableState, cursor: Cursor | None, *, first: str, last: str, column: str) -> ReportPlan:
    """Decide which days to report.

    Args:
        state: what was observed of the table.
        cursor: the cursor that the state was observed from.
        first: the first day that Dagster has a partition for.
        last: the latest day that Dagster has a partition for.
        column: the column that the table is partitioned by, for messages.
    """
    known = cursor if cursor and not state.is_recreated else Cursor(state.table_id, -1, None)
    changes = _changed_by_commits(state.commits)
    fingerprints = add_fingerprints(known.fingerprints, state.commits)
    touched = known.touched.union(*(commit.fingerprint_changes for commit in state.commits))
    notes = [*state.notes]
    if state.snapshot:
        found = _changed_by_comparison(state.snapshot, fingerprints, touched, changes, has_log_gap=state.has_log_gap)
        if found and not state.has_log_gap:
            notes.append(_describe_unlogged(state.snapshot, found))
        changes |= found
        if state.has_log_gap or state.commits or found:
            fingerprints, touched = state.snapshot.fingerprints(), frozenset()
    if state.is_recreated and cursor:
        # Days that the old table had, and that the new one does not have, as far as it was read.
        gone = (cursor.fingerprints.keys() | cursor.touched) - fingerprints.keys() - changes.keys()
        changes |= {partition: ChangedDay(partition, state.version) for partition in gone}

    unusable = _unusable_partitions({*fingerprints, *changes}, first, column)
    versions = known.waiting | {name: change.version for name, change in changes.items() if name not in unusable}
    waiting = {day: version for day, version in sorted(versions.items()) if day > last}
    due = sorted(versions.keys() - waiting.keys())
    reported = [changes.get(day) or ChangedDay(day, versions[day]) for day in due]
    return ReportPlan(
        reported,
        Cursor(state.table_id, state.version, state.mark, fingerprints, waiting, touched),
        [*notes, *_describe_reported(reported), *_describe_waiting(waiting, last), *_describe_unusable(unusable)],
    )


def _changed_by_commits(commits: Iterable[Commit]) -> dict[str, ChangedDay]:
    changes: dict[str, ChangedDay] = {}
    for commit in commits:
        for partition in commit.changes:
            before = changes[partition].commits if partition in changes else ()
            changes[partition] = ChangedDay(partition, commit.version, (*before, commit))
    return changes


def _changed_by_comparison(
    snapshot: Snapshot,
    fingerprints: Mapping[str, int],
    touched: Collection[str],
    changed_by_commits: Mapping[str, ChangedDay],
    *,
    has_log_gap: bool,
) -> dict[str, ChangedDay]:
    """The partitions whose files are not those of their fingerprints, also partitions that have no files any more.

    The fingerprint of a touched partition is not certain. After a gap in the log each of them counts as changed.
    Without a gap none does, because the commits that touched it have been reported.
    """
    now = snapshot.fingerprints()
    differ = {name for name in {*now, *fingerprints} if now.get(name) != fingerprints.get(name)} - set(touched)
    return {
        name: ChangedDay(
            name,
            snapshot.version,
            changed_by_commits[name].commits if name in changed_by_commits else (),
            len(snapshot.files.get(name, ())),
        )
        for name in (differ.union(touched) if has_log_gap else differ)
    }


def _unusable_partitions(partitions: Iterable[str], first: str, column: str) -> dict[str, str]:
    """The partitions that can never be reported as a day, each with the reason."""
    return {name: reason for name in sorted(partitions) if (reason := _reason_unusable(name, first, column))}


def _reason_unusable(partition: str, first: str, column: str) -> str | None:
    if not partition:
        return f"rows without {column}"
    if day_of(partition) is None:
        return f"{partition!r} is not a day like 2024-01-31"
    return f"{partition} is before the first partition, {first}" if partition < first else None


def _describe_unlogged(snapshot: Snapshot, found: Collection[str]) -> str:
    return (
        f"{counted(len(found), 'partition')} of {snapshot.root} changed at or before version {snapshot.version}, but "
        f"no commit that was read says so: commits were overwritten or removed; changed: {some_of(sorted(found))}"
    )


def _describe_reported(changes: Collection[ChangedDay]) -> list[str]:
    if not changes:
        return []
    days = some_of([f"{change.day} (version {change.version})" for change in changes])
    return [f"{counted(len(changes), 'day')} changed: {days}"]


def _describe_waiting(waiting: Collection[str], last: str) -> list[str]:
    if not waiting:
        return []
    days = counted(len(waiting), "day")
    return [f"{days} after today, {last} (UTC), will be reported once the day has begun: {some_of([*waiting])}"]


def _describe_unusable(unusable: Mapping[str, str]) -> list[str]:
    if not unusable:
        return []
    return [f"{counted(len(unusable), 'partition')} never reported: {some_of([*unusable.values()])}"]
