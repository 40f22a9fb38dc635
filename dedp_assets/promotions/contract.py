"""What the two code locations of the promotions agree on: keys, partitions, places of files, and the tables to read.

Others may read these tables, which the migrations of `deliveries` describe: `dedp.promotion_deliveries`, one row for
each delivery that is loaded, with its version; `dedp.promotions`, its products; `dedp.promotion_metrics`.
"""

from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from dedp_assets import settings

RAW = dg.AssetKey(["promotions", "raw"])
CLEANED = dg.AssetKey(["promotions", "cleaned"])
METRICS = dg.AssetKey(["promotions", "metrics"])
DIFFERENCES = dg.AssetKey(["promotions", "differences"])
DASHBOARD = dg.AssetKey(["promotions", "dashboard"])
NOTIFICATION = dg.AssetKey(["promotions", "notification"])

# The window in which a supplier delivers for a day: it opens on that day and closes on the next one, in UTC.
WINDOW_OPENS = time(16, 0)
WINDOW_CLOSES = time(2, 0)

# A day has a partition as soon as it begins, because deliveries come before it is over.
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC", end_offset=1)

# The one setting that is read at import: partitions are part of the definition of an asset. Reload the code locations
# after a change.
SUPPLIERS = dg.StaticPartitionsDefinition(settings.suppliers())

# Keys are such as `supermarket1|2024-01-05`. Dagster puts the dimensions in the order of their names, so the name of
# the day's dimension has to come after `supplier`.
DELIVERIES = dg.MultiPartitionsDefinition({"supplier": SUPPLIERS, "trading_day": DAYS})


class Delivery(NamedTuple):
    """Which delivery: a supplier, and the day (YYYY-MM-DD) that it is for."""

    supplier: str
    day: str

    @property
    def key(self) -> dg.MultiPartitionKey:
        """The partition key."""
        return dg.MultiPartitionKey({"supplier": self.supplier, "trading_day": self.day})

    @classmethod
    def of_key(cls, partition_key: str) -> "Delivery":
        """The delivery of a partition key such as `supermarket1|2024-01-05`."""
        supplier, _, day = partition_key.rpartition("|")
        return cls(supplier, day)


def landing_folder() -> Path:
    """Where deliveries arrive: `<supplier>/<day>/data-*.csv`, and then `_SUCCESS`."""
    return settings.landing() / "promotions"


def internal_folders() -> Path:
    """The folder of our own copies of all deliveries, `<supplier>/<day>`."""
    return settings.internal() / "promotions"


def internal_folder(delivery: Delivery) -> Path:
    """The folder of our own copies of a delivery."""
    return internal_folders() / delivery.supplier / delivery.day


def dashboard_file() -> Path:
    """The dashboard, an HTML page."""
    return settings.home() / "promotions" / "dashboard.html"


def window_closes(day: str) -> datetime:
    """When the window of a day closes, as UTC without a time zone."""
    return datetime.combine(date.fromisoformat(day) + timedelta(days=1), WINDOW_CLOSES)
