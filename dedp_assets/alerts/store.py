"""The incidents and the messages in PostgreSQL. What a look has decided is written in one transaction."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from dedp_assets.alerts.incidents import Decision, Incident, Problem
from dedp_assets.migrations import migrate
from dedp_assets.notifications.notification import Notification

_MIGRATIONS = Path(__file__).with_name("migrations")
_PIPELINE = "alerts"

# Two processes may look: they take turns, and the second sees what the first has decided.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('dedp alerts: look'))"

_INCIDENTS = "SELECT key, problem, state, since, gone_at, returns FROM dedp.alert_incidents"

_FORGET = "DELETE FROM dedp.alert_incidents WHERE key = ANY(%s)"

_WRITE_INCIDENTS = """
    INSERT INTO dedp.alert_incidents (key, problem, state, since, gone_at, returns)
    VALUES %s
    ON CONFLICT (key) DO UPDATE SET
        problem = EXCLUDED.problem, state = EXCLUDED.state, since = EXCLUDED.since, gone_at = EXCLUDED.gone_at,
        returns = EXCLUDED.returns
"""

_REMEMBER_TARGETS = """
    INSERT INTO dedp.alert_targets (target, seen_at)
    SELECT DISTINCT target, now() FROM unnest(%(targets)s::text[]) AS target
    ON CONFLICT (target) DO UPDATE SET seen_at = EXCLUDED.seen_at
"""

_WRITE_MESSAGE = """
    WITH written AS (
        INSERT INTO dedp.alert_messages (key, subject, text, severity)
        VALUES (%(key)s, %(subject)s, %(text)s, %(severity)s)
        ON CONFLICT (key) DO NOTHING
        RETURNING number
    )
    INSERT INTO dedp.alert_deliveries (message, target)
    SELECT number, target FROM written, dedp.alert_targets
"""

_LOOKED = """
    INSERT INTO dedp.alert_looks (id, ended_at, unseen)
    VALUES (1, now(), %s)
    ON CONFLICT (id) DO UPDATE SET ended_at = EXCLUDED.ended_at, unseen = EXCLUDED.unseen
"""

# Somebody may have changed a target, perhaps because it was wrong: what waits for it goes to those of this process,
# too. It may as well be a target of another process that is down for a moment, so it keeps what waits for it.
_HAND_OVER = """
    INSERT INTO dedp.alert_deliveries (message, target)
    SELECT DISTINCT message, own FROM dedp.alert_deliveries, unnest(%(targets)s::text[]) AS own
    WHERE sent_at IS NULL AND target <> ALL(%(targets)s::text[])
    ON CONFLICT DO NOTHING
"""

_FORGET_TARGETS = """
    WITH gone AS (
        DELETE FROM dedp.alert_targets WHERE seen_at < now() - interval '7 days' RETURNING target
    )
    DELETE FROM dedp.alert_deliveries AS delivery
    USING gone
    WHERE delivery.target = gone.target AND sent_at IS NULL
"""

# No pause is so long. What is due later was written before the clock was set back.
_WAITING = """
    SELECT number, key, subject, text, severity
    FROM dedp.alert_deliveries
    JOIN dedp.alert_messages ON number = message
    WHERE target = %s AND sent_at IS NULL AND (due_at <= now() OR due_at > now() + interval '10 min')
    ORDER BY number
"""

_SENT = """
    UPDATE dedp.alert_deliveries SET sent_at = now(), attempts = attempts + 1, problem = ''
    WHERE (message, target) = (%s, %s)
"""

_NOT_SENT = """
    UPDATE dedp.alert_deliveries
    SET attempts = attempts + 1, problem = %s, due_at = now() + %s * interval '1 second'
    WHERE (message, target) = (%s, %s)
"""

_PURGE = """
    DELETE FROM dedp.alert_messages AS message
    WHERE created_at < now() - interval '90 days'
        AND NOT EXISTS (SELECT FROM dedp.alert_deliveries WHERE message = number AND sent_at IS NULL)
"""


class Waiting(NamedTuple):
    """A message that has not reached a target."""

    number: int
    notification: Notification


def target_id(target: str) -> str:
    """What the tables have of a target, which may hold a token."""
    return hashlib.sha256(target.encode()).hexdigest()[:16]


def ensure_tables(connection: Connection) -> None:
    """Apply the migrations that the database lacks. Raises WrongTables for one that is newer than this version."""
    migrate(connection, _PIPELINE, _MIGRATIONS)


def look(
    connection: Connection,
    targets: Sequence[str],
    unseen: Collection[str],
    decide: Callable[[Mapping[str, Incident]], Decision],
) -> Decision:
    """Decide over the incidents of the database, and write the decision with the messages that have to be sent.

    Args:
        connection: To a database with the tables, outside of a transaction.
        targets: Where this process sends messages. Each message has to go there, and to the targets of the other
            processes that have looked in the last week.
        unseen: The kinds of problems that could not be looked at.
        decide: The rule. It is called while other processes that look have to wait.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(_LOCK)
        before = _incidents(cursor)
        decision = decide(before)
        _write_incidents(cursor, before, decision.incidents)
        own = {"targets": [target_id(target) for target in targets]}
        cursor.execute(_REMEMBER_TARGETS, own)
        for message in decision.messages:
            cursor.execute(_WRITE_MESSAGE, asdict(message))
        cursor.execute(_HAND_OVER, own)
        cursor.execute(_FORGET_TARGETS)
        cursor.execute(_LOOKED, [sorted(unseen)])
        cursor.execute(_PURGE)
    return decision


def read_incidents(connection: Connection) -> dict[str, Incident]:
    """The incidents of the last look, by the keys of their problems."""
    with connection, connection.cursor() as cursor:
        return _incidents(cursor)


def _incidents(cursor: Cursor) -> dict[str, Incident]:
    cursor.execute(_INCIDENTS)
    return {key: Incident(Problem(**problem), *rest) for key, problem, *rest in cursor.fetchall()}


def _write_incidents(cursor: Cursor, before: Mapping[str, Incident], after: Mapping[str, Incident]) -> None:
    cursor.execute(_FORGET, [list(before.keys() - after.keys())])
    changed: Iterable[tuple[str, Incident]] = [(key, each) for key, each in after.items() if before.get(key) != each]
    rows = [
        (key, json.dumps(asdict(each.problem)), each.state, each.since, each.gone_at, each.returns)
        for key, each in changed
    ]
    if rows:
        execute_values(cursor, _WRITE_INCIDENTS, rows)


def waiting_for(connection: Connection, target: str) -> list[Waiting]:
    """The messages that have to be sent to a target now, in their order."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_WAITING, [target_id(target)])
        return [
            Waiting(number, Notification(key, subject, text, None, severity))
            for number, key, subject, text, severity in cursor.fetchall()
        ]


def record_sent(connection: Connection, number: int, target: str) -> None:
    """Note that a message has reached a target."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_SENT, [number, target_id(target)])


def record_not_sent(connection: Connection, number: int, target: str, problem: str, pause: float) -> None:
    """Note that an attempt has failed, and when the next one is due. `pause`: in s."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_NOT_SENT, [problem, pause, number, target_id(target)])
