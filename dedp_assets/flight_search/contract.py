"""What others may know of the flight searches: asset keys, partitions, where events land, and what an event is.

A file in `landing_folder()` has a name that ends with `.jsonl`, and one event in each line:

    {"search_id": "8f14e45f", "searched_at": "2024-01-02T10:15:30Z", "origin": "FRA", "destination": "JFK",
     "departure_date": "2024-02-01", "passengers": 2}

An event is a fact: it is known by its `search_id` and its day, and never changes. Other fields are ignored.
"""

from pathlib import Path

import dagster as dg

from dedp_assets import settings

SEARCHES = dg.AssetKey(["flights", "searches"])
PER_ROUTE = dg.AssetKey(["flights", "searches_per_route"])
PER_HOUR = dg.AssetKey(["flights", "searches_per_hour"])

# The table of the lines that are no events. It is no asset of its own: the ingestion writes it.
QUARANTINE = dg.AssetKey(["flights", "searches_quarantine"])

# The concurrency pool of the runs that use Spark.
POOL = "flight_search"

# The three tables are partitioned by this column.
PARTITION_COLUMN = "day"

# A partition is the day (UTC) of the search, and not of the file: an event that comes late belongs to its own day.
# Today's partition exists already.
FIRST_DAY = "2024-01-01"
DAYS = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, timezone="UTC", end_offset=1)


def landing_folder() -> Path:
    """Where files of events arrive."""
    return settings.landing() / "flight_searches"


def copies_folder() -> Path:
    """Where a run keeps its copies of the files, until it has taken them in."""
    return settings.internal() / "flight_searches"
