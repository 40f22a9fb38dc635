"""Files of events that land, and what the tables have of them."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from dedp_assets.flight_search import contract
from dedp_assets.flight_search.ingestion import Ingested, ingest
from dedp_assets.resources.spark_limits import LimitedSpark, SparkLimits
from dedp_assets.resources_from_settings import LakeFromSettings, SparkFromSettings

DAY, OTHER = "2024-01-02", "2024-01-05"
NOW = datetime(2024, 1, 10, 8, tzinfo=timezone.utc)


def event(search_id: str, day: str = DAY, hour: int = 10, **values: object) -> dict[str, Any]:
    """An event, with other values for some of its fields."""
    return {
        "search_id": search_id,
        "searched_at": f"{day}T{hour:02}:15:30Z",
        "origin": "FRA",
        "destination": "JFK",
        "departure_date": "2024-02-01",
        "passengers": 2,
        **values,
    }


def lines(*events: dict[str, Any] | str) -> str:
    """The content of a file of events. A text is a line as it is."""
    return "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in events)


def land(name: str, *events: dict[str, Any] | str) -> Path:
    """Put a complete file into the landing folder, in place of one of the same name."""
    path = contract.landing_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{name}.part")
    draft.write_text(lines(*events))
    return draft.rename(path)


def take_in(**limits: Any) -> Ingested:
    """Take in what has landed, as a run does."""
    return ingest(
        LakeFromSettings(),
        lambda: LimitedSpark(SparkFromSettings().session, SparkLimits(**limits)),
        settle_seconds=0,
        now=NOW,
    )


def rows(key: Any, *columns: str) -> list[tuple[Any, ...]]:
    """These columns of a table, in order of their values; empty if there is no table."""
    uri = LakeFromSettings().table_uri(key)
    if not DeltaTable.is_deltatable(uri):
        return []
    found = DeltaTable(uri).to_pyarrow_table(columns=list(columns)).to_pylist()
    return sorted(tuple(row.values()) for row in found)


def search_ids() -> list[str]:
    """The ids of all events that the table has, in order."""
    return [search_id for (search_id,) in rows(contract.SEARCHES, "search_id")]


def version(key: Any) -> int:
    """The version of a table."""
    return DeltaTable(LakeFromSettings().table_uri(key)).version()
