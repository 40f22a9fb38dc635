"""What others may know of the late-data integrator: asset keys, partitions, and where its tables are."""

import dagster as dg

from dedp_assets.resources_from_settings import LakeFromSettings

DEVICES = dg.AssetKey(["lake", "devices"])
DEVICE_COUNTS = dg.AssetKey(["lake", "device_counts"])
PARTITIONS_STATE = dg.AssetKey(["lake", "partitions_state"])
BACKFILLING_CONFIGURATION = dg.AssetKey(["lake", "backfilling_configuration"])
LATE_DATA_PICTURE = dg.AssetKey(["lake", "late_data_picture"])

# The concurrency pool of the runs that compute the counts.
POOL = "device_counts"

# Both tables are partitioned by this column. The state table and the JSON name a partition by it.
PARTITION_COLUMN = "event_time"

# A partition is one day (UTC). Today's partition exists already, because its first data closes yesterday.
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC", end_offset=1)


def uri(key: dg.AssetKey) -> str:
    """Where a table is if nobody configures the lake: under DEDP_DATA_URI, in a folder named by the key's last part.

    Assets and sensors ask their `LakeResource` instead. This is for commands and tests.

    Raises:
        SettingError: deltalake can't write a table there.
    """
    return LakeFromSettings().table_uri(key)


def partition_name(day: str) -> str:
    """The name of a partition in the state table and the backfilling configuration: `event_time=2024-01-02`."""
    return f"{PARTITION_COLUMN}={day}"
