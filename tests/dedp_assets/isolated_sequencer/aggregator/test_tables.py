"""The tables are made once, whoever asks first, and never over somebody else's."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest

from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from dedp_assets.isolated_sequencer.aggregator.tables import WrongTables, ensure_tables

OBJECTS = """
    SELECT c.oid, n.nspname, c.relname, c.relfilenode FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
    WHERE nspname IN ('dedp', 'dedp_loads') ORDER BY 1
"""


@pytest.fixture
def empty_database(empty_dsn):
    connection = psycopg2.connect(empty_dsn)
    yield connection
    connection.close()


def query(connection, statement: str) -> list[tuple]:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def execute(connection, statement: str) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_new_database_can_be_loaded_and_folded_at_once(empty_database, devices_csv):
    ensure_tables(empty_database)
    load_file(empty_database, "20240101", devices_csv(["phone;Nova;1", "{........"]))
    fold(empty_database, "20240101")
    assert query(empty_database, "TABLE dedp.devices_aggregates") == [("phone", "Nova", "1", 1)]


def test_tables_that_are_there_stay_as_they_are(empty_database, devices_csv):
    ensure_tables(empty_database)
    load_file(empty_database, "20240101", devices_csv(["phone;Nova;1"]))
    before = query(empty_database, OBJECTS)
    ensure_tables(empty_database)
    assert query(empty_database, OBJECTS) == before
    assert query(empty_database, "SELECT count(*) FROM dedp.devices_raw") == [(1,)]


def test_eight_at_once_make_one_set_of_tables(empty_dsn, empty_database):
    start = threading.Barrier(8)

    def ensure() -> list[tuple]:
        connection = psycopg2.connect(empty_dsn)
        start.wait()
        ensure_tables(connection)
        found = query(connection, OBJECTS)
        connection.close()
        return found

    with ThreadPoolExecutor(8) as pool:
        found = [making.result() for making in [pool.submit(ensure) for _ in range(8)]]
    assert found == [query(empty_database, OBJECTS)] * 8


def test_a_second_one_waits_for_the_first_and_makes_nothing(empty_dsn, empty_database, wait_until):
    execute(empty_database, "SELECT 1")
    first, second = psycopg2.connect(empty_dsn), psycopg2.connect(empty_dsn, application_name="second")
    # What the first one holds while it makes the tables.
    first.cursor().execute("SELECT pg_advisory_xact_lock(hashtext('dedp tables, version 1'))")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ensure_tables, second)
        wait_until(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'second' AND wait_event_type = 'Lock'"
        )
        ensure_tables(first)
        waiting.result()
    first.close()
    second.close()
    assert query(empty_database, "SELECT to_regclass('dedp.devices_raw') IS NOT NULL") == [(True,)]


def test_a_foreign_table_of_the_same_name_is_left_alone_and_named(empty_database):
    execute(empty_database, "CREATE SCHEMA dedp; CREATE TABLE dedp.devices_raw (mine text)")
    before = query(empty_database, OBJECTS)
    with pytest.raises(
        WrongTables, match=r"dedp\.devices_raw that is not of 'dedp tables, version 1'.*DEDP_POSTGRES_DSN"
    ):
        ensure_tables(empty_database)
    assert query(empty_database, OBJECTS) == before


def test_a_schema_of_the_same_name_without_our_tables_is_shared(empty_database):
    execute(empty_database, "CREATE SCHEMA dedp; CREATE TABLE dedp.mine (mine text)")
    ensure_tables(empty_database)
    assert query(empty_database, "SELECT count(*) FROM dedp.mine, dedp.devices_aggregates") == [(0,)]


def test_a_failure_half_way_leaves_nothing_behind(empty_database):
    execute(empty_database, "CREATE SCHEMA dedp; CREATE TABLE dedp.devices_folded (mine text)")
    before = query(empty_database, OBJECTS)
    with pytest.raises(psycopg2.errors.DuplicateTable):
        ensure_tables(empty_database)
    assert query(empty_database, OBJECTS) == before
    execute(empty_database, "DROP TABLE dedp.devices_folded")
    ensure_tables(empty_database)
    assert query(empty_database, "TABLE dedp.devices_aggregates") == []
