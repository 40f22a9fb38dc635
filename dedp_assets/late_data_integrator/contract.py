"""What the integrator and its neighbours agree on: asset keys, partitions, and where the tables are."""

import dagster as dg

from dedp_assets import settings

DEVICES = dg.AssetKey(["lake", "devices"])
DEVICE_COUNTS = dg.AssetKey(["lake", "device_counts"])
PARTITIONS_STATE = dg.AssetKey(["lake", "partitions_state"])
BACKFILLING_CONFIGURATION = dg.AssetKey(["lake", "backfilling_configuration"])
LATE_DATA_PICTURE = dg.AssetKey(["lake", "late_data_picture"])

# The concurrency pool of the runs that compute the counts.
POOL = "device_counts"

# The column that partitions both tables, and the name by which the state table and the JSON call a partition.
PARTITION_COLUMN = "event_time"

# A partition is one day (UTC). Today's is there already: its first data closes yesterday's.
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC", end_offset=1)


def uri(key: dg.AssetKey) -> str:
    """Where a table is: under DEDP_DATA_URI, by the last part of its key."""
    return f"{settings.data_uri()}/{key.path[-1]}"


def partition_name(day: str) -> str:
    """A partition as the state table and the backfilling configuration call it: `event_time=2024-01-02`."""
    return f"{PARTITION_COLUMN}={day}"
