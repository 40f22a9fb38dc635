"""How many lines the pipelines have loaded and set aside, from the accounts that each of them keeps in schema `dedp`.

Like a dashboard, this reads the tables of pipelines by their names, and imports none of them.
"""

from typing import NamedTuple

from psycopg2.extensions import connection as Connection

_HAS_TABLE = "SELECT to_regclass(%s) IS NOT NULL"

# By pipeline: its table with a row for each load, the columns of lines that were loaded and set aside, and the time.
_LOADS = {
    "sequencer": ("dedp.devices_loads", "rows_loaded", "rows_quarantined", "loaded_at"),
    "client_uploads": ("dedp.upload_files", "rows_loaded", "rows_quarantined", "dealt_with_at"),
    "promotions": ("dedp.promotion_deliveries", "rows_loaded", "rows_quarantined", "loaded_at"),
    "user_intake": ("dedp.users_intakes", "stored", "quarantined", "stored_at"),
}
_LATEST = """
    SELECT coalesce(sum({loaded}), 0)::bigint, coalesce(sum({quarantined}), 0)::bigint
    FROM {table}
    WHERE {at} > now() - %s * interval '1 second'
"""


class Rows(NamedTuple):
    """Rows of the loads of a time."""

    loaded: int
    quarantined: int

    @property
    def share(self) -> float:
        """The part that is in quarantine, from 0 to 1. 0 if there were no rows."""
        return self.quarantined / (self.loaded + self.quarantined) if self.loaded + self.quarantined else 0.0


def rows_by_pipeline(connection: Connection, seconds: float) -> dict[str, Rows]:
    """The rows of the last `seconds`, by pipeline. Pipelines that have never loaded anything are left out."""
    found = {}
    with connection, connection.cursor() as cursor:
        for pipeline, (table, loaded, quarantined, at) in _LOADS.items():
            cursor.execute(_HAS_TABLE, [table])
            if cursor.fetchone() == (True,):
                cursor.execute(_LATEST.format(table=table, loaded=loaded, quarantined=quarantined, at=at), [seconds])
                found[pipeline] = Rows(*(cursor.fetchone() or (0, 0)))
    return found
