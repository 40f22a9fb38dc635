"""Each migration is applied once, in order, whole or not at all, whoever asks first; tables of others stay."""

import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from dedp_assets.migrations import Applied, Migration, WrongTables, migrate, migrations_in, pending

FIRST = "CREATE TABLE dedp.parcels (id int);"
SECOND = "ALTER TABLE dedp.parcels ADD COLUMN weight int DEFAULT 1; INSERT INTO dedp.parcels (id) VALUES (1);"
THIRD = "INSERT INTO dedp.parcels (id) SELECT max(id) + 1 FROM dedp.parcels;"


@pytest.fixture
def empty_database(empty_dsn: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(empty_dsn)) as connection:
        yield connection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The migrations of a small pipeline."""
    (tmp_path / "parcels").mkdir()
    (tmp_path / "parcels" / "0001_parcels.sql").write_text(FIRST)
    (tmp_path / "parcels" / "0002_weights.sql").write_text(SECOND)
    return tmp_path / "parcels"


def query(connection: Connection, statement: str) -> list[tuple[Any, ...]]:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def recorded(connection: Connection) -> list[tuple[Any, ...]]:
    return query(connection, "SELECT pipeline, number, name FROM dedp.schema_migrations ORDER BY pipeline, number")


def parcels(connection: Connection) -> list[tuple[Any, ...]]:
    return query(connection, "SELECT * FROM dedp.parcels ORDER BY id")


def test_migrations_are_applied_in_order_and_recorded(empty_database: Connection, folder: Path) -> None:
    assert migrate(empty_database, "parcels", folder) == ["0001_parcels.sql", "0002_weights.sql"]
    assert parcels(empty_database) == [(1, 1)]
    assert recorded(empty_database) == [("parcels", 1, "parcels"), ("parcels", 2, "weights")]
    assert query(empty_database, "SELECT sha256 FROM dedp.schema_migrations ORDER BY number") == [
        (migration.sha256,) for migration in migrations_in(folder)
    ]


def test_what_is_applied_is_not_applied_again_and_what_is_new_is(empty_database: Connection, folder: Path) -> None:
    migrate(empty_database, "parcels", folder)
    assert migrate(empty_database, "parcels", folder) == []
    (folder / "0003_another.sql").write_text(THIRD)
    assert migrate(empty_database, "parcels", folder) == ["0003_another.sql"]
    assert migrate(empty_database, "parcels", folder) == []
    assert parcels(empty_database) == [(1, 1), (2, 1)]


def test_a_second_pipeline_lives_in_the_same_schema_beside_the_first(
    dsn: str, database: Connection, folder: Path
) -> None:
    assert migrate(database, "parcels", folder) == ["0001_parcels.sql", "0002_weights.sql"]
    ensure_tables(database)
    assert recorded(database) == [
        ("isolated_sequencer", 1, "devices_tables"),
        ("parcels", 1, "parcels"),
        ("parcels", 2, "weights"),
    ]


def test_a_pipeline_that_comes_first_leaves_the_others_tables_to_be_made(
    empty_database: Connection, folder: Path
) -> None:
    migrate(empty_database, "parcels", folder)
    ensure_tables(empty_database)
    assert query(empty_database, "SELECT count(*) FROM dedp.devices_aggregates, dedp.parcels") == [(0,)]


def test_a_migration_that_fails_is_named_and_leaves_those_before_it(empty_database: Connection, folder: Path) -> None:
    (folder / "0002_weights.sql").write_text("CREATE TABLE dedp.weights (id int); SELECT 1 FROM dedp.nowhere;")
    with pytest.raises(WrongTables) as raised:
        migrate(empty_database, "parcels", folder)
    assert "refuses 0002_weights.sql of parcels" in str(raised.value)
    assert 'relation "dedp.nowhere" does not exist' in str(raised.value)
    assert recorded(empty_database) == [("parcels", 1, "parcels")]
    assert query(empty_database, "SELECT to_regclass('dedp.weights')") == [(None,)]
    (folder / "0002_weights.sql").write_text(SECOND)
    assert migrate(empty_database, "parcels", folder) == ["0002_weights.sql"]


def test_a_database_that_is_newer_is_refused_and_left_as_it_is(empty_database: Connection, folder: Path) -> None:
    (folder / "0003_another.sql").write_text(THIRD)
    migrate(empty_database, "parcels", folder)
    (folder / "0003_another.sql").unlink()
    with pytest.raises(WrongTables) as raised:
        migrate(empty_database, "parcels", folder)
    assert str(raised.value) == (
        "the database is newer than this version: it has the migration 0003_another.sql of parcels, and the last one "
        "here is 0002_weights.sql; update this installation, restore the backup from before the upgrade "
        "(docs/operations.md), or point DEDP_POSTGRES_DSN elsewhere"
    )


@pytest.mark.parametrize("later", [False, True], ids=["nothing new", "with a new one"])
@pytest.mark.parametrize("change", ["text", "name"])
def test_a_database_with_another_text_of_a_migration_is_refused(
    empty_database: Connection, folder: Path, change: str, later: bool
) -> None:
    migrate(empty_database, "parcels", folder)
    if change == "text":
        (folder / "0001_parcels.sql").write_text(FIRST + "\n-- changed")
    else:
        (folder / "0001_parcels.sql").rename(folder / "0001_packets.sql")
    if later:
        (folder / "0003_another.sql").write_text(THIRD)
    with pytest.raises(WrongTables, match=r"has another migration 0001 of parcels .* put the file back as it was"):
        migrate(empty_database, "parcels", folder)
    assert parcels(empty_database) == [(1, 1)]


def test_a_checkout_with_other_line_ends_is_the_same_migration(empty_database: Connection, folder: Path) -> None:
    (folder / "0001_parcels.sql").write_bytes(f"-- parcels\n{FIRST}\n".encode())
    migrate(empty_database, "parcels", folder)
    (folder / "0001_parcels.sql").write_bytes(f"-- parcels\r\n{FIRST}\r\n".encode())
    assert migrate(empty_database, "parcels", folder) == []


def test_a_record_that_is_somebody_elses_is_left_alone_and_named(empty_database: Connection, folder: Path) -> None:
    with empty_database, empty_database.cursor() as cursor:
        cursor.execute("CREATE SCHEMA dedp; CREATE TABLE dedp.schema_migrations (version text)")
    with pytest.raises(WrongTables, match=r"has a table dedp\.schema_migrations that is not ours .*DEDP_POSTGRES_DSN"):
        migrate(empty_database, "parcels", folder)


def test_what_was_made_before_there_were_migrations_is_recorded_and_not_run(
    empty_database: Connection, folder: Path
) -> None:
    with empty_database, empty_database.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA dedp; {FIRST}")
    assert migrate(empty_database, "parcels", folder, made_before=lambda cursor: 1) == ["0002_weights.sql"]
    assert recorded(empty_database) == [("parcels", 1, "parcels"), ("parcels", 2, "weights")]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["0001_a.sql", "0003_b.sql"], "expected each number from 0001 on once"),
        (["0001_a.sql", "0001_b.sql"], "expected each number from 0001 on once"),
        (["0000_a.sql", "0001_b.sql"], "expected each number from 0001 on once"),
        (["1_a.sql"], "is not the name of a migration"),
        (["0001_A.sql"], "is not the name of a migration"),
        (["README.md"], "has no migrations"),
    ],
)
def test_a_folder_that_is_not_numbered_one_two_three_is_refused(tmp_path: Path, names: list[str], problem: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(ValueError, match=problem) as raised:
        migrations_in(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_a_record_with_a_hole_is_refused() -> None:
    known = [Migration(number, "x", "SELECT 1") for number in (1, 2, 3)]
    there = Applied("x", known[0].sha256)
    assert pending("parcels", known, {1: there}) == known[1:]
    for applied in ({2: there}, {1: there, 3: there}):
        with pytest.raises(WrongTables, match="was it changed by hand"):
            pending("parcels", known, applied)


# --- several processes


def _migrate_in_child(
    dsn: str, folder: Path, start: Barrier | None = None, results: "SimpleQueue[list[str]] | None" = None
) -> None:
    connection = psycopg2.connect(dsn, application_name="child")
    if start is not None:
        start.wait()
    done = migrate(connection, "parcels", folder)
    if results is not None:
        results.put(done)


def test_of_many_processes_at_once_each_migration_is_applied_by_one(
    empty_dsn: str, empty_database: Connection, folder: Path
) -> None:
    for number in range(3, 9):
        (folder / f"{number:04}_another.sql").write_text(f"SELECT pg_sleep(0.01); {THIRD}")
    forking = multiprocessing.get_context("fork")
    start, results = forking.Barrier(6), forking.SimpleQueue()
    processes = [forking.Process(target=_migrate_in_child, args=(empty_dsn, folder, start, results)) for _ in range(6)]
    for process in processes:
        process.start()
    done = [results.get() for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(name for names in done for name in names) == [each.file_name for each in migrations_in(folder)]
    assert parcels(empty_database) == [(number, 1) for number in range(1, 8)]


def test_a_process_killed_in_a_migration_leaves_those_before_it_and_the_rest_can_be_applied(
    empty_dsn: str, empty_database: Connection, folder: Path
) -> None:
    gate = psycopg2.connect(empty_dsn)
    gate.cursor().execute("SELECT pg_advisory_xact_lock(7)")
    (folder / "0003_another.sql").write_text(f"{THIRD} SELECT pg_advisory_xact_lock(7);")
    process = multiprocessing.get_context("fork").Process(target=_migrate_in_child, args=(empty_dsn, folder))
    process.start()
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'child' "
        "AND wait_event_type = 'Lock'"
    )
    while query(empty_database, waiting) == [(0,)]:
        assert process.is_alive()
    process.kill()
    process.join()
    gate.close()
    assert migrate(empty_database, "parcels", folder) == ["0003_another.sql"]
    assert parcels(empty_database) == [(1, 1), (2, 1)]
