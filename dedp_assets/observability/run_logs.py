"""The logs of all runs as JSON lines, read from Dagster's event log in PostgreSQL.

A run's own output is text, has the lines of user code in between, and is in another place for each run. The event log
has every message and event of every run of every location once, with the run, the step, the asset and the partition.
"""

import json
import logging
from datetime import datetime, timezone
from typing import Any, NamedTuple

from psycopg2.extensions import connection as Connection

_PAGE = 5000
# An id that is lower may be committed later by another run: rows that are younger than this are read again.
OVERLAP_SECONDS = 30.0

_FIRST = """
    SELECT coalesce(min(id), (SELECT coalesce(max(id), 0) + 1 FROM event_logs))
    FROM event_logs
    WHERE "timestamp" > (now() AT TIME ZONE 'UTC') - %s * interval '1 second'
        AND id > (SELECT coalesce(max(id), 0) FROM event_logs) - 1000000
"""

_ROWS = f"""
    SELECT
        log.id, log.event, log.dagster_event_type, log.asset_key, coalesce(log.partition, runs.partition),
        split_part(tag.value, '@', 2), extract(epoch FROM now() AT TIME ZONE 'UTC' - log."timestamp")::double precision
    FROM event_logs AS log
    LEFT JOIN runs ON runs.run_id = log.run_id
    LEFT JOIN run_tags AS tag ON tag.run_id = log.run_id AND tag.key = '.dagster/repository'
    WHERE log.id >= %s
    ORDER BY log.id
    LIMIT {_PAGE}
"""


class Place(NamedTuple):
    """How far the log has been read. `next_id`: from where to read on; `seen`: what was read from there on."""

    next_id: int
    seen: frozenset[int] = frozenset()


def place_before(connection: Connection, seconds: float) -> Place:
    """Where the log of the last `seconds` begins, among the last million rows."""
    with connection.cursor() as cursor:
        cursor.execute(_FIRST, [seconds])
        (first,) = cursor.fetchone() or (1,)
    return Place(int(first))


def read_on(connection: Connection, place: Place) -> tuple[list[str], Place]:
    """Read what has come since.

    Args:
        connection: To Dagster's tables.
        place: Where to read on.

    Returns:
        A line of JSON for each message or event, and where to read on. Each comes once, also if several runs write.
    """
    with connection.cursor() as cursor:
        cursor.execute(_ROWS, [place.next_id])
        rows = cursor.fetchall()
    lines = [line_of(*row[1:6]) for row in rows if row[0] not in place.seen]
    settled = [row[0] for row in rows if row[6] > OVERLAP_SECONDS]
    next_id = settled[-1] + 1 if settled else place.next_id
    if len(rows) == _PAGE and rows[-1][0] in place.seen:
        next_id = rows[-1][0] + 1  # a whole page that is young and read: go on, or nothing would ever come
    return lines, Place(next_id, frozenset(row[0] for row in rows if row[0] >= next_id))


def line_of(
    event: str, event_type: str | None, asset_key: str | None, partition: str | None, location: str | None
) -> str:
    """A row of the event log as a line of JSON. What there is not is left out."""
    entry: dict[str, Any] = json.loads(event)
    occurred = entry.get("dagster_event") or {}
    fields = {
        "timestamp": _iso(entry.get("timestamp")),
        "level": logging.getLevelName(entry.get("level") or logging.INFO).lower(),
        "event": entry.get("user_message") or occurred.get("message") or "",
        "type": event_type,
        "location": location,
        "job": entry.get("job_name") or entry.get("pipeline_name"),
        "run_id": entry.get("run_id"),
        "step": entry.get("step_key") or occurred.get("step_key"),
        "asset": "/".join(json.loads(asset_key)) if asset_key else None,
        "partition": partition,
        "error": _error(occurred),
    }
    return json.dumps({name: value for name, value in fields.items() if value}, ensure_ascii=False)


def _iso(timestamp: float | None) -> str:
    return datetime.fromtimestamp(timestamp or 0.0, timezone.utc).isoformat(timespec="milliseconds")


def _error(occurred: dict[str, Any]) -> str:
    data = occurred.get("event_specific_data")
    error = (data.get("error") if isinstance(data, dict) else None) or {}
    while error.get("cause"):
        error = error["cause"]
    return str(error.get("message") or "").strip()
