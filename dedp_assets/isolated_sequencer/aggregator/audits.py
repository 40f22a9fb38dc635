"""The checks of the tables. Each is one query in one snapshot."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

_ACCOUNTS = """
    SELECT load_id, lines_read, rows_loaded, rows_quarantined, present, set_aside
    FROM dedp.devices_loads
    CROSS JOIN LATERAL (
        SELECT count(*) AS present FROM dedp.devices_raw WHERE load_id = devices_loads.load_id
    ) AS raw
    CROSS JOIN LATERAL (
        SELECT count(*) AS set_aside FROM dedp.devices_quarantine WHERE load_id = devices_loads.load_id
    ) AS quarantine
    WHERE %(all)s OR load_id = ANY(%(load_ids)s)
    ORDER BY load_id
"""

_BALANCE = """
    SELECT (SELECT coalesce(sum(all_occurrences), 0)::bigint FROM dedp.devices_aggregates),
           (SELECT coalesce(sum(rows_loaded), 0)::bigint FROM dedp.devices_loads)
"""

_RECOUNT = """
    SELECT count(*),
           count(*) FILTER (WHERE counted IS DISTINCT FROM all_occurrences),
           (array_agg(format('%s %s %s: %s, recounted %s', type, full_name, version, all_occurrences, counted))
               FILTER (WHERE counted IS DISTINCT FROM all_occurrences))[:5]
    FROM dedp.devices_aggregates
    FULL JOIN (
        SELECT type, full_name, version, count(*) AS counted FROM dedp.devices_raw GROUP BY type, full_name, version
    ) AS recount USING (type, full_name, version)
"""


def lines_accounted_for(connection: Connection, load_ids: list[str] | None = None) -> dg.AssetCheckResult:
    """Check that every line that was read is a row of devices_raw or a line in devices_quarantine.

    Args:
        connection: To the database.
        load_ids: The loads to check; None for all loads.

    Returns:
        The result. Its description names the first 10 loads that are wrong.
    """
    with _one_snapshot(connection) as cursor:
        cursor.execute(_ACCOUNTS, {"all": load_ids is None, "load_ids": load_ids or []})
        accounts = cursor.fetchall()
    wrong = [
        f"load {load_id}: {lines_read} lines read, {loaded} loaded and {quarantined} quarantined; "
        f"there are {present} rows and {set_aside} quarantined lines"
        for load_id, lines_read, loaded, quarantined, present, set_aside in accounts
        if (present, set_aside) != (loaded, quarantined) or lines_read != present + set_aside
    ]
    return dg.AssetCheckResult(
        check_name="lines_accounted_for" if load_ids is not None else None,
        passed=not wrong,
        description="\n".join(wrong[:10]) or None,
        metadata={
            "loads": len(accounts),
            "lines_read": sum(account[1] for account in accounts),
            "rows_present": sum(account[4] for account in accounts),
            "lines_quarantined": sum(account[5] for account in accounts),
        },
    )


def totals_balance(connection: Connection) -> dg.AssetCheckResult:
    """Check that the sum of all totals is the number of rows in all loads. Its cost does not grow with history."""
    with _one_snapshot(connection) as cursor:
        cursor.execute(_BALANCE)
        occurrences, rows = cursor.fetchone()  # type: ignore[misc]
    return dg.AssetCheckResult(
        check_name="totals_balance",
        passed=occurrences == rows,
        description=None if occurrences == rows else f"{occurrences} occurrences, but {rows} rows loaded. {_REMEDY}",
        metadata={"occurrences": occurrences, "rows_loaded": rows},
    )


def totals_equal_recount(connection: Connection) -> dg.AssetCheckResult:
    """Check that every total is the number of rows in devices_raw. Counts the whole table."""
    with _one_snapshot(connection) as cursor:
        cursor.execute(_RECOUNT)
        devices, wrong, examples = cursor.fetchone()  # type: ignore[misc]
    return dg.AssetCheckResult(
        passed=wrong == 0,
        description=None if wrong == 0 else "\n".join([*examples, _REMEDY]),
        metadata={"devices": devices, "devices_wrong": wrong},
    )


@contextmanager
def _one_snapshot(connection: Connection) -> Iterator[Cursor]:
    """A transaction in which queries are planned and run with the same snapshot.

    By default, PostgreSQL takes the snapshot after planning. If a load commits in between, the query would see its row
    in devices_loads, but none of its rows in devices_raw, because the plan lacks the new partition.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield cursor


_REMEDY = (
    "Were rows changed in a partition's own table, or is a load missing? "
    "SELECT dedp.unfold_all() has every total counted anew; all_loads_accounted_for names the load."
)
