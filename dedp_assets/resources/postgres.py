"""Connections to PostgreSQL, each with the session settings that our SQL depends on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import psycopg2
from psycopg2 import errors
from psycopg2.extensions import connection as Connection

from dedp_assets.errors import PermanentError, TransientError

# Settings that our SQL depends on. A server, a database or a role may have other defaults; all other settings stay.
SESSION_SETTINGS = {
    # Our SQL writes every name with its schema. Tables and functions of others must not be found instead.
    "search_path": "",
    # Two runs of a load take turns: the second waits for the row lock of the first, and then sees what it committed.
    "default_transaction_isolation": "read committed",
    # A load takes as long as its file is big, and may wait as long for the load before it.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # Duplicates are found by the error of the primary key, which must not end the session.
    "exit_on_error": "off",
    "standard_conforming_strings": "on",
    "default_table_access_method": "heap",
}

# One query asks what the database is like, and sets the settings; an older server may not know all of them.
# synchronous_commit is changed only if it is off: a commit has to be on the disk, and a stronger promise stays.
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
    connection.autocommit = True  # a setting made in a transaction would be undone by a rollback
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, [list(SESSION_SETTINGS), list(SESSION_SETTINGS.values())])
        database, encoding, replication_role, *_ = cursor.fetchone()  # type: ignore[misc]
    connection.autocommit = False
    if encoding != "UTF8":
        raise UnusableDatabase(
            f"database {database} has the encoding {encoding}, which can't store every name; expected UTF8: "
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
