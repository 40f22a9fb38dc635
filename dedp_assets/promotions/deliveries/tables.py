"""Makes the tables of the promotions' deliveries, and reads what they reflect."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.migrations import migrate
from dedp_assets.promotions.contract import Delivery

_MIGRATIONS = Path(__file__).with_name("migrations")

_VERSIONS = """
    SELECT supplier, day::text, version
    FROM dedp.promotion_deliveries
    JOIN unnest(%s::text[], %s::date[]) AS asked (supplier, day) USING (supplier, day)
"""


def ensure_tables(connection: Connection) -> None:
    """Apply the migrations that the database lacks. Raises WrongTables for one that is newer than this version."""
    migrate(connection, "promotions", _MIGRATIONS)


def loaded_versions(connection: Connection, asked: Iterable[tuple[str, str]]) -> dict[Delivery, str]:
    """The version of each of these deliveries that is loaded. Those that are not are missing."""
    deliveries = list(asked)
    if not deliveries:
        return {}
    with connection, connection.cursor() as cursor:
        cursor.execute(_VERSIONS, [[supplier for supplier, _ in deliveries], [day for _, day in deliveries]])
        return {Delivery(supplier, day): version for supplier, day, version in cursor.fetchall()}


_LOADS_SINCE = """
    SELECT supplier, day::text, version, loaded.load_number, metrics.load_number IS NOT DISTINCT FROM loaded.load_number
    FROM dedp.promotion_deliveries AS loaded
    LEFT JOIN dedp.promotion_metrics AS metrics USING (supplier, day)
    WHERE loaded.load_number > %s
    ORDER BY loaded.load_number
"""


class LoadState(NamedTuple):
    """A load, and whether it is measured."""

    delivery: Delivery
    version: str
    load_number: int
    is_measured: bool


def loads_since(connection: Connection, number: int) -> list[LoadState]:
    """The loads with a higher number, in their order. All of them if none has it: a backup was restored."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(load_number), 0) FROM dedp.promotion_deliveries")
        (last,) = cursor.fetchone()  # type: ignore[misc]
        cursor.execute(_LOADS_SINCE, [number if number <= last else 0])
        return [LoadState(Delivery(supplier, day), *state) for supplier, day, *state in cursor.fetchall()]


def lock_delivery(cursor: Cursor, delivery: Delivery) -> None:
    """Wait for other transactions on the same delivery, and keep them waiting until this one ends."""
    cursor.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('dedp.promotions/' || %s || '/' || %s, 0))", list(delivery)
    )
