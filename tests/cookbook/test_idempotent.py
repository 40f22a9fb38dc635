"""Each way leaves the same rows after the second time."""

from collections.abc import Iterator

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.cookbook import idempotent

TABLES = """
CREATE TABLE sales (day date, shop text, amount integer);
CREATE TABLE customers (email text PRIMARY KEY, name text);
CREATE TABLE loads (day date PRIMARY KEY, source text);
"""
ROWS = [("lyon", 3), ("ghent", 4)]


@pytest.fixture
def connection(empty_dsn: str) -> Iterator[Connection]:
    connection = psycopg2.connect(empty_dsn)
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
    connection.commit()
    yield connection
    connection.close()


def rows(connection: Connection, query: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_a_day_that_is_overwritten_has_its_rows_once_and_other_days_stay(connection: Connection) -> None:
    for day, amounts in [("2024-01-01", ROWS), ("2024-01-02", ROWS), ("2024-01-02", ROWS[:1])]:
        with connection, connection.cursor() as cursor:
            idempotent.overwrite(cursor, day, amounts)
    found = rows(connection, "SELECT day::text, shop FROM sales ORDER BY day, shop")
    assert found == [("2024-01-01", "ghent"), ("2024-01-01", "lyon"), ("2024-01-02", "lyon")]


def test_an_upsert_says_whether_anything_has_changed(connection: Connection) -> None:
    said = []
    for name in ("Ada", "Ada", "Ada Lovelace"):
        with connection, connection.cursor() as cursor:
            said.append(idempotent.upsert(cursor, "ada@example.com", name))
    assert said == [True, False, True]
    assert rows(connection, "SELECT * FROM customers") == [("ada@example.com", "Ada Lovelace")]


def test_a_day_is_loaded_once_for_each_version_of_its_source(connection: Connection) -> None:
    said = []
    for source in ("first", "first", "second"):
        with connection, connection.cursor() as cursor:
            said.append(idempotent.load_once(cursor, "2024-01-01", source, ROWS))
    assert said == [True, False, True]
    assert rows(connection, "SELECT count(*) FROM sales") == [(2,)]


def test_a_load_that_fails_halfway_leaves_the_rows_that_were_there(connection: Connection) -> None:
    with connection, connection.cursor() as cursor:
        idempotent.load_once(cursor, "2024-01-01", "first", ROWS)
    with pytest.raises(psycopg2.Error), connection, connection.cursor() as cursor:
        idempotent.load_once(cursor, "2024-01-01", "second", [("lyon", 1), ("ghent", 10**12)])
    assert rows(connection, "SELECT sum(amount) FROM sales") == [(7,)]
    assert rows(connection, "SELECT source FROM loads") == [("first",)]
