"""Commits to a Delta table that is partitioned by day: which days changed, and by which version.

Somebody else writes the table. A tick follows its log from the version where the last one stopped and reports each
day that changed as a materialization, whose data version is the version of the table. What a change leads to is not
decided here.

Where the log does not tell (commits were cleaned up, the table was made anew), what the table consists of now is held
against what it consisted of: a change may be reported twice, but none is lost. Once a minute that is done in any case,
since a log can have a gap that it does not show, and a commit can be overwritten after it was read.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

import dagster as dg

from dedp_assets.days import day_of
from dedp_assets.delta.commits import Commit, Snapshot, add_fingerprints
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import (
    CommitUnreadable,
    LogIncomplete,
    TableMissing,
    TableProblem,
    TableReplaced,
    UnsupportedTable,
)
from dedp_assets.resources.lake import LakeResource
from sensors.pools import ensure_limit

# A tick may take 60 s. Where a log is long, or its store is slow, the next tick goes on.
MAX_COMMITS = 1_000
MAX_SECONDS = 20.0

# As many are named in a tick's message.
_NAMED = 20

_FORMAT = 2


@dataclass(frozen=True)
class Cursor:
    """How far the ticks before have followed the table: kept by Dagster, as JSON.

    table_id, version, mark: the last commit that was taken in, the table it belongs to, and what tells its file from
    that of a table made anew (None if it was not there any more).
    fingerprints: what every partition consists of at that version, also those that are not reported. For those in
    `touched` that is only what their commits seemed to say since the table was last looked at as a whole.
    waiting: the version that last changed a day which Dagster has no partition for yet.
    """

    table_id: str
    version: int
    mark: str | None
    fingerprints: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()

    def to_json(self) -> str:
        stored = self.__dict__ | {"touched": sorted(self.touched), "format": _FORMAT}
        return json.dumps(stored, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | None) -> "Cursor | None":
        """The cursor that was stored; None, so that everything is reported once more, where it is not ours."""
        try:
            stored = json.loads(text or "null")
            mark = stored["mark"]
            if stored.get("format", 1) not in (1, _FORMAT):
                return None
            # The first format added up what commits said, without end.
            touched = stored["touched"] if "format" in stored else [*stored["fingerprints"]]
            return cls(
                table_id=str(stored["table_id"]),
                version=int(stored["version"]),
                mark=None if mark is None else str(mark),
                fingerprints={str(name): int(value) for name, value in stored["fingerprints"].items()},
                waiting={str(name): int(version) for name, version in stored["waiting"].items()},
                touched=frozenset(str(name) for name in touched),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


@dataclass(frozen=True)
class Look:
    """What a look at the table found.

    table_id, version, mark: where the table is now, as far as it was followed.
    commits: those after the cursor, in order; from the first one on where there is no cursor, or `anew`.
    snapshot: the table at `version`, where the log alone does not tell what changed, or to be sure.
    gap: the log does not tell.
    anew: another table has taken the place of the cursor's.
    checked: the table was looked at as a whole.
    is_all: the log seems to have no more than that.
    """

    table_id: str
    version: int
    mark: str | None
    commits: list[Commit] = field(default_factory=list)
    snapshot: Snapshot | None = None
    gap: bool = False
    anew: bool = False
    checked: bool = False
    is_all: bool = True
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Change:
    """A day to report: the latest version that changed it, and the commits of this tick that did, oldest first.

    files: how many the day consists of, where that was found by comparing, and not in the log.
    """

    day: str
    version: int
    commits: tuple[Commit, ...] = ()
    files: int | None = None


@dataclass(frozen=True)
class Decision:
    """What a tick does: changes to report, the cursor to keep, and what to tell whoever reads the tick."""

    changes: list[Change]
    cursor: Cursor
    notes: list[str]


def decide(look: Look, cursor: Cursor | None, *, first: str, last: str, column: str) -> Decision:
    """Which days to report. `first` and `last`: the first and the latest day that Dagster has a partition for; column:
    of the partition values."""
    known = cursor if cursor and not look.anew else Cursor(look.table_id, -1, None)
    changes = _followed(look.commits)
    fingerprints = add_fingerprints(known.fingerprints, look.commits)
    touched = known.touched.union(*(commit.fingerprint_changes for commit in look.commits))
    notes = [*look.notes]
    if look.snapshot:
        found = _compared(look.snapshot, fingerprints, touched, changes, gap=look.gap)
        if found and not look.gap:
            notes.append(_unseen(look.snapshot, found))
        changes |= found
        if look.gap or look.commits or found:
            fingerprints, touched = look.snapshot.fingerprints(), frozenset()
    if look.anew and cursor:
        # What the old table had and the new one has not, or not as far as it was followed.
        gone = (cursor.fingerprints.keys() | cursor.touched) - fingerprints.keys() - changes.keys()
        changes |= {partition: Change(partition, look.version) for partition in gone}

    unusable = {name: why for name in sorted({*fingerprints, *changes}) if (why := _unusable(name, first, column))}
    versions = known.waiting | {name: change.version for name, change in changes.items() if name not in unusable}
    waiting = {day: version for day, version in sorted(versions.items()) if day > last}
    due = sorted(versions.keys() - waiting.keys())
    reported = [changes.get(day) or Change(day, versions[day]) for day in due]
    return Decision(
        reported,
        Cursor(look.table_id, look.version, look.mark, fingerprints, waiting, touched),
        [*notes, *_reported(reported), *_waits(waiting, last), *_not_reported(unusable)],
    )


def _followed(commits: list[Commit]) -> dict[str, Change]:
    changes: dict[str, Change] = {}
    for commit in commits:
        for partition in commit.changes:
            before = changes[partition].commits if partition in changes else ()
            changes[partition] = Change(partition, commit.version, (*before, commit))
    return changes


def _compared(
    snapshot: Snapshot,
    fingerprints: dict[str, int],
    touched: Collection[str],
    followed: dict[str, Change],
    *,
    gap: bool,
) -> dict[str, Change]:
    """The partitions that consist of other files than their fingerprints say, also those that have none any more.

    Those that commits have touched count as different after a gap. Without one, their commits were reported.
    """
    now = snapshot.fingerprints()
    differ = {name for name in {*now, *fingerprints} if now.get(name) != fingerprints.get(name)} - set(touched)
    return {
        name: Change(
            name,
            snapshot.version,
            followed[name].commits if name in followed else (),
            len(snapshot.files.get(name, ())),
        )
        for name in (differ.union(touched) if gap else differ)
    }


def _unseen(snapshot: Snapshot, found: Collection[str]) -> str:
    return (
        f"{_counted(len(found), 'partition')} of {snapshot.root} changed at or before version {snapshot.version} by "
        f"no commit that was read; commits were overwritten, or removed: {_some(sorted(found))}"
    )


def _unusable(partition: str, first: str, column: str) -> str | None:
    """Why no day can ever be reported for this partition value, or None."""
    if not partition:
        return f"rows without {column}"
    if day_of(partition) is None:
        return f"{partition!r} is not a day like 2024-01-31"
    return f"{partition} is before the first partition, {first}" if partition < first else None


def _reported(changes: list[Change]) -> list[str]:
    if not changes:
        return []
    days = _some(f"{change.day} (version {change.version})" for change in changes)
    return [f"{_counted(len(changes), 'day')} changed: {days}"]


def _waits(waiting: Collection[str], last: str) -> list[str]:
    if not waiting:
        return []
    return [f"{_counted(len(waiting), 'day')} after today, {last} (UTC), reported when it has begun: {_some(waiting)}"]


def _not_reported(unusable: dict[str, str]) -> list[str]:
    if not unusable:
        return []
    return [f"{_counted(len(unusable), 'partition')} never reported: {_some(unusable.values())}"]


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f", and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more


def look(
    log: DeltaLog,
    cursor: Cursor | None,
    *,
    seconds: float = MAX_SECONDS,
    check: Callable[[bool], bool] = lambda _: True,
) -> Look:
    """What is new in the table since the cursor; without one, everything. Stops following after so many seconds.

    check: whether to look at the whole table as well, by whether there are new commits; without a cursor that is done
    in any case. Raises TableProblem for what has to be put right first, by whoever writes the table.
    """
    found = _found(log, cursor, seconds)
    if found.snapshot:
        return replace(found, checked=True)
    wanted = found.is_all and (cursor is None or check(bool(found.commits)))
    return _checked(log, found, seconds) if wanted else found


# So often, in s, the whole table is looked at, be there something new in its log or not. When that was last is kept in
# the process and not in the cursor, which would move without anything new in the table.
CHECK_SECONDS = 60


def is_due(checked: float | None, now: float) -> bool:
    """Whether to look at the whole table, by when that was done last; both in s since the epoch."""
    return checked is None or not 0 <= now - checked < CHECK_SECONDS


def _checked(log: DeltaLog, found: Look, seconds: float) -> Look:
    """The same with a look at the whole table: whether there is something that its log does not show."""
    try:
        snapshot = log.snapshot()
    except (UnsupportedTable, TableMissing):
        raise
    except TableProblem as problem:
        # What was read from the log is right all the same.
        return replace(found, checked=True, notes=[*found.notes, str(problem)])
    if snapshot.table_id != found.table_id and log.mark(found.version) != found.mark:
        return found  # made anew a moment ago: the next tick sees to it
    # Else another table was written over it in the same log, perhaps by a commit that is not there any more.
    if snapshot.version > found.version:
        more = _follow(log, found.version, seconds)
        if more.commits:
            commits, notes = [*found.commits, *more.commits], [*found.notes, *more.notes]
            table_id = more.table_id or found.table_id
            found = replace(found, table_id=table_id, version=commits[-1].version, mark=commits[-1].mark)
            found = replace(found, commits=commits, notes=notes)
        if more.table_id or not more.is_all:
            return found
    if snapshot.version > found.version:
        # No commit follows the last one that was read, and yet the table has gone on.
        note = (
            f"{log.uri}: commit {found.version + 1} is not in the log, and the table is at version {snapshot.version}"
        )
        gap = _compare(snapshot, log.mark(snapshot.version), [*found.notes, note], found.commits)
        return replace(gap, checked=True, anew=found.anew)
    if snapshot.version < found.version:
        snapshot = log.snapshot(found.version)
    return replace(found, table_id=snapshot.table_id, snapshot=snapshot, checked=True)


def _found(log: DeltaLog, cursor: Cursor | None, seconds: float) -> Look:
    if cursor is None:
        return _from_the_beginning(log, seconds)
    new = _follow(log, cursor.version, seconds)
    snapshot, mark = _position(log) if isinstance(new.problem, LogIncomplete) else (None, None)

    # Only now: if that is still the cursor's table, then all of the above was read from it, too.
    at_cursor = log.mark(cursor.version)
    if _is_followed(log, cursor, at_cursor, new, snapshot):
        if snapshot:
            return _compare(snapshot, mark, new.notes, new.commits)
        table_id = new.table_id or cursor.table_id
        if new.commits:
            latest = new.commits[-1]
            return Look(table_id, latest.version, latest.mark, new.commits, notes=new.notes, is_all=new.is_all)
        return Look(table_id, cursor.version, cursor.mark, notes=new.notes, is_all=new.is_all)

    snapshot, mark = _position(log)
    if snapshot.table_id == cursor.table_id:
        note = f"{log.uri}: its log is not the one that was followed to version {cursor.version}"
        return _compare(snapshot, mark, [note])
    found = _from_the_beginning(log, seconds)
    note = f"{log.uri} is another table than the one that was followed to version {cursor.version}: it was made anew"
    return replace(found, anew=True, notes=[note, *found.notes])


def _from_the_beginning(log: DeltaLog, seconds: float) -> Look:
    new = _follow(log, -1, seconds)
    if isinstance(new.problem, LogIncomplete):
        return _compare(*_position(log), new.notes)
    if not new.commits:
        raise new.problem or TableMissing(f"there is no Delta table at {log.uri}")
    first, latest = new.commits[0], new.commits[-1]
    if log.mark(first.version) != first.mark:
        raise TableReplaced(f"{log.uri} was made anew while its log was read; the next tick reads it again")
    table_id = new.table_id or log.snapshot().table_id
    return Look(table_id, latest.version, latest.mark, new.commits, notes=new.notes, is_all=new.is_all)


def _compare(snapshot: Snapshot, mark: str | None, notes: list[str], commits: Iterable[Commit] = ()) -> Look:
    note = f"what changed was found by comparing with the files of version {snapshot.version}"
    return Look(snapshot.table_id, snapshot.version, mark, [*commits], snapshot, gap=True, notes=[*notes, note])


@dataclass(frozen=True)
class _Followed:
    """The commits that were read, and what stopped it: a problem, or that it was enough for one tick."""

    commits: list[Commit]
    problem: TableProblem | None
    enough: bool

    @property
    def is_all(self) -> bool:
        """Whether the log seems to have no more."""
        return not self.problem and not self.enough

    @property
    def table_id(self) -> str | None:
        """The table's identity, as stated last."""
        return next((commit.table_id for commit in reversed(self.commits) if commit.table_id), None)

    @property
    def notes(self) -> list[str]:
        notes = [str(self.problem)] if self.problem else []
        if not self.commits:
            return notes
        rest = "; the next tick goes on" if self.enough else ""
        return [f"{_counted(len(self.commits), 'commit')} read, up to version {self.commits[-1].version}{rest}", *notes]


def _follow(log: DeltaLog, after: int, seconds: float) -> _Followed:
    """The commits after a version, of a table that has been seen to be one that we can read."""
    commits: list[Commit] = []
    problem: TableProblem | None = None
    end = time.monotonic() + seconds
    try:
        for commit in log.commits(after, MAX_COMMITS):
            commits.append(commit)
            if time.monotonic() >= end:
                break
    except (LogIncomplete, CommitUnreadable) as found:
        problem = found
    enough = len(commits) == MAX_COMMITS or time.monotonic() >= end
    if any(commit.check_table for commit in commits):
        # Not at the latest version where that can't be read.
        log.snapshot(commits[-1].version if isinstance(problem, CommitUnreadable) else None)
    return _Followed(commits, problem, enough)


def _position(log: DeltaLog) -> tuple[Snapshot, str | None]:
    """The table as it is now, and the mark of its latest commit, for sure of the same table."""
    snapshot = log.snapshot()
    mark = log.mark(snapshot.version)
    if log.snapshot().table_id != snapshot.table_id:
        raise TableReplaced(f"{log.uri} was made anew while it was read; the next tick reads it again")
    return snapshot, mark


def _is_followed(
    log: DeltaLog, cursor: Cursor, at_cursor: str | None, new: _Followed, snapshot: Snapshot | None
) -> bool:
    """Whether the table is the one that the cursor belongs to, with the history that was followed to there.

    at_cursor: the mark of the commit at the cursor's version as it is now.
    """
    if at_cursor and cursor.mark:
        return at_cursor == cursor.mark
    # That commit's file was cleaned up. A table made anew has another id.
    snapshot = snapshot or log.snapshot()
    latest = new.commits[-1].version if new.commits else cursor.version
    return snapshot.table_id == (new.table_id or cursor.table_id) and snapshot.version >= latest


def materialization(key: dg.AssetKey, change: Change) -> dg.AssetMaterialization:
    """The event that tells Dagster of a change."""
    metadata: dict[str, dg.MetadataValue] = {"version": dg.MetadataValue.int(change.version)}
    if change.commits:
        metadata |= _commit_metadata(change)
    if change.files is not None:
        metadata["files"] = dg.MetadataValue.int(change.files)
    return dg.AssetMaterialization(
        key,
        partition=change.day,
        metadata=metadata,
        tags={"dagster/data_version": str(change.version)},
    )


def _commit_metadata(change: Change) -> dict[str, dg.MetadataValue]:
    commits = change.commits
    changes = [commit.changes[change.day] for commit in commits]
    metadata: dict[str, dg.MetadataValue] = {
        "operation": dg.MetadataValue.text(", ".join(dict.fromkeys(commit.operation for commit in commits))),
        "committed": dg.MetadataValue.timestamp(commits[-1].timestamp),
        "files_added": dg.MetadataValue.int(sum(each.files_added for each in changes)),
        "files_removed": dg.MetadataValue.int(sum(each.files_removed for each in changes)),
    }
    rows = {
        "rows_added": [each.rows_added for each in changes],
        "rows_removed": [each.rows_removed for each in changes],
    }
    for name, numbers in rows.items():
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers):  # else the writer did not say
            metadata[name] = dg.MetadataValue.int(sum(known))
    if len(commits) > 1:
        metadata["commits"] = dg.MetadataValue.json([commit.version for commit in commits])
    return metadata


def commit_sensor(
    name: str,
    key: dg.AssetKey,
    *,
    partitions: dg.TimeWindowPartitionsDefinition,
    partition_column: str,
    pool: str,
    writer: str,
) -> dg.SensorDefinition:
    """A sensor that reports every day of a Delta table that a commit changed. It requests nothing itself.

    Args:
        name: of the sensor.
        key: the asset that the table is; each change becomes a materialization of it.
        partitions: the days that there are partitions for.
        partition_column: the one column that the table is partitioned by.
        pool: the concurrency pool of the runs that follow, which gets its default limit before the first of them.
        writer: what writes the table, for the message while there is none.
    """
    checked_at: dict[tuple[str, bool], float] = {}

    @dg.sensor(
        name=name,
        description=f"Reports every day of {key.to_user_string()} that a commit changed, once it can be read.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=1,
    )
    def sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        log = lake.open_log(key, partition_column)
        cursor = Cursor.from_json(context.cursor)
        try:
            found = look(log, cursor, check=lambda commits: is_due(checked_at.get((log.uri, commits)), time.time()))
        except (TableMissing, CommitUnreadable) as problem:
            # The normal state of things, or one that passes: the tick is no failure, and the cursor stays.
            message = _no_table(log, cursor, writer) if isinstance(problem, TableMissing) else str(problem)
            return dg.SensorResult(skip_reason=message, cursor=context.cursor)
        if found.checked:
            checked_at[log.uri, bool(found.commits)] = time.time()
        first, last = _first_and_last_day(partitions, datetime.now(timezone.utc))
        decision = decide(found, cursor, first=first, last=last, column=log.partition_column)
        if decision.changes:
            ensure_limit(context.instance, pool)
        if found.notes or decision.changes:
            # Not at every tick: the log of each is a file of its own.
            for note in decision.notes:
                context.log.info(note)
        return dg.SensorResult(
            asset_events=[materialization(key, change) for change in decision.changes],
            # Dagster shows this for every tick without run requests, and takes the events all the same.
            skip_reason="; ".join(decision.notes) or f"nothing new in {log.uri} since version {found.version}",
            cursor=decision.cursor.to_json(),
        )

    return sensor


def _first_and_last_day(partitions: dg.TimeWindowPartitionsDefinition, now: datetime) -> tuple[str, str]:
    # Not by listing every day that there is: at each tick, that takes longer than all the rest.
    with dg.partition_loading_context(now):
        days = partitions.get_first_partition_key(), partitions.get_last_partition_key()
    return days[0] or "", days[1] or ""


def _no_table(log: DeltaLog, cursor: Cursor | None, writer: str) -> str:
    if cursor is None:
        return f"there is no Delta table at {log.uri} yet: {writer} writes one"
    return (
        f"the Delta table at {log.uri} is gone; it was followed to version {cursor.version}. When there is one again, "
        f"whatever is different in it is reported; {writer} writes one"
    )
