"""What the last tick found in each directory: for `dedp uploads`, `dedp metrics` and the report."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from psycopg2.extensions import connection as Connection
from psycopg2.extras import execute_values

from dedp_assets.landing.arrivals import Cursor, Plan
from dedp_assets.landing.directories import Directory

_UPSERT = """
    INSERT INTO dedp.upload_directories AS known (client, directory, state, since, waiting, failures, problem)
    VALUES %s
    ON CONFLICT (client) DO UPDATE SET
        directory = EXCLUDED.directory, state = EXCLUDED.state, since = EXCLUDED.since, waiting = EXCLUDED.waiting,
        failures = EXCLUDED.failures, problem = EXCLUDED.problem
    WHERE (known.directory, known.state, known.waiting, known.failures, known.problem)
        IS DISTINCT FROM
        (EXCLUDED.directory, EXCLUDED.state, EXCLUDED.waiting, EXCLUDED.failures, EXCLUDED.problem)
"""

_TICK = """
    INSERT INTO dedp.upload_ticks AS known (id, ended_at, seconds, directories, queue_depth, timeouts)
    VALUES (1, now(), %(seconds)s, %(directories)s, %(queue_depth)s, %(timeouts)s)
    ON CONFLICT (id) DO UPDATE SET
        ended_at = EXCLUDED.ended_at, seconds = EXCLUDED.seconds, directories = EXCLUDED.directories,
        queue_depth = EXCLUDED.queue_depth, timeouts = known.timeouts + EXCLUDED.timeouts
"""


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


def write(
    connection: Connection, directories: Sequence[Directory], plan: Plan, now: float, seconds: float, before: Cursor
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
    if before.began:
        # Most directories are as they were; with thousands of them, to compare each takes longer than to scan them.
        changed_clients = {*before.waiting, *before.failing, *plan.cursor.waiting, *plan.cursor.failing}
        changed_keys = {*before.timed_out} ^ {*plan.cursor.timed_out}
        has_changed = changed_clients or changed_keys
        changed = [
            each for each in directories if has_changed and (each.client in changed_clients or each.key in changed_keys)
        ]
    else:
        changed = list(directories)
    with connection, connection.cursor() as cursor:
        if changed:
            execute_values(cursor, _UPSERT, list(statuses(changed, plan.cursor, now)))
        if not before.began:
            # The first tick, or one after a lost cursor: directories that are not watched any more go.
            watched = [directory.client for directory in directories]
            cursor.execute("DELETE FROM dedp.upload_directories WHERE client <> ALL(%s)", [watched])
        cursor.execute(
            _TICK,
            {
                "seconds": seconds,
                "directories": len(directories),
                "queue_depth": plan.queue_depth,
                "timeouts": len(plan.timed_out),
            },
        )


def silent_clients(connection: Connection) -> list[str]:
    """The clients that have uploaded nothing for longer than their time-out, as the last tick found."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_SILENT)
        return [client for (client,) in cursor.fetchall()]
