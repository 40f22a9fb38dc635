"""What people are told of a delivery: one message for each version of it.

`dedp.promotion_notifications` records what was sent. A message is sent before it is recorded, so it may be sent twice,
both times with the same key, and is never lost.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import NamedTuple

from psycopg2.extensions import connection as Connection

from dedp_assets.errors import DedpError
from dedp_assets.notifications.notification import Notification, NotificationNotSent
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.wording import counted, duration, in_utc

# After so many messages in a row that could not be sent, the rest of a run's messages wait for the next run: each of
# them would be tried for seconds.
_FAILURES_IN_A_ROW = 3

_UNSENT = """
    SELECT
        supplier, day, version, ready_at, is_late, rows_quarantined,
        metrics.products, metrics.mean_discount, metrics.max_discount,
        comparison.previous_day,
        coalesce(changes.added, 0), coalesce(changes.removed, 0), coalesce(changes.changed, 0)
    FROM unnest(%(suppliers)s::text[], %(days)s::date[]) AS asked (supplier, day)
    JOIN dedp.promotion_deliveries AS delivery USING (supplier, day)
    -- The figures of the version that is loaded. They follow the load.
    JOIN dedp.promotion_metrics AS metrics USING (supplier, day, load_number)
    LEFT JOIN dedp.promotion_comparisons AS comparison USING (supplier, day)
    LEFT JOIN LATERAL (
        SELECT
            count(*) FILTER (WHERE change = 'added') AS added,
            count(*) FILTER (WHERE change = 'removed') AS removed,
            count(*) FILTER (WHERE change = 'changed') AS changed
        FROM dedp.promotion_differences AS difference
        WHERE (difference.supplier, difference.day) = (asked.supplier, asked.day)
    ) AS changes ON true
    WHERE NOT EXISTS (
        SELECT
        FROM dedp.promotion_notifications AS sent
        WHERE (sent.supplier, sent.day, sent.version) = (delivery.supplier, delivery.day, delivery.version)
    )
    ORDER BY ready_at, supplier, day
"""

_RECORD = """
    INSERT INTO dedp.promotion_notifications (supplier, day, version)
    VALUES (%s, %s, %s)
    ON CONFLICT DO NOTHING
"""


class News(NamedTuple):
    """What there is to say of a delivery. Discounts are in percent; `previous_day`: None for the first delivery."""

    supplier: str
    day: date
    version: str
    ready_at: datetime
    is_late: bool
    rows_quarantined: int
    products: int
    mean_discount: float
    max_discount: float
    previous_day: date | None
    added: int
    removed: int
    changed: int

    @property
    def delivery(self) -> Delivery:
        return Delivery(self.supplier, self.day.isoformat())


class Announced(NamedTuple):
    """What became of the messages: those that were sent, and why others were not."""

    sent: list[News]
    problems: list[DedpError]


def message(news: News, link: str) -> Notification:
    """Write the message about a delivery.

    Args:
        news: What to say.
        link: The address of the dashboard.
    """
    late = " late" if news.is_late else ""
    sentences = [
        f"{counted(news.products, 'product')} on promotion, at a mean discount of {news.mean_discount:.2f} % and at "
        f"most {news.max_discount:.2f} %.",
        _changes(news),
        _arrival(news),
    ]
    if news.rows_quarantined:
        sentences.append(f"{counted(news.rows_quarantined, 'line')} in quarantine, see dedp.promotion_quarantine.")
    return Notification(
        key=f"promotions/{news.supplier}/{news.day}/{news.version}",
        subject=f"{news.supplier} has delivered{late} for {news.day}: {counted(news.products, 'product')}, "
        f"{news.mean_discount:.1f} % off on average",
        text=" ".join(sentences),
        link=link,
        severity="warning" if news.is_late else "info",
    )


def _changes(news: News) -> str:
    if news.previous_day is None:
        return "It is the first delivery of this supplier."
    if not news.added + news.removed + news.changed:
        return f"The products and prices are those of {news.previous_day}."
    changes = f"{news.added:,} added, {news.removed:,} removed, {news.changed:,} with another price"
    return f"Since {news.previous_day}: {changes}."


def _arrival(news: News) -> str:
    if not news.is_late:
        return f"It was complete at {in_utc(news.ready_at)} UTC."
    closed = contract.window_closes(news.day.isoformat())
    after = (news.ready_at.replace(tzinfo=None) - closed).total_seconds()
    how_late = f", {duration(after)} after the window had closed" if after > 0 else ", after the window had closed"
    return f"It was complete at {in_utc(news.ready_at)} UTC{how_late}."


def announce(
    connection: Connection, deliveries: Sequence[Delivery], send: Callable[[Notification], None], link: str
) -> Announced:
    """Tell people of the deliveries of which they have not been told in their present version.

    Args:
        connection: To a database with the tables of the deliveries and of the reports, outside of a transaction.
        deliveries: The deliveries. One that is not loaded, or whose metrics are of another version, is left out.
        send: Sends a message; raises a DedpError if it can't.
        link: The address of the dashboard.
    """
    done = Announced([], [])
    failures = 0
    for news in _unsent(connection, deliveries):
        if failures == _FAILURES_IN_A_ROW:
            break
        try:
            send(message(news, link))
        except DedpError as error:
            failures = failures + 1 if isinstance(error, NotificationNotSent) else 0
            done.problems.append(error)
            continue
        failures = 0
        _record(connection, news)
        done.sent.append(news)
    return done


def _record(connection: Connection, news: News) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(_RECORD, [news.supplier, news.day, news.version])


def _unsent(connection: Connection, deliveries: Sequence[Delivery]) -> list[News]:
    with connection, connection.cursor() as cursor:
        suppliers, days = [each.supplier for each in deliveries], [each.day for each in deliveries]
        cursor.execute(_UNSENT, {"suppliers": suppliers, "days": days})
        return [News(*row) for row in cursor.fetchall()]
