"""What the tables of the late-data integrator hold, as a test reads them."""

from collections import Counter
from datetime import date
from typing import Any

from deltalake import DeltaTable

from dedp_assets.late_data_integrator import state
from dedp_assets.resources.object_store import storage_options

# Type, full name and version.
Device = tuple[str, str, str]


def count_anew(devices_uri: str, day: str, version: int | None = None) -> Counter[Device]:
    """How often each device occurs on a day, counted from the rows of the input table, at a version of it."""
    return Counter((row["type"], row["full_name"], row["version"]) for row in _rows(devices_uri, day, version))


def read_counts(counts_uri: str, day: str) -> Counter[Device]:
    """The counts of a day as the table of counts has them. A device that it has twice fails the test."""
    rows = _rows(counts_uri, day)
    counts = Counter({(row["type"], row["full_name"], row["version"]): row["count"] for row in rows})
    assert len(counts) == len(rows)
    return counts


def read_states(state_uri: str) -> dict[str, tuple[bool, int | None]]:
    """For each day whether it is being processed, and the version that was processed last."""
    rows = state.read_state(state_uri, storage_options(state_uri))
    return {row.partition.removeprefix("event_time="): row[1:] for row in rows}


def _rows(uri: str, day: str, version: int | None = None) -> list[dict[str, Any]]:
    table = DeltaTable(uri, version=version, storage_options=storage_options(uri))
    rows: list[dict[str, Any]] = table.to_pyarrow_table(
        filters=[("event_time", "=", date.fromisoformat(day))]
    ).to_pylist()
    return rows
