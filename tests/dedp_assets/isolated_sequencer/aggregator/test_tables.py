"""The tables are made once, whoever asks first, and never over somebody else's."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from dedp_assets.isolated_sequencer.aggregator.tables import WrongTables, ensure_tables
from tests.dedp_assets.isolated_sequencer.aggregator.loads import execute, query
from tests.dedp_assets.isolated_sequencer.fixture_types import WaitUntil, WriteDevices

EARLIER = Path(__file__).with_name("earlier") / "schema_of_version_1.sql"

# All that schema.sql made, by name.
SHAPE = """
    SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull::text,
        pg_get_expr(adbin, adrelid)
    FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
    WHERE attrelid::regclass::text LIKE 'dedp.%' AND attnum > 0
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), NULL, NULL
    FROM pg_constraint WHERE connamespace::regnamespace::text LIKE 'dedp%'
    UNION ALL
    SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid), NULL, NULL, NULL
    FROM pg_index WHERE indrelid::regclass::text LIKE 'dedp.%'
    UNION ALL
    SELECT 'function', oid::regprocedure::text, pg_get_functiondef(oid), NULL, NULL, NULL
    FROM pg_proc WHERE pronamespace::regnamespace::text LIKE 'dedp%'
    UNION ALL
    SELECT 'trigger', tgname, pg_get_triggerdef(oid), NULL, NULL, NULL
    FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'dedp.%'
    UNION ALL
    SELECT 'view', pg_get_viewdef('dedp.devices_aggregates'), NULL, NULL, NULL, NULL
    ORDER BY 1, 2, 3
"""

OBJECTS = """
    SELECT c.oid, n.nspname, c.relname, c.relfilenode FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
    WHERE nspname IN ('dedp', 'dedp_loads') ORDER BY 1
"""


@pytest.fixture
def empty_database(empty_dsn: str) -> Iterator[Connection]:
    connection = psycopg2.connect(empty_dsn)
    yield connection
    connection.close()


def test_a_new_database_can_be_loaded_and_folded_at_once(empty_database: Connection, devices_csv: WriteDevices) -> None:
    ensure_tables(empty_database)
    load_file(empty_database, "20240101", devices_csv(["phone;Nova;1", "{........"]))
    fold(empty_database, "20240101")
    assert query(empty_database, "TABLE dedp.devices_aggregates") == [("phone", "Nova", "1", 1)]


def test_tables_that_are_there_stay_as_they_are(empty_database: Connection, devices_csv: WriteDevices) -> None:
    ensure_tables(empty_database)
    load_file(empty_database, "20240101", devices_csv(["phone;Nova;1"]))
    before = query(empty_database, OBJECTS)
    ensure_tables(empty_database)
    assert query(empty_database, OBJECTS) == before
    assert query(empty_database, "SELECT count(*) FROM dedp.devices_raw") == [(1,)]


def test_eight_at_once_make_one_set_of_tables(empty_dsn: str, empty_database: Connection) -> None:
    start = threading.Barrier(8)

    def ensure() -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(empty_dsn)
        start.wait()
        ensure_tables(connection)
        found = query(connection, OBJECTS)
        connection.close()
        return found

    with ThreadPoolExecutor(8) as pool:
        found = [making.result() for making in [pool.submit(ensure) for _ in range(8)]]
    assert found == [query(empty_database, OBJECTS)] * 8


def test_a_second_one_waits_for_the_first_and_makes_nothing(
    empty_dsn: str, empty_database: Connection, wait_until: WaitUntil
) -> None:
    execute(empty_database, "SELECT 1")
    first, second = psycopg2.connect(empty_dsn), psycopg2.connect(empty_dsn, application_name="second")
    # What the first one holds while it makes the tables.
    first.cursor().execute("SELECT pg_advisory_xact_lock(hashtext('dedp tables, version 1'))")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ensure_tables, second)
        wait_until(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = %s AND application_name = 'second' AND wait_event_type = 'Lock'",
            first.info.dbname,
        )
        ensure_tables(first)
        waiting.result()
    first.close()
    second.close()
    assert query(empty_database, "SELECT to_regclass('dedp.devices_raw') IS NOT NULL") == [(True,)]


def test_a_foreign_table_of_the_same_name_is_left_alone_and_named(empty_database: Connection) -> None:
    execute(empty_database, "CREATE SCHEMA dedp; CREATE TABLE dedp.devices_raw (mine text)")
    before = query(empty_database, OBJECTS)
    with pytest.raises(WrongTables, match=r"a table dedp\.devices_raw, and no record in .*DEDP_POSTGRES_DSN"):
        ensure_tables(empty_database)
    assert query(empty_database, OBJECTS) == before


def test_a_schema_of_the_same_name_without_our_tables_is_shared(empty_database: Connection) -> None:
    execute(empty_database, "CREATE SCHEMA dedp; CREATE TABLE dedp.mine (mine text)")
    ensure_tables(empty_database)
    assert query(empty_database, "SELECT count(*) FROM dedp.mine, dedp.devices_aggregates") == [(0,)]


def test_a_failure_half_way_leaves_nothing_behind(empty_database: Connection) -> None:
    execute(empty_database, "CREATE SCHEMA dedp; CREATE TABLE dedp.devices_folded (mine text)")
    before = query(empty_database, OBJECTS)
    with pytest.raises(WrongTables, match=r'refuses 0001_devices_tables\.sql .* "devices_folded" already exists'):
        ensure_tables(empty_database)
    assert query(empty_database, OBJECTS) == before
    execute(empty_database, "DROP TABLE dedp.devices_folded")
    ensure_tables(empty_database)
    assert query(empty_database, "TABLE dedp.devices_aggregates") == []


def make_earlier(connection: Connection) -> None:
    """The tables as the version before there were migrations made them."""
    execute(connection, EARLIER.read_text(encoding="utf-8"))
    execute(connection, "COMMENT ON SCHEMA dedp IS 'dedp tables, version 1'")


def test_tables_of_the_version_before_migrations_are_taken_over_with_all_that_is_in_them(
    empty_database: Connection, devices_csv: WriteDevices
) -> None:
    make_earlier(empty_database)
    load_file(empty_database, "20240101", devices_csv(["phone;Nova;1", "tv;Lux;1", "{........"]))
    fold(empty_database, "20240101")
    load_file(empty_database, "20240102", devices_csv(["phone;Nova;1"]))
    before, shape = query(empty_database, OBJECTS), query(empty_database, SHAPE)

    ensure_tables(empty_database)
    record = "SELECT pipeline, number, name FROM dedp.schema_migrations"
    assert query(empty_database, record) == [("isolated_sequencer", 1, "devices_tables")]
    assert set(before) < set(query(empty_database, OBJECTS))
    assert [row for row in query(empty_database, SHAPE) if "schema_migrations" not in str(row)] == shape
    totals = "SELECT * FROM dedp.devices_aggregates ORDER BY 1, 2, 3"
    assert query(empty_database, totals) == [("phone", "Nova", "1", 2), ("tv", "Lux", "1", 1)]

    load_file(empty_database, "20240101", devices_csv(["phone;Nova;1", "phone;Nova;2"]))
    fold(empty_database, "20240101")
    assert query(empty_database, totals) == [("phone", "Nova", "1", 2), ("phone", "Nova", "2", 1)]


def test_the_first_migration_makes_what_the_version_before_migrations_made(empty_database: Connection) -> None:
    make_earlier(empty_database)
    earlier = query(empty_database, SHAPE)
    assert len(earlier) > 50
    execute(empty_database, "DROP SCHEMA dedp CASCADE; DROP SCHEMA dedp_loads")
    ensure_tables(empty_database)
    assert [row for row in query(empty_database, SHAPE) if "schema_migrations" not in str(row)] == earlier


def test_a_database_that_is_up_to_date_is_asked_one_query(dsn: str, database: Connection) -> None:
    asked: list[object] = []

    class Noting(psycopg2.extensions.cursor):
        def execute(self, query: str | bytes | sql.Composable, vars: Any = None) -> None:
            asked.append(query)
            super().execute(query, vars)

    connection = psycopg2.connect(dsn, cursor_factory=Noting)
    ensure_tables(connection)
    connection.close()
    assert len(asked) == 1


def test_a_role_that_may_make_nothing_is_named_with_what_was_refused(
    empty_dsn: str, empty_database: Connection
) -> None:
    execute(
        empty_database,
        "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN; REVOKE CREATE ON SCHEMA public FROM reader",
    )
    connection = psycopg2.connect(empty_dsn.replace("postgres:@", "reader:@"))
    with pytest.raises(
        WrongTables, match=r"refuses dedp\.schema_migrations of .* to the role reader: permission denied"
    ):
        ensure_tables(connection)
    connection.close()
    execute(empty_database, "DROP ROLE reader")


def test_the_columns_are_as_long_as_the_table_has_them(database: Connection) -> None:
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, character_maximum_length FROM information_schema.columns "
            "WHERE table_schema = 'dedp' AND table_name = 'devices_raw' AND column_name <> 'load_id' "
            "ORDER BY ordinal_position"
        )
        assert cursor.fetchall() == [(column.name, column.max_length) for column in contract.DEVICES_FORMAT.columns]
