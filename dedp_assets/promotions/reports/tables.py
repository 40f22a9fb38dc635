"""The tables of the reports, and what they have to read of the deliveries."""

from datetime import date
from pathlib import Path

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.errors import PermanentError
from dedp_assets.migrations import migrate
from dedp_assets.promotions.contract import Delivery

_MIGRATIONS = Path(__file__).with_name("migrations")
_PIPELINE = "promotion_reports"

# The metrics' table is the last of those that the other code location makes in one transaction.
_HAS_DELIVERIES = "SELECT to_regclass('dedp.promotion_metrics') IS NOT NULL"


class NoSuchDelivery(PermanentError):
    """What should be reported on is not loaded, or is not a delivery at all. The message says which, and what to do."""


def ensure_tables(connection: Connection) -> None:
    """Apply the migrations that the database lacks. Raises WrongTables for one that is newer than this version."""
    migrate(connection, _PIPELINE, _MIGRATIONS)


def has_deliveries(cursor: Cursor) -> bool:
    """Whether the database has the tables that the code location of the deliveries makes."""
    cursor.execute(_HAS_DELIVERIES)
    return cursor.fetchall() == [(True,)]


def delivery_of(partition_key: str) -> Delivery:
    """The delivery of a partition key that somebody has written into the configuration of a run.

    Raises:
        NoSuchDelivery: It is not one.
    """
    delivery = Delivery.of_key(partition_key)
    try:
        is_day = date.fromisoformat(delivery.day).isoformat() == delivery.day
    except ValueError:
        is_day = False
    if not delivery.supplier or not is_day:
        raise NoSuchDelivery(
            f"{partition_key!r} is not a delivery; expected a supplier and a day, such as supermarket1|2024-01-05"
        )
    return delivery
