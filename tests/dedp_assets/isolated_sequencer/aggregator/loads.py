"""Rows to load, and what is in the tables of the devices: for the tests beside this file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

HEADER = b"type;full_name;version\n"
LOAD = "20240101"
OTHER = "20240102"


def some_rows(count: int, start: int = 0) -> list[str]:
    return [f"type {n % 7};device {n};{n % 3}" for n in range(start, start + count)]


@contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    connection = psycopg2.connect(dsn)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def locked(dsn: str, table: str) -> Iterator[Connection]:
    """Keep every other connection from `table`, until the block ends or the connection given is rolled back."""
    with connected(dsn) as connection:
        connection.cursor().execute(f"LOCK TABLE {table}")
        yield connection


def execute(connection: Connection, statement: str, *parameters: object) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


def query(connection: Connection, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall()


def everything(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All that readers can see, but for the time of loading."""
    tables = {
        "raw": "SELECT * FROM dedp.devices_raw",
        "quarantine": "SELECT load_id, line_number, reason, detail, line, raw_line::text FROM dedp.devices_quarantine",
        "ledger": "SELECT load_id, sha256, lines_read, rows_loaded, rows_quarantined FROM dedp.devices_loads",
        "totals": "SELECT * FROM dedp.devices_aggregates",
    }
    return {name: sorted(query(connection, statement)) for name, statement in tables.items()}


def row_versions(connection: Connection) -> dict[str, tuple[Any, ...]]:
    """Which transaction wrote each row, and where it lies."""
    statement = "SELECT concat_ws(';', type, full_name, version), xmin::text, ctid::text FROM dedp.devices_raw"
    return {row: tuple(version) for row, *version in query(connection, statement)}
