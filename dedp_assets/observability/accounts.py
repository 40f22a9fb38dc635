"""How many lines the pipelines have loaded and set aside, from the accounts that each of them keeps in schema `dedp`.

Like a dashboard, this reads the tables of pipelines by their names, and imports none of them.
"""

from typing import NamedTuple

from psycopg2.extensions import connection as Connection

_HAS_TABLE = "SELECT to_regclass(%s) IS NOT NULL"

# By pipeline: its table with a row for each load, and the query over the rows of the last seconds.
_QUERIES = {
    "sequencer": (
        "dedp.devices_loads",
        """
        SELECT coalesce(sum(rows_loaded), 0)::bigint, coalesce(sum(rows_quarantined), 0)::bigint
        FROM dedp.devices_loads
        WHERE loaded_at > now() - %s * interval '1 second'
        """,
    ),
    "client_uploads": (
        "dedp.upload_files",
        """
        SELECT coalesce(sum(rows_loaded), 0)::bigint, coalesce(sum(rows_quarantined), 0)::bigint
        FROM dedp.upload_files
        WHERE dealt_with_at > now() - %s * interval '1 second'
        """,
    ),
    "promotions": (
        "dedp.promotion_deliveries",
        """
        SELECT coalesce(sum(rows_loaded), 0)::bigint, coalesce(sum(rows_quarantined), 0)::bigint
        FROM dedp.promotion_deliveries
        WHERE loaded_at > now() - %s * interval '1 second'
        """,
    ),
    "user_intake": (
        "dedp.users_intakes",
        """
        SELECT coalesce(sum(stored), 0)::bigint, coalesce(sum(quarantined), 0)::bigint
        FROM dedp.users_intakes
        WHERE stored_at > now() - %s * interval '1 second'
        """,
    ),
}


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
        for pipeline, (table, query) in _QUERIES.items():
            cursor.execute(_HAS_TABLE, [table])
            if cursor.fetchone() == (True,):
                cursor.execute(query, [seconds])
                found[pipeline] = Rows(*(cursor.fetchone() or (0, 0)))
    return found
