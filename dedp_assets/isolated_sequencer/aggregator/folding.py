"""Folds a load's rows into the running totals behind the view `dedp.devices_aggregates`.

Folding changes no total that a reader sees (the first migration says why); it makes them cheap to read. It touches the
devices that the load changed since it was last folded, so its cost follows the load and not the history.
"""

from dataclasses import dataclass

from psycopg2.extensions import connection as Connection

from dedp_assets.errors import PermanentError

_FOLD = """
    WITH noted AS (
        DELETE FROM dedp.devices_changes WHERE load_id = %(load_id)s
        RETURNING type, full_name, version, change
    ), pending AS (
        SELECT type, full_name, version, sum(change) AS change
        FROM (
            SELECT type, full_name, version, change FROM noted
            UNION ALL
            SELECT type, full_name, version, 1 FROM dedp.devices_raw
            WHERE load_id = %(load_id)s AND NOT %(folded)s
        ) AS parts
        GROUP BY type, full_name, version
        HAVING sum(change) <> 0
    ), written AS (
        INSERT INTO dedp.devices_folded AS folded (type, full_name, version, all_occurrences)
        SELECT type, full_name, version, change FROM pending
        ON CONFLICT (type, full_name, version)
        DO UPDATE SET all_occurrences = folded.all_occurrences + excluded.all_occurrences
        RETURNING 1
    )
    SELECT count(*) FROM written
"""


@dataclass(frozen=True)
class FoldReport:
    """What a fold did: which version of the load is in, and how many devices' totals it had changed."""

    load_id: str
    version: str
    devices_changed: int


class LoadNotFound(PermanentError):
    """There is no such load to fold."""


def fold(connection: Connection, load_id: str) -> FoldReport:
    """Fold what `load_id` changed into the totals, and commit. Repeating it changes nothing.

    Raises LoadNotFound if the load has never been there.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT folded, sha256 FROM dedp.devices_loads WHERE load_id = %s FOR UPDATE", [load_id])
        row = cursor.fetchone()
        if row is None:
            raise LoadNotFound(f"dedp.devices_loads has no load {load_id}; materialize dedp/devices_raw for it first")
        folded, version = row
        # Two folds write the same devices, in no common order: one at a time. Taken after the load's own lock,
        # which a long load may hold, so that no fold waits for another's load.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('dedp.devices_folded'))")
        cursor.execute(_FOLD, {"load_id": load_id, "folded": folded})
        (devices_changed,) = cursor.fetchone()  # type: ignore[misc]
        cursor.execute("UPDATE dedp.devices_loads SET folded = true WHERE load_id = %s", [load_id])
    return FoldReport(load_id, version, devices_changed)
