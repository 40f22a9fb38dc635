"""What the loader and the aggregator agree on: asset keys, partitions, the file's format, and where it is kept."""

from datetime import date, datetime, timezone
from pathlib import Path

import dagster as dg

from dedp_assets import settings
from dedp_assets.delimited.format import Column, Format

DEVICES_FILE = dg.AssetKey("devices_file")
DEVICES_RAW = dg.AssetKey(["dedp", "devices_raw"])
DEVICES_AGGREGATES = dg.AssetKey(["dedp", "devices_aggregates"])

# A partition is one day and one load. It exists once its day (UTC) is over.
LOADS = dg.DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC")

# As long as dedp.devices_raw has them.
DEVICES_FORMAT = Format(";", (Column("type", 15), Column("full_name", 50), Column("version", 40)))


def load_id(partition_key: str) -> str:
    """The load that a daily partition is: its date without dashes, 8 digits."""
    return partition_key.replace("-", "")


def internal_file(partition_key: str) -> Path:
    """Our own copy of a load's file: one folder per load."""
    return settings.internal() / "devices" / load_id(partition_key) / "dataset.csv"


def due_days(now: datetime, start: date = date.min) -> list[str]:
    """The partition keys from `start` on whose day is over at `now` (an aware datetime), oldest first."""
    keys = LOADS.get_partition_keys(current_time=now.astimezone(timezone.utc))
    return [key for key in keys if key >= start.isoformat()]
