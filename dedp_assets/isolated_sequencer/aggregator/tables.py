"""Makes the tables of the aggregator, and keeps them up to date."""

from pathlib import Path

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.migrations import WrongTables, migrate

__all__ = ["WrongTables", "ensure_tables"]

_MIGRATIONS = Path(__file__).with_name("migrations")
_PIPELINE = "isolated_sequencer"

# The comment of the schema, in a database from before there were migrations. It has the tables of the first migration.
_FIRST_VERSION = "dedp tables, version 1"


def ensure_tables(connection: Connection) -> None:
    """Apply the migrations that the database does not have yet. If it has all of them, this is one query.

    Several processes may call it at the same time.

    Raises:
        WrongTables: The database is newer than this version, or has another table with the name of one of ours.
    """
    migrate(connection, _PIPELINE, _MIGRATIONS, made_before=_made_before)


def _made_before(cursor: Cursor) -> int:
    # Not with to_regnamespace(): it reads from a cache, which may lack a schema that another process has made while we
    # waited for the lock.
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
