"""Folds the rows of a load into the running totals behind the view `dedp.devices_aggregates`.

Folding does not change the totals that readers see (the first migration says why). It makes them cheap to read. It
writes only the devices that the load has changed since it was last folded, so its cost does not grow with history.
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
    """The result of a fold.

    Attributes:
        load_id: The load.
        version: The SHA-256 of the file that the load was made from.
        devices_changed: The number of devices whose folded total has changed.
    """

    load_id: str
    version: str
    devices_changed: int


class LoadNotFound(PermanentError):
    """The load does not exist."""


def fold(connection: Connection, load_id: str) -> FoldReport:
    """Fold the changes of a load into the totals, and commit. Repeating it changes nothing.

    Raises:
        LoadNotFound: There is no such load.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT folded, sha256 FROM dedp.devices_loads WHERE load_id = %s FOR UPDATE", [load_id])
        row = cursor.fetchone()
        if row is None:
            raise LoadNotFound(f"dedp.devices_loads has no load {load_id}; materialize dedp/devices_raw for it first")
        folded, version = row
        # Two folds may write the same devices in different order, so one fold runs at a time. The lock of the load is
        # taken first, because a running load may hold it for long; other folds must not wait for that.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('dedp.devices_folded'))")
        cursor.execute(_FOLD, {"load_id": load_id, "folded": folded})
        (devices_changed,) = cursor.fetchone()  # type: ignore[misc]
        cursor.execute("UPDATE dedp.devices_loads SET folded = true WHERE load_id = %s", [load_id])
    return FoldReport(load_id, version, devices_changed)
