"""What the last tick found in each directory: for `dedp uploads`, `dedp metrics` and the report."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as DatabaseCursor

from dedp_assets.landing.arrivals import Cursor, Plan
from dedp_assets.landing.directories import Directory

# One message to the server, and one transaction: a tick waits for the disk once.
_WRITE = """
    DELETE FROM dedp.upload_directories WHERE client = ANY(%(gone)s::text[]);

    INSERT INTO dedp.upload_directories AS known (client, directory, state, since, waiting, failures, problem)
    SELECT *
    FROM unnest(
        %(clients)s::text[], %(paths)s::text[], %(states)s::text[], %(since)s::timestamptz[], %(waiting)s::bigint[],
        %(failures)s::bigint[], %(problems)s::text[]
    )
    ON CONFLICT (client) DO UPDATE SET
        directory = EXCLUDED.directory, state = EXCLUDED.state, since = EXCLUDED.since, waiting = EXCLUDED.waiting,
        failures = EXCLUDED.failures, problem = EXCLUDED.problem
    WHERE (known.directory, known.state, known.waiting, known.failures, known.problem)
        IS DISTINCT FROM
        (EXCLUDED.directory, EXCLUDED.state, EXCLUDED.waiting, EXCLUDED.failures, EXCLUDED.problem);

    INSERT INTO dedp.upload_ticks AS known (id, ended_at, seconds, directories, queue_depth, timeouts)
    VALUES (1, now(), %(seconds)s, %(directories)s, %(queue_depth)s, %(timeouts)s)
    ON CONFLICT (id) DO UPDATE SET
        ended_at = EXCLUDED.ended_at, seconds = EXCLUDED.seconds, directories = EXCLUDED.directories,
        queue_depth = EXCLUDED.queue_depth, timeouts = known.timeouts + EXCLUDED.timeouts;
"""

_CLIENTS = "SELECT client FROM dedp.upload_directories"
_SILENT = "SELECT client FROM dedp.upload_directories WHERE state IN ('silent', 'given up') ORDER BY client"


class DirectoryStatus(NamedTuple):
    """One directory as the last tick found it.

    Attributes:
        client: Whose it is.
        directory: Its path.
        state: `healthy`, `failing`, `silent` or `given up`.
        since: Since when it has been in that state.
        waiting: How many of its files are not in the ledger yet.
        failures: How many tries to scan it have failed, one after the other.
        problem: Why it can't be scanned, or "".
    """

    client: str
    directory: str
    state: str
    since: datetime
    waiting: int
    failures: int
    problem: str


def statuses(directories: Iterable[Directory], cursor: Cursor, now: float) -> Iterator[DirectoryStatus]:
    """The state of each directory by what a tick has left in its cursor. `now`: in s since the epoch."""
    silent = set(cursor.timed_out)
    for directory in directories:
        client, failing = directory.client, cursor.failing.get(directory.client)
        state, since, failures, problem = "healthy", now, 0, ""
        if failing:
            state, since, failures, problem = "failing", failing.since, failing.tries, failing.problem
        elif directory.key in silent:
            state, since = ("given up" if directory.gives_up else "silent"), cursor.heard[directory.key]
        yield DirectoryStatus(
            client,
            str(directory.path),
            state,
            datetime.fromtimestamp(since, timezone.utc),
            len(cursor.waiting.get(client, ())),
            failures,
            problem,
        )


class StatusTables:
    """Writes what each tick found. Keep one for the life of the process: it writes only what has changed."""

    def __init__(self) -> None:
        self._written: Sequence[Directory] | None = None

    def write(
        self,
        connection: Connection,
        directories: Sequence[Directory],
        plan: Plan,
        now: float,
        seconds: float,
        before: Cursor,
    ) -> None:
        """Keep what a tick found: the directories whose state has changed, and the tick itself.

        Args:
            connection: To a database with the tables.
            directories: All watched directories.
            plan: What the tick does.
            now: When it began, in s since the epoch.
            seconds: How long it took.
            before: The cursor before the tick.
        """
        # The same objects as long as the settings and the folders that they name are the same.
        is_known = bool(before.began) and directories == self._written
        with connection, connection.cursor() as cursor:
            changed = _changed(directories, before, plan.cursor) if is_known else directories
            gone = [] if is_known else _not_watched(cursor, directories)
            found = [*zip(*statuses(changed, plan.cursor, now), strict=True)] or [()] * len(DirectoryStatus._fields)
            columns = ("clients", "paths", "states", "since", "waiting", "failures", "problems")
            cursor.execute(
                _WRITE,
                {
                    **{name: list(values) for name, values in zip(columns, found, strict=True)},
                    "gone": gone,
                    "seconds": seconds,
                    "directories": len(directories),
                    "queue_depth": plan.queue_depth,
                    "timeouts": len(plan.timed_out),
                },
            )
        self._written = directories


def _changed(directories: Sequence[Directory], before: Cursor, after: Cursor) -> list[Directory]:
    """The directories whose status two cursors tell apart. Most are as they were."""
    clients = {
        client
        for client in {*before.waiting, *after.waiting}
        if len(before.waiting.get(client, ())) != len(after.waiting.get(client, ()))
    }
    clients |= {
        client
        for client in {*before.failing, *after.failing}
        if before.failing.get(client) != after.failing.get(client)
    }
    keys = {*before.timed_out} ^ {*after.timed_out}
    if not clients and not keys:
        return []
    return [each for each in directories if each.client in clients or (keys and each.key in keys)]


def _not_watched(cursor: DatabaseCursor, directories: Sequence[Directory]) -> list[str]:
    watched = {directory.client for directory in directories}
    cursor.execute(_CLIENTS)
    return [client for (client,) in cursor.fetchall() if client not in watched]


def silent_clients(connection: Connection) -> list[str]:
    """The clients that have uploaded nothing for longer than their time-out, as the last tick found."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_SILENT)
        return [client for (client,) in cursor.fetchall()]
