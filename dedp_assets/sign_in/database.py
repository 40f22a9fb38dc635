"""The connections of the web server to the users' tables, and the making of these tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.migrations import migrate

if TYPE_CHECKING:
    import sqlalchemy as sa

_MIGRATIONS = Path(__file__).with_name("migrations")


def ensure_tables(connection: Connection) -> None:
    """Make the tables, unless the database has them. Raises WrongTables if they are not those of this version."""
    migrate(connection, "sign_in", _MIGRATIONS)


@contextmanager
def connected(dsn: str) -> Iterator[Cursor]:
    """For a command: a cursor in one transaction, to a database that has the tables."""
    connection = psycopg2.connect(dsn)
    try:
        ensure_tables(connection)
        with connection, connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


class Database:
    """For the web server: a few connections that it keeps. Each statement is a transaction of its own."""

    def __init__(self, dsn: str) -> None:
        """Connect, and make the tables unless they are there."""
        self._dsn = dsn
        self._engine = self._make_engine()
        connection = psycopg2.connect(dsn)
        try:
            ensure_tables(connection)
        finally:
            connection.close()

    def _make_engine(self) -> "sa.Engine":
        # Not at the top: commands use `connected`, and need not wait for it.
        import sqlalchemy as sa

        return sa.create_engine(
            "postgresql+psycopg2://",
            creator=lambda: psycopg2.connect(self._dsn),
            isolation_level="AUTOCOMMIT",
            pool_size=2,
            max_overflow=20,
            # A kept connection is tried before it is used: PostgreSQL may have been started anew since.
            pool_pre_ping=True,
        )

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """A cursor of one of the connections. Raises psycopg2.Error if the database does not answer."""
        connection = self._engine.raw_connection()
        try:
            with connection.cursor() as cursor:  # type: ignore[attr-defined]  # it is one of psycopg2
                yield cursor
        finally:
            connection.close()
