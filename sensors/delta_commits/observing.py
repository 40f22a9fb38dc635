"""Reads the table: the commits after the cursor, and a snapshot if the commits are not enough."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from dedp_assets.delta.commits import Commit, Snapshot
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import (
    CommitUnreadable,
    LogIncomplete,
    TableMissing,
    TableProblem,
    TableReplaced,
    UnsupportedTable,
)
from dedp_assets.errors import ErrorNote
from dedp_assets.wording import counted
from sensors.delta_commits.cursor import Cursor

# Dagster ends a tick after 60 s. If a log is long or its store is slow, the next tick continues.
MAX_COMMITS = 1_000
MAX_SECONDS = 20.0

# How often a snapshot of the table is taken, in s, whether or not there are new commits. The time of the last one is
# kept in the process. In the cursor it would change the cursor although nothing is new in the table.
SNAPSHOT_INTERVAL_SECONDS = 60


@dataclass(frozen=True)
class TableState:
    """What was observed of the table.

    Attributes:
        table_id: the identity of the table.
        version: the version up to which the table was followed.
        mark: the mark of that commit, see `Cursor`.
        commits: the commits after the cursor, in order. All commits if there is no cursor, or if `is_recreated`.
        snapshot: the table at `version`, if one was needed or due.
        has_log_gap: the log does not say everything that changed since the cursor; the snapshot does.
        is_recreated: another table has taken the place of the table that the cursor belongs to.
        has_read_snapshot: a snapshot was taken or tried, so that the next one is due in a minute.
        is_log_end: no more commits were seen in the log.
        notes: what the message of the tick says about it.
    """

    table_id: str
    version: int
    mark: str | None
    commits: list[Commit] = field(default_factory=list)
    snapshot: Snapshot | None = None
    has_log_gap: bool = False
    is_recreated: bool = False
    has_read_snapshot: bool = False
    is_log_end: bool = True
    notes: list[str] = field(default_factory=list)


def observe_table(
    log: DeltaLog,
    cursor: Cursor | None,
    *,
    seconds: float = MAX_SECONDS,
    wants_snapshot: Callable[[bool], bool] = lambda _: True,
) -> TableState:
    """Find out what is new in the table since the cursor; without a cursor, everything is new.

    Args:
        log: the log of the table.
        cursor: where the last tick stopped.
        seconds: stop reading commits after this time, in s.
        wants_snapshot: whether to take a snapshot as well, given whether there are new commits. Without a cursor, one
            is taken in any case.

    Raises:
        TableProblem: whoever writes the table has to do something first, or the table changes while it is read.
    """
    state = _observe_log(log, cursor, seconds)
    if state.snapshot:
        return replace(state, has_read_snapshot=True)
    wanted = state.is_log_end and (cursor is None or wants_snapshot(bool(state.commits)))
    return _with_snapshot(log, state, seconds) if wanted else state


def snapshot_is_due(last: float | None, now: float) -> bool:
    """Whether to take a snapshot of the table.

    Args:
        last: when the last one was taken, in s since the epoch. None if none was.
        now: the time now, in s since the epoch. Before `last` if the clock was set back.
    """
    return last is None or not 0 <= now - last < SNAPSHOT_INTERVAL_SECONDS


def _with_snapshot(log: DeltaLog, state: TableState, seconds: float) -> TableState:
    """The state with a snapshot, which shows changes that the log does not show."""
    try:
        snapshot = log.snapshot()
    except (UnsupportedTable, TableMissing):
        raise
    except TableProblem as problem:
        # The commits that were read are right all the same.
        return replace(state, has_read_snapshot=True, notes=[*state.notes, ErrorNote(problem)])
    if snapshot.table_id != state.table_id and log.mark(state.version) != state.mark:
        return state  # The table was created again a moment ago. The next tick reads it.
    # If only the identity differs, another table was written over this one in the same log, perhaps by a commit that
    # does not exist any more.
    if snapshot.version > state.version:
        more = _read_commits(log, state.version, seconds)
        if more.commits:
            commits, notes = [*state.commits, *more.commits], [*state.notes, *more.notes]
            table_id = more.table_id or state.table_id
            state = replace(state, table_id=table_id, version=commits[-1].version, mark=commits[-1].mark)
            state = replace(state, commits=commits, notes=notes)
        if more.table_id or not more.is_log_end:
            return state
    if snapshot.version > state.version:
        # No commit follows the last one that was read, but the table is at a later version.
        note = (
            f"{log.uri}: commit {state.version + 1} is not in the log, and the table is at version {snapshot.version}"
        )
        gap = _state_after_gap(snapshot, log.mark(snapshot.version), [*state.notes, note], state.commits)
        return replace(gap, has_read_snapshot=True, is_recreated=state.is_recreated)
    if snapshot.version < state.version:
        snapshot = log.snapshot(state.version)
    return replace(state, table_id=snapshot.table_id, snapshot=snapshot, has_read_snapshot=True)


def _observe_log(log: DeltaLog, cursor: Cursor | None, seconds: float) -> TableState:
    if cursor is None:
        return _observe_from_first_commit(log, seconds)
    new = _read_commits(log, cursor.version, seconds)
    snapshot, mark = _consistent_snapshot(log) if isinstance(new.problem, LogIncomplete) else (None, None)

    # Read the mark last: if the table still is the cursor's table, then everything above was read from it, too.
    mark_at_cursor = log.mark(cursor.version)
    if _is_cursors_table(log, cursor, mark_at_cursor, new, snapshot):
        if snapshot:
            return _state_after_gap(snapshot, mark, new.notes, new.commits)
        table_id = new.table_id or cursor.table_id
        if new.commits:
            latest = new.commits[-1]
            return TableState(
                table_id, latest.version, latest.mark, new.commits, notes=new.notes, is_log_end=new.is_log_end
            )
        return TableState(table_id, cursor.version, cursor.mark, notes=new.notes, is_log_end=new.is_log_end)

    snapshot, mark = _consistent_snapshot(log)
    if snapshot.table_id == cursor.table_id:
        note = f"{log.uri}: its log is not the one that was followed to version {cursor.version}"
        return _state_after_gap(snapshot, mark, [note])
    state = _observe_from_first_commit(log, seconds)
    note = f"{log.uri} is another table than the one that was followed to version {cursor.version}: it was made anew"
    return replace(state, is_recreated=True, notes=[note, *state.notes])


def _observe_from_first_commit(log: DeltaLog, seconds: float) -> TableState:
    new = _read_commits(log, -1, seconds)
    if isinstance(new.problem, LogIncomplete):
        return _state_after_gap(*_consistent_snapshot(log), new.notes)
    if not new.commits:
        raise new.problem or TableMissing(f"there is no Delta table at {log.uri}")
    first, latest = new.commits[0], new.commits[-1]
    if log.mark(first.version) != first.mark:
        raise TableReplaced(f"{log.uri} was made anew while its log was read; the next tick reads it again")
    table_id = new.table_id or log.snapshot().table_id
    return TableState(table_id, latest.version, latest.mark, new.commits, notes=new.notes, is_log_end=new.is_log_end)


def _state_after_gap(
    snapshot: Snapshot, mark: str | None, notes: list[str], commits: Iterable[Commit] = ()
) -> TableState:
    note = f"what changed was found by comparing with the files of version {snapshot.version}"
    return TableState(
        snapshot.table_id, snapshot.version, mark, [*commits], snapshot, has_log_gap=True, notes=[*notes, note]
    )


@dataclass(frozen=True)
class _CommitsRead:
    """The commits that were read, and why reading stopped.

    Attributes:
        commits: the commits, in order.
        problem: the problem that stopped reading, or None.
        is_limit_reached: one tick reads no more than this. The next tick continues.
    """

    commits: list[Commit]
    problem: TableProblem | None
    is_limit_reached: bool

    @property
    def is_log_end(self) -> bool:
        """Whether no more commits were seen in the log."""
        return not self.problem and not self.is_limit_reached

    @property
    def table_id(self) -> str | None:
        """The identity that the latest of these commits gives the table; None if no commit gives one."""
        return next((commit.table_id for commit in reversed(self.commits) if commit.table_id), None)

    @property
    def notes(self) -> list[str]:
        """What the message of the tick says about it."""
        notes: list[str] = []
        if self.problem:
            # What an incomplete log does not say is found by comparing snapshots.
            is_made_good = isinstance(self.problem, LogIncomplete)
            notes.append(str(self.problem) if is_made_good else ErrorNote(self.problem))
        if not self.commits:
            return notes
        rest = "; the next tick continues" if self.is_limit_reached else ""
        return [f"{counted(len(self.commits), 'commit')} read, up to version {self.commits[-1].version}{rest}", *notes]


def _read_commits(log: DeltaLog, after: int, seconds: float) -> _CommitsRead:
    """Read the commits after a version.

    Raises:
        UnsupportedTable: a commit has made the table one that we cannot read.
    """
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
    is_limit_reached = len(commits) == MAX_COMMITS or time.monotonic() >= end
    if any(commit.check_table for commit in commits):
        # The snapshot checks the table. After a commit that cannot be read, there is no latest version to check.
        log.snapshot(commits[-1].version if isinstance(problem, CommitUnreadable) else None)
    return _CommitsRead(commits, problem, is_limit_reached)


def _consistent_snapshot(log: DeltaLog) -> tuple[Snapshot, str | None]:
    """A snapshot of the table, and the mark of its latest commit, both of the same table."""
    snapshot = log.snapshot()
    mark = log.mark(snapshot.version)
    if log.snapshot().table_id != snapshot.table_id:
        raise TableReplaced(f"{log.uri} was made anew while it was read; the next tick reads it again")
    return snapshot, mark


def _is_cursors_table(
    log: DeltaLog, cursor: Cursor, mark_at_cursor: str | None, new: _CommitsRead, snapshot: Snapshot | None
) -> bool:
    """Whether the table is the one that the cursor belongs to, with the same history up to the cursor.

    Args:
        log: the log of the table.
        cursor: the cursor.
        mark_at_cursor: the mark that the commit at the cursor's version has now. None if its file does not exist.
        new: the commits after the cursor.
        snapshot: the table now, if a snapshot was taken already.
    """
    if mark_at_cursor and cursor.mark:
        return mark_at_cursor == cursor.mark
    # The file of that commit was removed from the log. A table that was created again has another identity.
    snapshot = snapshot or log.snapshot()
    latest = new.commits[-1].version if new.commits else cursor.version
    return snapshot.table_id == (new.table_id or cursor.table_id) and snapshot.version >= latest
