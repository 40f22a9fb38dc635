"""The log of who did what, when and from where. Each function takes a cursor; the caller commits."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg2.extensions import cursor as Cursor

# What a mutation is about. The rest of its arguments is left out: a run config may have a secret in it.
_TOLD = {
    "allPartitions",
    "backfillId",
    "checkName",
    "componentId",
    "concurrencyKey",
    "defsStateKey",
    "end",
    "eventType",
    "id",
    "jobName",
    "job_origin_id",
    "limit",
    "locationName",
    "parentRunId",
    "partitionKey",
    "partitionKeys",
    "partitionNames",
    "partitionSetName",
    "partitionsDefName",
    "passed",
    "path",
    "paused",
    "pipelineName",
    "repositoryLocationName",
    "repository_location_name",
    "rootRunId",
    "runId",
    "runIds",
    "scheduleName",
    "schedule_name",
    "schedule_origin_id",
    "sensorName",
    "sensor_name",
    "start",
    "stepKey",
    "stepKeys",
    "strategy",
    "terminatePolicy",
    "wipeMaterializations",
}
_PARTITION_TAGS = ("dagster/partition", "dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
_LONGEST_LIST, _LONGEST_TEXT = 50, 300

_BEGIN = """
    INSERT INTO dedp_sign_in.audit (user_name, role, address, action, about) VALUES (%s, %s, %s, %s, %s) RETURNING id
"""
_END = "UPDATE dedp_sign_in.audit SET outcome = %s, run_ids = %s, about = about || %s WHERE id = %s"
_ENTRIES = """
    SELECT at::timestamptz(0), user_name, coalesce(role, ''), address, action, about, coalesce(outcome, '?'), run_ids
    FROM dedp_sign_in.audit
    WHERE (%(user)s IS NULL OR user_name = %(user)s)
      AND (%(run)s IS NULL OR run_ids @> ARRAY[%(run)s] OR about ->> 'runId' = %(run)s)
      AND (%(days)s IS NULL OR at > now() - make_interval(days => %(days)s))
    ORDER BY id DESC LIMIT %(limit)s
"""


class Entry(NamedTuple):
    """What somebody did.

    Attributes:
        at: When it began.
        user: Who.
        role: The role of the user at that time.
        address: From where: the address of a client, or `command line`.
        action: A mutation of Dagster, or one of ours, such as `sign in`.
        about: The job, the assets, the partitions, the sensor ...
        outcome: What the answer was; `?` if it has begun, and its end was not recorded.
        run_ids: The runs that were launched, or ended.
    """

    at: datetime
    user: str
    role: str
    address: str
    action: str
    about: dict[str, Any]
    outcome: str
    run_ids: list[str]


def begin(cursor: Cursor, user: str, role: str | None, address: str, action: str, about: Mapping[str, Any]) -> int:
    """Record that something begins. Returns the number of the entry."""
    cursor.execute(_BEGIN, [user, role, address, action, _json(about)])
    ((number,),) = cursor.fetchall()
    return int(number)


def end(
    cursor: Cursor, number: int, outcome: str, run_ids: Sequence[str] = (), about: Mapping[str, Any] | None = None
) -> None:
    """Record how it has ended.

    Args:
        cursor: To the database.
        number: Of the entry.
        outcome: What the answer was.
        run_ids: The runs that were launched, or ended.
        about: What else the answer says about it.
    """
    cursor.execute(_END, [outcome, list(run_ids), _json(about or {}), number])


def _json(about: Mapping[str, Any]) -> str:
    # A name of others may have a NUL, which PostgreSQL refuses.
    return json.dumps(about).replace("\\u0000", "\\ufffd")


def record(
    cursor: Cursor, user: str, role: str | None, address: str, action: str, about: Mapping[str, Any], outcome: str
) -> None:
    """Record something that is over."""
    end(cursor, begin(cursor, user, role, address, action, about), outcome)


def entries(
    cursor: Cursor, user: str | None = None, run: str | None = None, days: int | None = None, limit: int = 50
) -> list[Entry]:
    """The latest entries, the latest one first.

    Args:
        cursor: To the database.
        user: Only of this user.
        run: Only those that have launched or ended this run.
        days: Only of the last so many days.
        limit: How many at most.
    """
    cursor.execute(_ENTRIES, {"user": user, "run": run, "days": days, "limit": limit})
    return [Entry(*row) for row in cursor.fetchall()]


def delete_older_than(cursor: Cursor, days: int) -> int:
    """Delete the entries that are older than so many days. Returns how many there were."""
    cursor.execute("DELETE FROM dedp_sign_in.audit WHERE at < now() - make_interval(days => %s)", [days])
    return cursor.rowcount


def described(arguments: Any) -> dict[str, Any]:
    """What the arguments of a mutation are about, without what may be a secret or long.

    Args:
        arguments: Nested mappings and lists, as GraphQL has them.
    """
    found: dict[str, list[Any]] = {}
    _collect(arguments, found)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _collect(arguments: Any, found: dict[str, list[Any]]) -> None:
    if isinstance(arguments, Mapping):
        if arguments.get("key") in _PARTITION_TAGS:
            _tell(found, str(arguments["key"]), arguments.get("value"))
        for name, value in arguments.items():
            if name == "path" and isinstance(value, list):
                _tell(found, "asset", "/".join(map(str, value)))
            elif name in _TOLD and value is not None:
                for each in value if isinstance(value, list) else [value]:
                    _tell(found, name, each)
            elif name not in ("runConfigData", "serializedMetadata"):
                _collect(value, found)
    elif isinstance(arguments, list | tuple):
        for each in arguments:
            _collect(each, found)


def _tell(found: dict[str, list[Any]], name: str, value: Any) -> None:
    values = found.setdefault(name, [])
    short = value if isinstance(value, bool | int) else str(getattr(value, "value", value))[:_LONGEST_TEXT]
    if short not in values and len(values) <= _LONGEST_LIST:
        values.append("..." if len(values) == _LONGEST_LIST else short)
