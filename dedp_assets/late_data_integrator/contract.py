"""What the integrator and its neighbours agree on: asset keys, partitions, and where the tables are."""

import re

import dagster as dg

from dedp_assets import settings
from dedp_assets.errors import SettingError

DEVICES = dg.AssetKey(["lake", "devices"])
DEVICE_COUNTS = dg.AssetKey(["lake", "device_counts"])
PARTITIONS_STATE = dg.AssetKey(["lake", "partitions_state"])
BACKFILLING_CONFIGURATION = dg.AssetKey(["lake", "backfilling_configuration"])
LATE_DATA_PICTURE = dg.AssetKey(["lake", "late_data_picture"])

# The concurrency pool of the runs that compute the counts.
POOL = "device_counts"

# The column that partitions both tables, and the name by which the state table and the JSON call a partition.
PARTITION_COLUMN = "event_time"

# deltalake takes the folder `a%20b` for `a b` and `a\b` for `a/b`, and fails at the others.
_ODD_IN_FOLDER = re.compile(r"%[0-9A-Fa-f]{2}|[\\\[\]^|\x00-\x1f\x7f]")
# It takes s3://bucket/a#1 for s3://bucket/a.
_ODD_IN_URI = re.compile(r"[?#]")

# A partition is one day (UTC). Today's is there already: its first data closes yesterday's.
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC", end_offset=1)


def uri(key: dg.AssetKey) -> str:
    """Where a table is: under DEDP_DATA_URI, by the last part of its key.

    Raises SettingError for a place where deltalake would not write a table, or would write it to another one.
    """
    lake = settings.data_uri()
    odd = (_ODD_IN_URI if "://" in lake else _ODD_IN_FOLDER).search(lake)
    if odd:
        raise SettingError(
            f"the Delta tables are to be in {lake}, which deltalake can't do because of the {odd[0]!r}; "
            "set DEDP_DATA_URI to a place without it"
        )
    return f"{lake}/{key.path[-1]}"


def partition_name(day: str) -> str:
    """A partition as the state table and the backfilling configuration call it: `event_time=2024-01-02`."""
    return f"{PARTITION_COLUMN}={day}"
