"""Measures a delivery: how many products it has, and their discounts."""

from decimal import Decimal
from typing import NamedTuple

from psycopg2.extensions import connection as Connection

from dedp_assets.errors import PermanentError
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries.tables import lock_delivery

_MEASURE = """
    INSERT INTO dedp.promotion_metrics (supplier, day, products, mean_discount, max_discount, load_number)
    SELECT
        loaded.supplier,
        loaded.day,
        count(*),
        round(avg((price - promotion_price) / price * 100), 2),
        round(max((price - promotion_price) / price * 100), 2),
        loaded.load_number
    FROM dedp.promotion_deliveries AS loaded
    JOIN dedp.promotions USING (supplier, day)
    WHERE loaded.supplier = %s AND loaded.day = %s
    GROUP BY loaded.supplier, loaded.day, loaded.load_number
    ON CONFLICT (supplier, day) DO UPDATE SET
        products = EXCLUDED.products, mean_discount = EXCLUDED.mean_discount, max_discount = EXCLUDED.max_discount,
        load_number = EXCLUDED.load_number
"""

_READ = """
    SELECT version, loaded.load_number, products, mean_discount, max_discount
    FROM dedp.promotion_deliveries AS loaded
    LEFT JOIN dedp.promotion_metrics AS metrics USING (supplier, day, load_number)
    WHERE supplier = %s AND day = %s
"""


class NotLoaded(PermanentError):
    """The delivery is not loaded, so that there is nothing to measure."""


class Metrics(NamedTuple):
    """The figures of a delivery. Discounts are in percent of the price.

    Attributes:
        version: Of the delivery.
        load_number: Of the load that the figures reflect.
        products: How many promotions there are.
        mean_discount: Over all products.
        max_discount: The largest one.
    """

    version: str
    load_number: int
    products: int
    mean_discount: Decimal
    max_discount: Decimal


def measure_delivery(connection: Connection, delivery: Delivery) -> Metrics:
    """Make the figures of a delivery those of the load that is there now, and commit.

    Args:
        connection: To a database with the tables, outside of a transaction.
        delivery: Which one.

    Raises:
        NotLoaded: It is not loaded.
    """
    with connection, connection.cursor() as cursor:
        lock_delivery(cursor, delivery)
        cursor.execute(_READ, list(delivery))
        row = cursor.fetchone()
        if row is None:
            raise NotLoaded(f"{'/'.join(delivery)} is not loaded; materialize promotions/cleaned first")
        if row[2] is None:
            cursor.execute(_MEASURE, list(delivery))
            cursor.execute(_READ, list(delivery))
            row = cursor.fetchone()
        assert row is not None
        return Metrics(*row)
