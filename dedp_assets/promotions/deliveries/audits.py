"""Checks of what was loaded."""

from collections.abc import Sequence
from datetime import date, datetime

import dagster as dg
from psycopg2.extensions import connection as Connection

from dedp_assets.landing.deliveries import closed_windows
from dedp_assets.promotions.contract import CLEANED, Delivery, window_closes
from dedp_assets.promotions.deliveries.tables import loaded_versions

_UNACCOUNTED = """
    SELECT supplier, day::text, lines_read, rows_loaded, rows_quarantined, loaded.number, aside.number
    FROM dedp.promotion_deliveries
    JOIN unnest(%s::text[], %s::date[]) AS asked (supplier, day) USING (supplier, day)
    CROSS JOIN LATERAL (
        SELECT count(*) AS number
        FROM dedp.promotions AS found
        WHERE (found.supplier, found.day) = (asked.supplier, asked.day)
    ) AS loaded
    CROSS JOIN LATERAL (
        SELECT count(*) AS number
        FROM dedp.promotion_quarantine AS found
        WHERE (found.supplier, found.day) = (asked.supplier, asked.day)
    ) AS aside
    WHERE (rows_loaded, rows_quarantined, lines_read) <> (loaded.number, aside.number, loaded.number + aside.number)
"""


def lines_accounted_for(connection: Connection, deliveries: Sequence[Delivery]) -> dg.AssetCheckEvaluation:
    """Whether every line of these deliveries is either in `dedp.promotions` or in `dedp.promotion_quarantine`.

    Args:
        connection: To a database with the tables.
        deliveries: Which ones. Those that are not loaded are left out.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(_UNACCOUNTED, [[each.supplier for each in deliveries], [each.day for each in deliveries]])
        names = ("supplier", "day", "lines_read", "rows_loaded", "rows_quarantined", "rows found", "quarantined found")
        wrong = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    # Not an AssetCheckResult: for it, Dagster asks for the partition of the run, and a run of several has none.
    return dg.AssetCheckEvaluation(
        asset_key=CLEANED,
        check_name="lines_accounted_for",
        passed=not wrong,
        metadata={"deliveries": len(deliveries), "wrong": wrong},
    )


def missing_deliveries(connection: Connection, suppliers: Sequence[str], now: datetime) -> list[Delivery]:
    """The deliveries of the last closed windows that are not loaded, from the first day on that anybody delivered.

    Args:
        connection: To a database with the tables.
        suppliers: All of whom deliveries are expected.
        now: The time, as UTC without a time zone.
    """
    days, _ = closed_windows(date.min.isoformat(), now, window_closes)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT min(day)::text FROM dedp.promotion_deliveries")
        (first,) = cursor.fetchone()  # type: ignore[misc]
    expected = [Delivery(supplier, day) for day in days if first and day >= first for supplier in suppliers]
    loaded = loaded_versions(connection, expected)
    return [delivery for delivery in expected if delivery not in loaded]
