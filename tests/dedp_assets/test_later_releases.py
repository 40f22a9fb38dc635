"""A release that meets a database which a later one has migrated does not start on it: it says so, and changes nothing.

What a later release would have left there is written as it would: a record of a migration, a revision of Dagster's.
"""

from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from dedp_assets import local_stack
from dedp_assets.later_releases import check_is_not_newer
from dedp_assets.migrations import WrongTables, migrate
from tests.dagster_in_postgres import dagster_in_postgres
from tests.dedp_command import run_dedp

OURS = "INSERT INTO dedp.schema_migrations VALUES ('isolated_sequencer', 9999, 'of_tomorrow', repeat('0', 64))"
DAGSTERS = "UPDATE dagster.alembic_version SET version_num = 'ffffffffffff'"
WHAT_TO_DO = "restore the backup that was made before the upgrade"


@pytest.fixture
def migrated(dsn: str) -> str:
    """The database of a system, with our tables, and what Dagster records of its own."""
    do(dsn, "CREATE SCHEMA dagster")
    do(dsn, "CREATE TABLE dagster.alembic_version AS SELECT '7e2f3204cf8e'::varchar(32) AS version_num")
    return dsn


def do(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)


def check(dsn: str) -> None:
    check_is_not_newer(dsn, local_stack.in_dagster_schema(dsn))


def test_a_database_of_this_release_or_of_an_earlier_one_is_taken(empty_dsn: str, migrated: str) -> None:
    check(empty_dsn)
    check(migrated)
    do(migrated, "DELETE FROM dedp.schema_migrations")
    check(migrated)


@pytest.mark.parametrize(
    ("later", "found"),
    [
        (OURS, r"has 9999_of_tomorrow\.sql of isolated_sequencer, and the last one .* is \d{4}_\w+\.sql"),
        (DAGSTERS, r"they have the revision ffffffffffff, which Dagster \d"),
    ],
    ids=["ours", "Dagster's"],
)
def test_tables_that_a_later_release_has_migrated_are_refused_with_what_was_found_and_what_to_do(
    migrated: str, later: str, found: str
) -> None:
    do(migrated, later)
    with pytest.raises(WrongTables, match=f"{found}.*Nothing was changed.*{WHAT_TO_DO}"):
        check(migrated)


def test_while_our_database_is_away_the_system_starts_all_the_same(migrated: str) -> None:
    check_is_not_newer("postgresql://127.0.0.1:1/away", local_stack.in_dagster_schema(migrated))


def test_the_migrations_of_somebody_elses_pipeline_are_no_sign_of_a_later_release(
    migrated: str, tmp_path: Path
) -> None:
    (tmp_path / "0001_parcels.sql").write_text("CREATE TABLE dedp.parcels ()")
    with closing(psycopg2.connect(migrated)) as connection:
        migrate(connection, "parcels", tmp_path)
    check(migrated)


@pytest.mark.parametrize("later", [OURS, DAGSTERS], ids=["ours", "Dagster's"])
def test_the_system_does_not_start_on_such_tables(
    migrated: str, later: str, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", migrated)
    monkeypatch.setenv("DEDP_SPARK_REMOTE", "sc://localhost:1")
    do(migrated, later)
    with pytest.raises(WrongTables, match=WHAT_TO_DO), local_stack.running(local_stack.free_port()):
        pytest.fail("it has started")
    assert not (own_home / "logs").exists()


@pytest.mark.parametrize(
    "command", ["exec dagster instance migrate", pytest.param("purge --older-than 90d", marks=pytest.mark.slow)]
)
def test_no_command_changes_such_tables(migrated: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is what `docker compose up` runs before any other service starts."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", migrated)
    do(migrated, OURS)
    done = run_dedp(*command.split())
    assert done.returncode == 1
    assert done.stderr.startswith("Error: a later release has migrated this database: it has 9999_of_tomorrow.sql")
    assert (done.stderr.count("\n"), done.stdout) == (1, "")


@pytest.mark.slow
def test_the_tables_that_the_installed_dagster_makes_are_known(dsn: str, tmp_path: Path) -> None:
    with dagster_in_postgres(dsn, tmp_path):
        check(dsn)
    do(dsn, DAGSTERS)
    with pytest.raises(WrongTables, match="ffffffffffff"):
        check(dsn)
