"""`dedp.promotion_differences`: what has changed from a supplier's previous delivery to each delivery.

The previous delivery is the previous one there is. So a delivery that comes late, or in another version, also changes
what the delivery after it is compared with. `dedp.promotion_comparisons` records which loads each day's differences
reflect, in the same transaction.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import date
from typing import NamedTuple

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

# Comparisons of one supplier take turns. Each statement after the lock sees what was committed while we waited for it.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('dedp.promotion_differences ' || %(supplier)s, 0))"

_STANDINGS = """
    WITH asked AS (
        SELECT unnest(%(days)s::date[]) AS day
    ),
    affected AS (
        SELECT day FROM asked
        UNION
        SELECT following.day
        FROM asked
        CROSS JOIN LATERAL (
            SELECT day
            FROM dedp.promotion_deliveries
            WHERE supplier = %(supplier)s AND day > asked.day
            ORDER BY day
            LIMIT 1
        ) AS following
    )
    SELECT
        affected.day,
        delivery.load_number, previous.day, previous.load_number,
        comparison.load_number, comparison.previous_day, comparison.previous_load_number
    FROM affected
    LEFT JOIN dedp.promotion_deliveries AS delivery
        ON (delivery.supplier, delivery.day) = (%(supplier)s, affected.day)
    LEFT JOIN LATERAL (
        SELECT day, load_number
        FROM dedp.promotion_deliveries
        WHERE supplier = %(supplier)s AND day < affected.day
        ORDER BY day DESC
        LIMIT 1
    ) AS previous ON true
    LEFT JOIN dedp.promotion_comparisons AS comparison
        ON (comparison.supplier, comparison.day) = (%(supplier)s, affected.day)
    ORDER BY affected.day
"""

_FORGET = """
    DELETE FROM dedp.promotion_differences WHERE supplier = %(supplier)s AND day = ANY (%(days)s::date[]);
    DELETE FROM dedp.promotion_comparisons WHERE supplier = %(supplier)s AND day = ANY (%(days)s::date[]);
"""

# One statement, which sees one moment: the products are those of the loads whose numbers it records.
_COMPARE = """
    WITH pairs AS MATERIALIZED (
        SELECT
            delivery.day, delivery.load_number,
            previous.day AS previous_day, previous.load_number AS previous_load_number
        FROM dedp.promotion_deliveries AS delivery
        LEFT JOIN LATERAL (
            SELECT day, load_number
            FROM dedp.promotion_deliveries
            WHERE supplier = %(supplier)s AND day < delivery.day
            ORDER BY day DESC
            LIMIT 1
        ) AS previous ON true
        WHERE delivery.supplier = %(supplier)s AND delivery.day = ANY (%(days)s::date[])
    ),
    compared AS (
        INSERT INTO dedp.promotion_comparisons (supplier, day, load_number, previous_day, previous_load_number)
        SELECT %(supplier)s, day, load_number, previous_day, previous_load_number FROM pairs
    ),
    different AS (
        INSERT INTO dedp.promotion_differences (
            supplier, day, previous_day, product_id, change, price_before, price_after
        )
        SELECT
            %(supplier)s, pairs.day, pairs.previous_day, products.product_id,
            CASE
                WHEN products.price_before IS NULL THEN 'added'
                WHEN products.price_after IS NULL THEN 'removed'
                ELSE 'changed'
            END,
            products.price_before, products.price_after
        FROM pairs
        CROSS JOIN LATERAL (
            SELECT product_id, before.price AS price_before, after.price AS price_after
            FROM (
                SELECT product_id, price
                FROM dedp.promotions
                WHERE supplier = %(supplier)s AND day = pairs.previous_day
            ) AS before
            FULL JOIN (
                SELECT product_id, price
                FROM dedp.promotions
                WHERE supplier = %(supplier)s AND day = pairs.day
            ) AS after USING (product_id)
            WHERE before.price IS DISTINCT FROM after.price
        ) AS products
        WHERE pairs.previous_day IS NOT NULL
        RETURNING day, change
    )
    SELECT
        pairs.day, pairs.load_number, pairs.previous_day, pairs.previous_load_number,
        count(*) FILTER (WHERE change = 'added'),
        count(*) FILTER (WHERE change = 'removed'),
        count(*) FILTER (WHERE change = 'changed')
    FROM pairs
    LEFT JOIN different USING (day)
    GROUP BY pairs.day, pairs.load_number, pairs.previous_day, pairs.previous_load_number
    ORDER BY pairs.day
"""


class Loads(NamedTuple):
    """The load of a delivery and that of the one before it, if there is one."""

    load_number: int
    previous_day: date | None
    previous_load_number: int | None


class Standing(NamedTuple):
    """A day of a supplier: the loads there are now, and those that its differences reflect; None if there are none."""

    day: date
    now: Loads | None
    reflected: Loads | None


class Comparison(NamedTuple):
    """The differences of a day, as they were written: how many products of each change."""

    day: date
    loads: Loads
    added: int
    removed: int
    changed: int

    @property
    def version(self) -> str:
        """Identifies what was compared, as the data version of the day's differences."""
        return f"{self.loads.load_number}-{self.loads.previous_load_number or 'first'}"


def days_to_compare(asked: Collection[date], standings: Iterable[Standing]) -> list[date]:
    """Decide which days' differences to write again.

    Args:
        asked: The days that somebody wants to have compared, whatever their differences reflect: the logic may be new.
        standings: These days, and the day of the delivery after each of them.

    Returns:
        The asked days, and of the others those whose differences do not reflect the loads there are now.
    """
    return [standing.day for standing in standings if standing.day in asked or standing.now != standing.reflected]


def compare(connection: Connection, supplier: str, days: Sequence[date]) -> list[Comparison]:
    """Write the differences of some days of a supplier, and of the deliveries after them if they are affected.

    Args:
        connection: To a database with the tables of the deliveries and of the reports, outside of a transaction.
        supplier: The supplier.
        days: The days. The differences of a day without a delivery are deleted.

    Returns:
        What was written, by day.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(_LOCK, {"supplier": supplier})
        wanted = {"supplier": supplier, "days": days_to_compare(days, _standings(cursor, supplier, days))}
        cursor.execute(_FORGET, wanted)
        cursor.execute(_COMPARE, wanted)
        return [Comparison(row[0], Loads(*row[1:4]), *row[4:]) for row in cursor.fetchall()]


def _standings(cursor: Cursor, supplier: str, days: Sequence[date]) -> list[Standing]:
    cursor.execute(_STANDINGS, {"supplier": supplier, "days": list(days)})
    return [Standing(row[0], _loads(*row[1:4]), _loads(*row[4:7])) for row in cursor.fetchall()]


def _loads(load_number: int | None, previous_day: date | None, previous_load_number: int | None) -> Loads | None:
    return None if load_number is None else Loads(load_number, previous_day, previous_load_number)
