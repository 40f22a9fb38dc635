"""Connections to PostgreSQL, each with the session settings that our SQL depends on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import psycopg2
from psycopg2.extensions import connection as Connection

# What a server, a database or a role may have set otherwise, and our SQL depends on. The rest is theirs.
SESSION_SETTINGS = {
    # Names are written with their schema, and nobody's table or function comes in between.
    "search_path": "",
    # Two runs of a load take turns: the second waits at the first one's row, and sees what that committed.
    "default_transaction_isolation": "read committed",
    # A load takes as long as its file is big, and waits for as long as the one before it takes.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # A duplicate is found by the error that it is to a primary key.
    "exit_on_error": "off",
    "standard_conforming_strings": "on",
    "default_table_access_method": "heap",
}

# In one query: what the database is, and the settings, of which an older server may not know all. That a commit
# is on the disk before it is reported is set only where it was given up: a stronger promise stays.
_BEGIN = """
    SELECT pg_catalog.current_database(),
           pg_catalog.current_setting('server_encoding'),
           pg_catalog.current_setting('session_replication_role'),
           (
               SELECT pg_catalog.count(pg_catalog.set_config(name, value, false))
               FROM (SELECT pg_catalog.unnest(%s), pg_catalog.unnest(%s)) AS ours (name, value)
               WHERE pg_catalog.current_setting(name, true) IS NOT NULL
           ),
           CASE pg_catalog.current_setting('synchronous_commit')
               WHEN 'off' THEN pg_catalog.set_config('synchronous_commit', 'on', false)
           END
"""


class UnusableDatabase(RuntimeError):
    """The database can't be used as it is. One line: which one, what was found and expected, what to do."""


@contextmanager
def connect(dsn: str) -> Iterator[Connection]:
    """A connection that is closed at the end of the block; what was not committed is rolled back.

    Its session is the same whatever the server, the role and the environment have set (SESSION_SETTINGS).
    Raises UnusableDatabase for a malformed `dsn` and for a database that can't hold what a devices file may
    hold; psycopg2.OperationalError where no server answers.
    """
    try:
        connection = psycopg2.connect(dsn, application_name="dedp", client_encoding="UTF8")
    except psycopg2.ProgrammingError as error:
        malformed = str(error).strip()
    else:
        malformed = ""
    if malformed:
        # Not as it stands: it may have a password in it.
        raise UnusableDatabase(
            f"DEDP_POSTGRES_DSN is malformed: {malformed}; expected postgresql://user@host:port/database"
        )
    try:
        _begin(connection)
        yield connection
    finally:
        connection.close()


def _begin(connection: Connection) -> None:
    connection.autocommit = True  # a setting that is made in a transaction goes with it
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, [list(SESSION_SETTINGS), list(SESSION_SETTINGS.values())])
        database, encoding, replication_role, *_ = cursor.fetchone()  # type: ignore[misc]
    connection.autocommit = False
    if encoding != "UTF8":
        raise UnusableDatabase(
            f"database {database} has the encoding {encoding}, which can't hold every device's name; expected UTF8: "
            f"CREATE DATABASE {database}_utf8 ENCODING 'UTF8' TEMPLATE template0, and name that in DEDP_POSTGRES_DSN"
        )
    if replication_role != "origin":
        raise UnusableDatabase(
            f"database {database} runs no triggers, because session_replication_role is {replication_role!r}, and the "
            f"totals need them; expected 'origin': ALTER ROLE {connection.info.user} RESET session_replication_role, "
            f"and the same with ALTER DATABASE {database}"
        )


class PostgresResource(dg.ConfigurableResource[Any]):
    """Connections to the database of `dsn`. `resources_from_settings` has the one that follows the settings."""

    dsn: str | None = None

    def address(self) -> str:
        """Return where the database is, as a libpq URL or string. Raises UnusableDatabase if `dsn` is not given."""
        if self.dsn is None:
            raise UnusableDatabase(
                "the resource for PostgreSQL has no address; give it a `dsn`, or use DEDP_POSTGRES_DSN"
            )
        return self.dsn

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection as `connect` makes it."""
        with connect(self.address()) as connection:
            yield connection
