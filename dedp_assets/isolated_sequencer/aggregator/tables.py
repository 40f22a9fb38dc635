"""Makes the aggregator's tables in a database that does not have them yet."""

from pathlib import Path

from psycopg2.extensions import connection as Connection

_SCHEMA = Path(__file__).with_name("schema.sql")

# Stands in the schema's comment: a database that carries it has everything that schema.sql makes.
_VERSION = "dedp tables, version 1"


class WrongTables(RuntimeError):
    """The database holds a `dedp` schema that this version can't use."""


def ensure_tables(connection: Connection) -> None:
    """Create the schema `dedp` once; a no-op afterwards. Safe from several processes at once."""
    with connection, connection.cursor() as cursor:
        if _version(cursor) == _VERSION:
            return
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [_VERSION])
        if _version(cursor) == _VERSION:
            return
        cursor.execute("SELECT to_regclass('dedp.devices_raw')")
        if cursor.fetchone() != (None,):
            raise WrongTables(
                f"the database has a table dedp.devices_raw that is not of {_VERSION!r}; "
                "point DEDP_POSTGRES_DSN at another database, or rename the schema dedp"
            )
        cursor.execute(_SCHEMA.read_text(encoding="utf-8"))
        cursor.execute("COMMENT ON SCHEMA dedp IS %s", [_VERSION])


def _version(cursor) -> str | None:
    # From the catalogue, and not with to_regnamespace(): that one answers from a cache, which still lacks the
    # schema that another process has just made while we waited for it.
    cursor.execute(
        "SELECT description FROM pg_namespace JOIN pg_description ON objoid = pg_namespace.oid "
        "WHERE classoid = 'pg_namespace'::regclass AND nspname = 'dedp'"
    )
    row = cursor.fetchone()
    return row and row[0]
