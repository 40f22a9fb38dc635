"""What the loader and the aggregator agree on: asset keys, partitions, columns, and where the copies are."""

from datetime import date, datetime, timezone
from pathlib import Path

import dagster as dg

from dedp_assets import settings
from dedp_assets.delimited.format import Column, Format

DEVICES_FILE = dg.AssetKey("devices_file")
DEVICES_RAW = dg.AssetKey(["dedp", "devices_raw"])
DEVICES_AGGREGATES = dg.AssetKey(["dedp", "devices_aggregates"])

# A partition is one day and one load. It begins to exist when its day (UTC) is over.
LOADS = dg.DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC")

_NEVER_EMPTY = "A line that has no value here is not loaded; it goes to dedp.devices_quarantine."

# The lengths are those of the columns of dedp.devices_raw.
DEVICES_FORMAT = Format(
    ";",
    (
        Column("type", 15, f"Kind of device, such as phone. Text of 1 to 15 characters. {_NEVER_EMPTY}"),
        Column("full_name", 50, f"Maker and model of the device. Text of 1 to 50 characters. {_NEVER_EMPTY}"),
        Column(
            "version",
            40,
            "Version of the device's operating system, such as Android 14. Text of 1 to 40 characters, not to be "
            f"compared as a number. {_NEVER_EMPTY}",
        ),
    ),
)
LOAD_ID_DESCRIPTION = "The load that the row came with: its day (UTC) in 8 digits, such as 20240131. Never empty."
ALL_OCCURRENCES_DESCRIPTION = (
    "The number of loads, over all days, in which the device occurs: 1 or more. Never empty. "
    "A device that occurs in no load any more has no row."
)


def load_id(partition_key: str) -> str:
    """The load of a daily partition: the day in 8 digits, such as 20240131."""
    return partition_key.replace("-", "")


def internal_file(partition_key: str) -> Path:
    """The path of our own copy of a day's file. Each load has a folder."""
    return settings.internal() / "devices" / load_id(partition_key) / "dataset.csv"


def due_days(now: datetime, start: date = date.min) -> list[str]:
    """The partitions whose day is over.

    Args:
        now: The time to decide for, with a time zone.
        start: The first day to return.

    Returns:
        Partition keys, oldest first.
    """
    keys = LOADS.get_partition_keys(current_time=now.astimezone(timezone.utc))
    return [key for key in keys if key >= start.isoformat()]
