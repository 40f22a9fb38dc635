"""A tick of each sensor of the promotions, and a load with its metrics, with 10,000 supplier-days present against 10.

Every tick of the sensor of deliveries finds one new version. The whole evaluation is timed: folders, copies,
PostgreSQL, the decision, the cursor.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import dagster as dg
import psycopg2
from measuring import compare_pairs, cpu_and_wall

from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.resources import embedded_postgres
from dedp_assets.resources.postgres import PostgresResource

SUPPLIERS = 10
HEADER = "product_id,product,price,promotion_price,starts_on,ends_on"

PRESENT = """
    INSERT INTO dedp.promotion_deliveries
    SELECT supplier, day, version, nextval('dedp.promotion_load_numbers'), now(), now(), false, 1, 5, 5, 0, ''
    FROM unnest(%(suppliers)s, %(days)s::date[], %(versions)s) AS present (supplier, day, version);
    INSERT INTO dedp.promotions
    SELECT supplier, day, number::text, 'Product', 2, 1, day, day
    FROM dedp.promotion_deliveries, generate_series(1, 5) AS number;
    INSERT INTO dedp.promotion_metrics SELECT supplier, day, 5, 50, 50, load_number FROM dedp.promotion_deliveries;
    ANALYZE dedp.promotion_deliveries, dedp.promotions, dedp.promotion_metrics;
"""


class Shop:
    """So many supplier-days, all of them taken, and the sensors that watch them."""

    def __init__(self, home: Path, days: int, server: str, instance: dg.DagsterInstance) -> None:
        os.environ["DEDP_HOME"] = str(home)
        from dedp_assets.landing import deliveries, delivery_copies
        from dedp_assets.promotions import contract
        from dedp_assets.promotions.deliveries import loading, measuring, tables
        from jobs import promotions as promotions_location
        from sensors.pipelines import promotions, promotions_reconciled

        self.home, self.instance, self.contract, self.copies = home, instance, contract, delivery_copies
        self.directory_of, self.loading, self.measuring = deliveries.directory_of, loading, measuring
        self.definitions = promotions_location.defs
        # A sensor of its own, because each remembers what the folders held.
        self.delivered = _own_sensor(promotions)
        self.reconciled = promotions_reconciled.promotions_reconciled
        self.cursors: dict[str, str] = {"reconciled": promotions_reconciled.Progress(turn=1).to_json()}
        dsn = urlsplit(server)._replace(path=f"/{home.name}").geturl()
        self.resources = {"postgres": PostgresResource(dsn=dsn), "notifier": NotifierResource()}
        self.connection = psycopg2.connect(dsn)
        tables.ensure_tables(self.connection)
        self.number = 0
        self.suppliers = contract.SUPPLIERS.get_partition_keys()
        self.last = datetime.now(timezone.utc).date()
        self._fill([self.last - timedelta(days=back) for back in reversed(range(days))])

    def _fill(self, days: list[date]) -> None:
        present = [self.contract.Delivery(supplier, day.isoformat()) for supplier in self.suppliers for day in days]
        for delivery in present:
            self.deliver(delivery)
        with patch("os.fsync"):
            versions = [self.copy(delivery).version for delivery in present]
        arguments = {
            "suppliers": [delivery.supplier for delivery in present],
            "days": [delivery.day for delivery in present],
            "versions": versions,
        }
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(PRESENT, arguments)
            cursor.execute("SELECT max(load_number) FROM dedp.promotion_deliveries")
            (last,) = cursor.fetchone() or (0,)
        from sensors.pipelines.promotions_reconciled import Progress

        self.cursors["reconciled"] = Progress(compared=last, turn=1).to_json()

    def deliver(self, delivery: Any, lines: int = 5) -> None:
        folder = self.contract.landing_folder().joinpath(*delivery)
        folder.mkdir(parents=True, exist_ok=True)
        self.number += 1
        rows = [f"{number},Product,2,{1 + self.number % 7 / 10},2024-01-05,2024-01-06" for number in range(lines)]
        (folder / "data-1.csv").write_text("\n".join([HEADER, *rows]) + "\n")
        (folder / "_SUCCESS").touch()

    def copy(self, delivery: Any) -> Any:
        return self.copies.copy_delivery(
            self.directory_of(self.contract.landing_folder(), delivery),
            self.contract.internal_folder(delivery),
            self.copies.Seen("", datetime.now(timezone.utc)),
            window_closes=datetime.now(timezone.utc),
            settle_seconds=0,
        )

    def tick(self, name: str) -> None:
        context = dg.build_sensor_context(
            self.instance, self.cursors.get(name), definitions=self.definitions, resources=self.resources
        )
        self.cursors[name] = str(getattr(self, name).evaluate_tick(context).cursor)

    def tick_delivered(self, _: int = 0) -> tuple[float, float]:
        os.environ["DEDP_HOME"] = str(self.home)
        self.deliver(self.contract.Delivery(self.suppliers[0], self.last.isoformat()))
        return cpu_and_wall(lambda: self.tick("delivered"))

    def tick_reconciled(self, _: int = 0) -> tuple[float, float]:
        os.environ["DEDP_HOME"] = str(self.home)
        return cpu_and_wall(lambda: self.tick("reconciled"))

    def load(self, _: int = 0) -> tuple[float, float]:
        os.environ["DEDP_HOME"] = str(self.home)
        delivery = self.contract.Delivery(self.suppliers[0], self.last.isoformat())
        self.deliver(delivery, lines=1000)
        return cpu_and_wall(lambda: self._take(delivery))

    def _take(self, delivery: Any) -> None:
        self.copy(delivery)
        self.loading.load_delivery(self.connection, delivery, self.contract.internal_folder(delivery))
        self.measuring.measure_delivery(self.connection, delivery)


def _own_sensor(promotions: ModuleType) -> dg.SensorDefinition:
    from sensors.deliveries import delivery_sensor

    return delivery_sensor(
        "promotions_delivered", promotions.PIPELINE, description="", required_resource_keys={"postgres", "notifier"}
    )


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--days", type=int, default=1000, help=f"of each of {SUPPLIERS} suppliers")
    arguments.add_argument("--rounds", type=int, default=30)
    options = arguments.parse_args()
    os.environ["DEDP_SUPPLIERS"] = ",".join(f"supplier{number}" for number in range(SUPPLIERS))
    with (
        tempfile.TemporaryDirectory(prefix="dedp-bench-") as folder,
        embedded_postgres.server_lease(Path(folder) / "postgres") as server,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        administration = psycopg2.connect(server)
        administration.autocommit = True
        with administration.cursor() as cursor:
            for name in ("many", "few"):
                cursor.execute(f"CREATE DATABASE {name}")
        print(f"taking {SUPPLIERS * options.days:,} supplier-days ...", flush=True)
        many = Shop(Path(folder) / "many", options.days, server, instance)
        few = Shop(Path(folder) / "few", 1, server, instance)
        names = (f"{SUPPLIERS * options.days:,} supplier-days", f"{SUPPLIERS} supplier-days")
        held = True
        for what in ("tick_delivered", "tick_reconciled", "load"):
            print(what.replace("_", " of "), flush=True)
            measured = (getattr(many, what), getattr(few, what))
            for _ in range(5):  # the first ticks list every folder
                measured[0](0)
                measured[1](0)
            held = compare_pairs(names, measured, rounds=options.rounds, at_most=1.3) and held
        shutil.rmtree(Path(folder) / "many", ignore_errors=True)
    return held


if __name__ == "__main__":
    # Dagster logs what every tick finds to stderr.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = main()
    sys.exit(0 if held else 1)
