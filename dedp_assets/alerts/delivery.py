"""Sends what waits, in order and at least once.

A message is sent before it is recorded as sent. Who is killed in between sends it again, with the same key.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from psycopg2.extensions import connection as Connection

from dedp_assets.alerts.store import record_not_sent, record_sent, target_id, waiting_for
from dedp_assets.errors import DedpError
from dedp_assets.notifications.notification import NotificationNotSent, Notifier

# A message that a target refuses may be accepted later, when somebody has mended the setting or the target.
REFUSED_PAUSE_SECONDS = 300.0

_TRY_LOCK = "SELECT pg_try_advisory_lock(hashtext('dedp alerts: ' || %s))"
_UNLOCK = "SELECT pg_advisory_unlock(hashtext('dedp alerts: ' || %s))"


def deliver(connection: Connection, targets: Sequence[str], notifier_for: Callable[[str], Notifier]) -> list[str]:
    """Send the messages that wait. A target that does not answer does not hold up the others.

    Args:
        connection: To a database with the tables, outside of a transaction.
        targets: The targets of this process. What waits for others is theirs.
        notifier_for: Makes the notifier of a target. It may raise a DedpError.

    Returns:
        Why messages could not be sent. They stay, and are sent again.
    """
    problems: list[str] = []
    for target in targets:
        with _alone_with(connection, target) as is_alone:
            if is_alone:
                problems += _deliver_to(connection, target, notifier_for)
    return problems


def _deliver_to(connection: Connection, target: str, notifier_for: Callable[[str], Notifier]) -> Iterator[str]:
    for number, notification in waiting_for(connection, target):
        try:
            notifier_for(target).send(notification)
        except NotificationNotSent as error:
            # The others would fail, too, and each is tried for many seconds.
            record_not_sent(connection, number, target, str(error), pause=0)
            yield str(error)
            return
        except Exception as error:
            # Also a fault of ours, which one message may trigger again and again: the others have to arrive.
            record_not_sent(connection, number, target, shown(error), REFUSED_PAUSE_SECONDS)
            yield shown(error)
        else:
            record_sent(connection, number, target)


def shown(error: Exception) -> str:
    """The text of an error; of one that we can't name only its kind, because its text may have a token in it."""
    return str(error) if isinstance(error, DedpError) else f"the message could not be sent ({type(error).__name__})"


@contextmanager
def _alone_with(connection: Connection, target: str) -> Iterator[bool]:
    """Whether no other process sends to the target while the block runs: two would mix up the order."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_TRY_LOCK, [target_id(target)])
        (is_alone,) = cursor.fetchone() or (False,)
    yield is_alone
    if is_alone:
        with connection, connection.cursor() as cursor:
            cursor.execute(_UNLOCK, [target_id(target)])
