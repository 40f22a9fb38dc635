"""Deliveries that are copied and loaded as the pipeline does it, and the tables that hold them then."""

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from psycopg2.extensions import connection as Connection

from dedp_assets.landing.deliveries import directory_of
from dedp_assets.landing.delivery_copies import Seen, copy_delivery
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries.loading import Load, load_delivery

HEADER = "product_id,product,price,promotion_price,starts_on,ends_on"
NORTH = Delivery("supermarket1", "2024-01-05")


def text(*lines: str, header: str = HEADER) -> str:
    """A file with these lines below its header."""
    return "\n".join([header, *lines]) + "\n"


def line(
    product: str = "milk", price: str = "2.00", promotion: str = "1.50", days: str = "2024-01-05,2024-01-12"
) -> str:
    return f"{product},Product,{price},{promotion},{days}"


class Shop:
    """Deliveries, and the tables that they are loaded into."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def deliver(self, delivery: Delivery = NORTH, **files: str | bytes) -> Path:
        """Replace the files of a delivery by these, and copy it. Returns the folder of the copy."""
        directory = directory_of(contract.landing_folder(), delivery)
        landed = contract.landing_folder().joinpath(*delivery)
        landed.mkdir(parents=True, exist_ok=True)
        for path in landed.iterdir():
            path.unlink()
        for name, content in files.items():
            (landed / f"data-{name}.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        (landed / "_SUCCESS").touch()
        folder = contract.internal_folder(delivery)
        copy_delivery(
            directory,
            folder,
            Seen("", datetime(2024, 1, 5, 18, tzinfo=timezone.utc)),
            window_closes=datetime(2024, 1, 6, 2, tzinfo=timezone.utc),
            settle_seconds=0,
        )
        return folder

    def load(self, delivery: Delivery = NORTH, *, again: bool = False, **files: str | bytes) -> Load:
        """Deliver and load."""
        folder = self.deliver(delivery, **files) if files else contract.internal_folder(delivery)
        return load_delivery(self.connection, delivery, folder, again=again)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def products(self) -> dict[str, str]:
        return dict(self.query("SELECT product_id, promotion_price::text FROM dedp.promotions ORDER BY 1"))

    def quarantine(self, columns: str = "file, line_number, reason") -> list[tuple[Any, ...]]:
        return self.query(f"SELECT {columns} FROM dedp.promotion_quarantine ORDER BY file, line_number")
