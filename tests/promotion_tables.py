"""The tables of the promotions' deliveries, as the other code location leaves them, with rows that a test chooses."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extras import execute_values

import dedp_assets.promotions
from dedp_assets.promotions.reports.tables import ensure_tables

_MIGRATIONS = Path(dedp_assets.promotions.__file__).parent / "deliveries" / "migrations"

# The products of a delivery: the price of each, or its price and its price on promotion.
Products = Mapping[str, float | tuple[float, float]]


class Deliveries:
    """Deliveries of suppliers in a database of the test's own.

    Args:
        dsn: The database.
        is_new: Whether it lacks the tables of the deliveries.
    """

    def __init__(self, dsn: str, *, is_new: bool = True) -> None:
        self.dsn = dsn
        self.connection: Connection = psycopg2.connect(dsn)
        if is_new:
            ensure_tables(self.connection)
            with self.connection, self.connection.cursor() as cursor:
                for migration in sorted(_MIGRATIONS.glob("*.sql")):
                    cursor.execute(migration.read_text(encoding="utf-8"))

    def load(
        self,
        supplier: str,
        day: str,
        products: Products,
        *,
        ready_at: datetime | None = None,
        late: bool = False,
        quarantined: int = 0,
        is_measured: bool = True,
    ) -> int:
        """Load a delivery in the version of these products; returns its load number."""
        rows = [
            (supplier, day, name, f"Product {name}", *(price if isinstance(price, tuple) else (price, price)))
            for name, price in products.items()
        ]
        version = sha256(repr((rows, quarantined)).encode()).hexdigest()
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(1)")
            cursor.execute("DELETE FROM dedp.promotions WHERE (supplier, day) = (%s, %s)", [supplier, day])
            execute_values(
                cursor,
                "INSERT INTO dedp.promotions VALUES %s",
                rows,
                template="(%s, %s, %s, %s, %s, %s, '2024-01-01', '2024-12-31')",
            )
            cursor.execute(
                """
                INSERT INTO dedp.promotion_deliveries
                VALUES (
                    %(supplier)s, %(day)s, %(version)s, nextval('dedp.promotion_load_numbers'), now(),
                    coalesce(%(ready_at)s, %(day)s::timestamp AT TIME ZONE 'UTC' + interval '17 hours'), %(late)s,
                    1, %(rows)s + %(quarantined)s, %(rows)s, %(quarantined)s, 'run'
                )
                ON CONFLICT (supplier, day) DO UPDATE SET
                    version = EXCLUDED.version, load_number = EXCLUDED.load_number, loaded_at = now(),
                    ready_at = EXCLUDED.ready_at, lines_read = EXCLUDED.lines_read, rows_loaded = EXCLUDED.rows_loaded,
                    rows_quarantined = EXCLUDED.rows_quarantined
                RETURNING load_number
                """,
                {
                    "supplier": supplier,
                    "day": day,
                    "version": version,
                    "ready_at": ready_at,
                    "late": late,
                    "rows": len(rows),
                    "quarantined": quarantined,
                },
            )
            ((load_number,),) = cursor.fetchall()
        if is_measured:
            self.measure(supplier, day)
        return int(load_number)

    def measure(self, supplier: str, day: str) -> None:
        """Write the metrics of a delivery."""
        self.execute(
            """
            INSERT INTO dedp.promotion_metrics
            SELECT supplier, day, count(*), round(avg(discount), 2), round(max(discount), 2), load_number
            FROM dedp.promotion_deliveries
            JOIN (SELECT *, (price - promotion_price) / price * 100 AS discount FROM dedp.promotions) AS each
                USING (supplier, day)
            WHERE (supplier, day) = (%s, %s)
            GROUP BY supplier, day
            ON CONFLICT (supplier, day) DO UPDATE SET
                products = EXCLUDED.products, mean_discount = EXCLUDED.mean_discount,
                max_discount = EXCLUDED.max_discount, load_number = EXCLUDED.load_number
            """,
            [supplier, day],
        )

    def execute(self, statement: str, values: list[object] | None = None) -> None:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(statement, values)

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """The rows of a query, as of now."""
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def differences(self) -> list[tuple[object, ...]]:
        """The table of differences, as text: supplier, day, previous day, product, change, and the two prices."""
        return self.query(
            "SELECT supplier, day::text, previous_day::text, product_id, change, price_before::float8, "
            "price_after::float8 FROM dedp.promotion_differences ORDER BY 1, 2, 4"
        )
