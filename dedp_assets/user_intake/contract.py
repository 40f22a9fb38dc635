"""What others may know of the user intake: asset keys, partitions, and where a day's raw copy is kept."""

from datetime import datetime
from pathlib import Path

import dagster as dg

from dedp_assets import settings

RAW = dg.AssetKey(["users", "raw"])
USERS = dg.AssetKey(["users", "users"])

# A partition is the intake of one day (UTC). It exists from the day's beginning: the API tells how users are now, so a
# day is fetched while it lasts, and not when it is over.
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC", end_offset=1)


def raw_copy(partition_key: str) -> Path:
    """The copy of what the API answered on a day, without passwords. Each day has a folder."""
    return raw_folder() / partition_key / "users.jsonl"


def raw_folder() -> Path:
    """The folder of all days."""
    return settings.internal() / "users"


def day_of(now: datetime) -> str:
    """The partition of a moment in UTC."""
    return now.date().isoformat()
