"""Files to load, and assertions that hold for the tables at any moment."""

import time
from collections.abc import Iterable
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from tests.dedp_assets.isolated_sequencer.fixture_types import (
    AssertExact,
    QuarantinedLine,
    QuarantineOf,
    RowsOf,
    WaitUntil,
    WriteDevices,
)

# Counts the rows themselves. It uses neither the view nor the tables that folding keeps.
_RECOUNT = "SELECT type, full_name, version, count(*) FROM dedp.devices_raw GROUP BY type, full_name, version"

_OPEN_ACCOUNTS = """
    SELECT load_id, lines_read, rows_loaded, rows_quarantined, present, set_aside
    FROM dedp.devices_loads
    CROSS JOIN LATERAL (
        SELECT count(*) FROM dedp.devices_raw AS r WHERE r.load_id = devices_loads.load_id
    ) AS a(present)
    CROSS JOIN LATERAL (
        SELECT count(*) FROM dedp.devices_quarantine AS q WHERE q.load_id = devices_loads.load_id
    ) AS b(set_aside)
    WHERE (present, set_aside) <> (rows_loaded, rows_quarantined) OR lines_read <> present + set_aside
"""


@pytest.fixture
def devices_csv(tmp_path: Path) -> WriteDevices:

    def write(content: bytes | Iterable[str], name: str = "dataset.csv") -> Path:
        path = tmp_path / name
        if not isinstance(content, bytes):
            content = "\n".join(["type;full_name;version", *content, ""]).encode()
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def assert_exact(dsn: str) -> AssertExact:

    def check(accounts: bool = True) -> None:
        connection = psycopg2.connect(dsn)
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection, connection.cursor() as cursor:
            cursor.execute("TABLE dedp.devices_aggregates")
            totals = sorted(cursor.fetchall())
            cursor.execute(_RECOUNT)
            assert totals == sorted(cursor.fetchall())
            if accounts:
                cursor.execute(_OPEN_ACCOUNTS)
                assert cursor.fetchall() == []
        connection.close()

    return check


@pytest.fixture
def wait_until(database: Connection) -> WaitUntil:

    def wait(query: str, *parameters: object, seconds: float = 60) -> int:
        deadline = time.monotonic() + seconds
        while True:
            with database, database.cursor() as cursor:
                cursor.execute(query, parameters or None)
                row = cursor.fetchone()
            if row and row[0]:
                return int(row[0])
            assert time.monotonic() < deadline, f"still not true: {query} {parameters}"
            time.sleep(0.01)

    return wait


@pytest.fixture
def rows_of(database: Connection) -> RowsOf:
    """A function that gives the rows of a load as sorted lines."""

    def read(load_id: str) -> list[str]:
        with database, database.cursor() as cursor:
            cursor.execute(
                "SELECT concat_ws(';', type, full_name, version) FROM dedp.devices_raw WHERE load_id = %s", [load_id]
            )
            return sorted(row for (row,) in cursor.fetchall())

    return read


@pytest.fixture
def quarantine_of(database: Connection) -> QuarantineOf:
    """A function that gives the quarantined lines of a load, in the order of the file."""

    def read(load_id: str) -> list[QuarantinedLine]:
        with database, database.cursor() as cursor:
            cursor.execute(
                "SELECT line_number, reason, detail, line, raw_line FROM dedp.devices_quarantine "
                "WHERE load_id = %s ORDER BY line_number",
                [load_id],
            )
            return [(*columns, bytes(raw)) for *columns, raw in cursor.fetchall()]

    return read
