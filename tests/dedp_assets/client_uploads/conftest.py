"""Tables of client uploads with rows that a test chooses."""

from collections.abc import Callable, Iterator
from typing import Protocol

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.client_uploads import ledger


class AddFile(Protocol):
    """Writes a file into the ledger. `minutes_ago`: when it was dealt with."""

    def __call__(
        self,
        client: str = "north",
        file: str = "orders.csv",
        *,
        state: str = "loaded",
        reason: str = "",
        waited_seconds: float = 1.0,
        lines: int = 0,
        quarantined: int = 0,
        minutes_ago: float = 0.0,
    ) -> None: ...


class AddDirectory(Protocol):
    """Writes what the last tick found in a directory."""

    def __call__(
        self, client: str = "north", state: str = "healthy", *, problem: str = "", failures: int = 0, waiting: int = 0
    ) -> None: ...


@pytest.fixture
def tables(dsn: str) -> Iterator[Connection]:
    """A connection to a database of the test's own, with the tables of client uploads."""
    connection = psycopg2.connect(dsn)
    ledger.ensure_tables(connection)
    yield connection
    connection.close()


@pytest.fixture
def add_file(tables: Connection) -> AddFile:
    def add(
        client: str = "north",
        file: str = "orders.csv",
        *,
        state: str = "loaded",
        reason: str = "",
        waited_seconds: float = 1.0,
        lines: int = 0,
        quarantined: int = 0,
        minutes_ago: float = 0.0,
    ) -> None:
        with tables, tables.cursor() as cursor:
            cursor.execute(
                "INSERT INTO dedp.upload_files VALUES (%s, %s, '1:1:1:1', true, '/clients/' || %s, '*.csv', 1, now(), "
                "now(), %s, repeat('0', 64), %s, %s, %s, %s, %s, 'file', 'run', now() - %s * interval '1 minute')",
                [
                    *(client, file, client, waited_seconds, state, reason),
                    *(lines, lines - quarantined, quarantined, minutes_ago),
                ],
            )

    return add


@pytest.fixture
def add_directory(tables: Connection) -> AddDirectory:
    def add(
        client: str = "north", state: str = "healthy", *, problem: str = "", failures: int = 0, waiting: int = 0
    ) -> None:
        with tables, tables.cursor() as cursor:
            cursor.execute(
                "INSERT INTO dedp.upload_directories VALUES (%s, '/clients/' || %s, %s, now(), %s, %s, %s)",
                [client, client, state, waiting, failures, problem],
            )

    return add


@pytest.fixture
def set_tick(tables: Connection) -> Callable[[], None]:
    """Writes a last tick: it took 20 ms over 5 directories, left 7 complete files, and 2 time-outs were reported."""

    def put() -> None:
        with tables, tables.cursor() as cursor:
            cursor.execute("INSERT INTO dedp.upload_ticks VALUES (1, now(), 0.02, 5, 7, 2)")

    return put
