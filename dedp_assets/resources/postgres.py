"""The project's PostgreSQL database: the embedded server, or whichever `DEDP_POSTGRES_DSN` names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import psycopg2
from psycopg2 import errors
from psycopg2.extensions import connection as Connection

from dedp_assets import settings
from dedp_assets.errors import PermanentError, TransientError
from dedp_assets.resources import embedded_postgres

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


# What SQLSTATE codes begin with when the server has ended the connection: connection exceptions, and its shutdown.
_CONNECTION_LOST = ("08", "57P0")


class UnusableDatabase(PermanentError):
    """The database has properties that rule out its use. The message names the database and the expected property."""


class DatabaseUnavailable(TransientError):
    """PostgreSQL does not answer, has ended the connection, or can't do the work now. The same work may succeed later.

    The message is one line, with the text of the server or of the client library, and without a password.
    """


@contextmanager
def named_database_errors() -> Iterator[None]:
    """Turn the errors of psycopg2 that may pass into ours: while connecting, and in the middle of work.

    Other errors of psycopg2 (wrong SQL, a violated constraint) are faults of ours and stay as they are.

    Raises:
        DatabaseUnavailable: The block raised such an error.
    """
    try:
        yield
    except (psycopg2.OperationalError, psycopg2.InterfaceError, errors.ReadOnlySqlTransaction) as error:
        # A transaction on a lost connection can't be rolled back. The error that says so hides the first one.
        first = error.__context__ if isinstance(error.__context__, psycopg2.OperationalError) else error
        raise DatabaseUnavailable(_describe(first)) from error


def _describe(error: psycopg2.Error) -> str:
    what = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return f"PostgreSQL accepts no changes at the moment: {what}; is DEDP_POSTGRES_DSN the primary server?"
    if error.pgcode is None or error.pgcode.startswith(_CONNECTION_LOST):
        return f"PostgreSQL does not answer: {what}"
    return f"PostgreSQL could not do its work: {what}"


def database_dsn() -> str:
    """Where the database is; starts the embedded server for this process's life if that is the one."""
    return settings.postgres_dsn() or embedded_postgres.attach(settings.make_home() / "postgres")


@contextmanager
def connect(dsn: str) -> Iterator[Connection]:
    """Connect for the length of the block; at its end close the connection, and roll back what was not committed.

    The session has the same settings whatever the server, the role and the environment have set (SESSION_SETTINGS).

    Args:
        dsn: A libpq URL, such as postgresql://user@host:port/database, or a libpq string of keywords and values.

    Raises:
        UnusableDatabase: The `dsn` is malformed, or the database can't store every text, or runs no triggers.
        DatabaseUnavailable: No server answers, or the connection fails while the block uses it.
    """
    with named_database_errors():
        connection = _open(dsn)
        try:
            _begin(connection)
            yield connection
        finally:
            connection.close()


def _open(dsn: str) -> Connection:
    try:
        return psycopg2.connect(dsn, application_name="dedp", client_encoding="UTF8")
    except psycopg2.ProgrammingError as error:
        # The message does not quote the DSN, which may have a password in it.
        raise UnusableDatabase(
            f"DEDP_POSTGRES_DSN is malformed: {str(error).strip()}; expected postgresql://user@host:port/database"
        ) from None


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
    """Connections to the project's database. `dsn` overrides the environment, for tests."""

    dsn: str | None = None

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection as `connect` makes it."""
        with connect(self.dsn or database_dsn()) as connection:
            yield connection
