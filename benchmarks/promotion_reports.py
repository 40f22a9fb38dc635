"""The reports on promotions with 10,000 deliveries present against those with 10.

Each round loads one delivery more into both databases. Timed are the tick of the sensor that finds it, and the work of
its run: the differences, the dashboard and the message.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import dagster as dg
import psycopg2
from measuring import compare_pairs, cpu_and_wall

from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.reports.announcing import announce
from dedp_assets.promotions.reports.comparing import compare as compare_days
from dedp_assets.promotions.reports.dashboard import build
from dedp_assets.promotions.reports.tables import ensure_tables
from dedp_assets.resources import embedded_postgres
from dedp_assets.resources.postgres import PostgresResource
from jobs.promotion_reports import defs
from sensors.pipelines.promotion_reports import promotions_followed

_DELIVERIES = Path(contract.__file__).parent / "deliveries" / "migrations"
_PRODUCTS = 50
_SUPPLIERS = list(contract.SUPPLIERS.get_partition_keys())

# Without ANALYZE it would read the whole table, and push what the work needs out of the processor's caches.
_LOAD = f"""
    ANALYZE wanted;
    DELETE FROM dedp.promotions WHERE (supplier, day) IN (SELECT supplier, day FROM wanted);
    INSERT INTO dedp.promotion_deliveries
    SELECT
        supplier, day, repeat(%(version)s, 64), nextval('dedp.promotion_load_numbers'), now(), now(), false, 1,
        {_PRODUCTS}, {_PRODUCTS}, 0, ''
    FROM wanted
    ON CONFLICT (supplier, day) DO UPDATE SET load_number = EXCLUDED.load_number, version = EXCLUDED.version;
    INSERT INTO dedp.promotions
    SELECT supplier, day, product, 'Product ' || product, 1 + (product + day - '2000-01-01') %% 7, 1, day, day
    FROM wanted, generate_series(1, {_PRODUCTS}) AS product;
    INSERT INTO dedp.promotion_metrics
    SELECT supplier, day, {_PRODUCTS}, 20, 50, load_number
    FROM wanted JOIN dedp.promotion_deliveries USING (supplier, day)
    ON CONFLICT (supplier, day) DO UPDATE SET load_number = EXCLUDED.load_number;
"""
_TELL = "INSERT INTO dedp.promotion_notifications SELECT supplier, day, version FROM dedp.promotion_deliveries"


class Reports:
    """A database of its own with so many deliveries, all of them reported on, and the sensor that follows them."""

    def __init__(self, dsn: str, deliveries: int, home: Path, instance: dg.DagsterInstance) -> None:
        self.connection = psycopg2.connect(dsn)
        self.home, self.instance, self.cursor = home, instance, ""
        self.resources = {"postgres": PostgresResource(dsn=dsn)}
        self.last = date.today() - timedelta(days=40)  # noqa: DTZ011  any day that is a partition
        ensure_tables(self.connection)
        days = -(-deliveries // len(_SUPPLIERS))
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(next(_DELIVERIES.glob("0001_*.sql")).read_text(encoding="utf-8"))
            # In more days than there are partitions: only the new ones are requested.
            self._load(cursor, _SUPPLIERS, [self.last - timedelta(days=number) for number in range(days)], "0")
            cursor.execute(_TELL)
        for supplier in _SUPPLIERS:
            compare_days(self.connection, supplier, [self.last - timedelta(days=number) for number in range(days)])
        with contextlib.closing(psycopg2.connect(dsn)) as maintenance, maintenance.cursor() as cursor:
            maintenance.autocommit = True
            cursor.execute("VACUUM ANALYZE")
        self.work([])
        before = None
        while self.tick() or self.cursor != before:
            before = self.cursor  # until it knows every load

    def _load(self, cursor: "psycopg2.extensions.cursor", suppliers: list[str], days: list[date], version: str) -> None:
        cursor.execute(
            "CREATE TEMP TABLE wanted ON COMMIT DROP AS SELECT supplier, day "
            "FROM unnest(%s::text[]) AS supplier, unnest(%s::date[]) AS day ORDER BY day",
            [suppliers, days],
        )
        cursor.execute(_LOAD, {"version": version})

    def load(self, number: int) -> None:
        """Another version of one of the latest deliveries."""
        with self.connection, self.connection.cursor() as cursor:
            self._load(cursor, [_SUPPLIERS[0]], [self.last], str(number % 10))

    def tick(self) -> int:
        """Evaluate the sensor; returns how many runs it requests."""
        os.environ["DEDP_HOME"] = str(self.home)
        context = dg.build_sensor_context(self.instance, self.cursor, definitions=defs, resources=self.resources)
        result = promotions_followed.evaluate_tick(context)
        self.cursor = str(result.cursor)
        return len(result.run_requests or ())

    def work(self, days: list[date]) -> None:
        """What a run does for some days of the first supplier."""
        os.environ["DEDP_HOME"] = str(self.home)
        compare_days(self.connection, _SUPPLIERS[0], days)
        build(self.connection)
        deliveries = [Delivery(_SUPPLIERS[0], day.isoformat()) for day in days]
        announce(self.connection, deliveries, lambda message: None, "")


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--deliveries", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=60)
    options = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="dedp-bench-") as folder,
        embedded_postgres.server_lease(Path(folder) / "postgres") as dsn,
        dg.DagsterInstance.ephemeral() as instance,
        contextlib.closing(psycopg2.connect(dsn)) as connection,
    ):
        connection.autocommit = True
        sides = []
        for count in (options.deliveries, 10):
            print(f"loading {count:,} deliveries, and reporting on them ...", flush=True)
            connection.cursor().execute(f"CREATE DATABASE with_{count}")
            name = psycopg2.extensions.make_dsn(dsn, dbname=f"with_{count}")
            sides.append(Reports(name, count, Path(folder) / f"home_{count}", instance))

        def tick(side: Reports, number: int) -> tuple[float, float]:
            side.load(number)
            return cpu_and_wall(lambda: side.tick())

        def work(side: Reports, number: int) -> tuple[float, float]:
            side.load(number)
            return cpu_and_wall(lambda: side.work([side.last]))

        held = [
            compare_pairs(
                (f"{what} with {options.deliveries:,}", f"{what} with 10"),
                (partial(measure, sides[0]), partial(measure, sides[1])),
                rounds=options.rounds,
                at_most=1.3,
            )
            for what, measure in (("a tick", tick), ("a run's work", work))
        ]
        for side in sides:
            side.connection.close()
    return all(held)


if __name__ == "__main__":
    # Dagster logs what every tick finds to stderr.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = main()
    sys.exit(0 if held else 1)
