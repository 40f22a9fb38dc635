"""Makes the aggregator's tables in a database that does not have them yet, and keeps them up to date."""

from pathlib import Path

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.migrations import WrongTables, migrate

__all__ = ["WrongTables", "ensure_tables"]

_MIGRATIONS = Path(__file__).with_name("migrations")
_PIPELINE = "isolated_sequencer"

# Stood in the schema's comment before there were migrations: such a database has what the first one makes.
_FIRST_VERSION = "dedp tables, version 1"


def ensure_tables(connection: Connection) -> None:
    """Apply the migrations that the database lacks; a no-op of one query afterwards. Safe from several processes.

    Raises WrongTables for a database that is newer than this version, or has a table of ours that is not ours.
    """
    migrate(connection, _PIPELINE, _MIGRATIONS, made_before=_made_before)


def _made_before(cursor: Cursor) -> int:
    # From the catalogue, and not with to_regnamespace(): that one answers from a cache, which still lacks the
    # schema that another process has just made while we waited for it.
    cursor.execute(
        "SELECT description FROM pg_namespace JOIN pg_description ON objoid = pg_namespace.oid "
        "WHERE classoid = 'pg_namespace'::regclass AND nspname = 'dedp'"
    )
    if cursor.fetchone() == (_FIRST_VERSION,):
        return 1
    cursor.execute(
        "SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE nspname = 'dedp' AND relname = 'devices_raw'"
    )
    if cursor.rowcount:
        raise WrongTables(
            "the database has a table dedp.devices_raw, and no record in dedp.schema_migrations that it is of "
            f"{_PIPELINE}; point DEDP_POSTGRES_DSN at another database, or rename the schema dedp"
        )
    return 0
