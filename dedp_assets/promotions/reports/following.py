"""Which deliveries the reports do not reflect, and what they wait for."""

from collections.abc import Collection
from datetime import date
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor

from dedp_assets.promotions.contract import Delivery

# One tick looks at so many deliveries at most; the next one goes on.
MOST_DELIVERIES = 2000

_LAST_LOAD = "SELECT coalesce(max(load_number), 0) FROM dedp.promotion_deliveries"

_STANDINGS = """
    WITH asked AS (
        SELECT supplier, day
        FROM unnest(%(suppliers)s::text[], %(days)s::date[]) AS waiting (supplier, day)
        UNION
        (
            SELECT supplier, day
            FROM dedp.promotion_deliveries
            WHERE load_number > %(after)s
            ORDER BY load_number
            LIMIT %(limit)s
        )
    )
    SELECT
        asked.supplier, asked.day,
        delivery.load_number,
        previous.load_number,
        metrics.load_number IS NOT DISTINCT FROM delivery.load_number,
        (comparison.load_number, comparison.previous_day, comparison.previous_load_number)
            IS NOT DISTINCT FROM (delivery.load_number, previous.previous_day, previous.load_number),
        delivery.load_number IS NULL OR sent.supplier IS NOT NULL
    FROM asked
    LEFT JOIN dedp.promotion_deliveries AS delivery USING (supplier, day)
    LEFT JOIN LATERAL (
        SELECT earlier.day AS previous_day, earlier.load_number
        FROM dedp.promotion_deliveries AS earlier
        WHERE delivery.supplier IS NOT NULL AND earlier.supplier = asked.supplier AND earlier.day < asked.day
        ORDER BY earlier.day DESC
        LIMIT 1
    ) AS previous ON true
    LEFT JOIN dedp.promotion_metrics AS metrics USING (supplier, day)
    LEFT JOIN dedp.promotion_comparisons AS comparison USING (supplier, day)
    LEFT JOIN dedp.promotion_notifications AS sent
        ON (sent.supplier, sent.day, sent.version) = (delivery.supplier, delivery.day, delivery.version)
"""

# All deliveries at once, and the comparisons of deliveries that are not there any more.
_BEHIND = """
    WITH pairs AS (
        SELECT
            supplier, day, version, load_number,
            lag(day) OVER of_supplier AS previous_day,
            lag(load_number) OVER of_supplier AS previous_load_number
        FROM dedp.promotion_deliveries
        WINDOW of_supplier AS (PARTITION BY supplier ORDER BY day)
    )
    SELECT supplier, day
    FROM pairs
    FULL JOIN dedp.promotion_comparisons AS comparison USING (supplier, day)
    LEFT JOIN dedp.promotion_notifications AS sent USING (supplier, day, version)
    WHERE (comparison.load_number, comparison.previous_day, comparison.previous_load_number)
            IS DISTINCT FROM (pairs.load_number, pairs.previous_day, pairs.previous_load_number)
       OR (sent.supplier IS NULL AND pairs.load_number IS NOT NULL)
    LIMIT %(limit)s
"""


class Standing(NamedTuple):
    """How far the reports on a delivery are.

    Attributes:
        load_number: Of the delivery; None if it is not loaded any more.
        previous_load_number: Of the supplier's delivery before it; None if there is none.
        is_measured: Whether its metrics are those of this load. The reports wait for them.
        is_compared: Whether its differences reflect both loads.
        is_announced: Whether people have been told of this version.
    """

    load_number: int | None
    previous_load_number: int | None
    is_measured: bool
    is_compared: bool
    is_announced: bool

    @property
    def lacks(self) -> str:
        """What the reports do not reflect, in a word that is the same until something new comes. "" if nothing."""
        if self.is_compared and self.is_announced:
            return ""
        return f"load {self.load_number or 'gone'} after {self.previous_load_number or 'none'}"


class Followed(NamedTuple):
    """What a look at the deliveries has found.

    Attributes:
        standings: How far the reports are, of the deliveries that were asked for and of those loaded since.
        last_load: The load number to go on from: the reader has seen all loads up to it.
    """

    standings: dict[Delivery, Standing]
    last_load: int


def look(cursor: Cursor, waiting: Collection[Delivery], after: int) -> Followed:
    """See how far the reports on some deliveries are, and on those that were loaded since the last look.

    The cost depends on the number of these, and not on how many deliveries there are.

    Args:
        cursor: To a database with the tables of the deliveries and of the reports.
        waiting: The deliveries to look at in any case.
        after: The load number up to which all loads are known.
    """
    suppliers, days = [each.supplier for each in waiting], [each.day for each in waiting]
    cursor.execute(_STANDINGS, {"suppliers": suppliers, "days": days, "after": after, "limit": MOST_DELIVERIES})
    found = {Delivery(supplier, _text(day)): Standing(*standing) for supplier, day, *standing in cursor.fetchall()}
    # Of those that were asked for, one may be beyond the loads that this look has come to.
    newer = sorted(each.load_number for each in found.values() if each.load_number and each.load_number > after)
    return Followed(found, max([after, *newer[:MOST_DELIVERIES]]))


def last_load(cursor: Cursor) -> int:
    """The highest number of a load, 0 if there is none. Loads become visible in the order of their numbers."""
    cursor.execute(_LAST_LOAD)
    (row,) = cursor.fetchall()
    return int(row[0])


def behind(cursor: Cursor) -> list[Delivery]:
    """Compare everything: at most 2,000 of the deliveries that the reports do not reflect. The cost grows with all."""
    cursor.execute(_BEHIND, {"limit": MOST_DELIVERIES})
    return [Delivery(supplier, _text(day)) for supplier, day in cursor.fetchall()]


def _text(day: date) -> str:
    return day.isoformat()
