"""What a backup and a restore refuse before they change anything, what a dump has, and that it holds up no load."""

import re
import shutil
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from dedp_assets.backup import backing_up, database, restoring
from dedp_assets.backup.archive import Manifest, drafting
from dedp_assets.backup.errors import BackupError
from dedp_assets.backup.places import Places
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from dedp_assets.later_releases import MIGRATIONS
from dedp_assets.migrations import migrate
from dedp_assets.observability.doctor import PACKAGE
from dedp_assets.resources import embedded_postgres
from dedp_assets.resources.postgres import UnusableDatabase
from dedp_assets.sign_in import sessions, users
from dedp_assets.sign_in.database import connected
from dedp_assets.sign_in.roles import Role
from tests.dedp_command import run_dedp


@pytest.fixture
def places(tmp_path: Path) -> Places:
    home = tmp_path / "restored"
    return Places(home, home / "internal", home / "landing", str(home / "lake"), home / "dagster" / "storage")


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    with drafting(tmp_path / "backup") as draft:
        draft.add("home/a", [b"content"], 0o644, 1)
        draft.finish(Manifest("2024-01-31T08:00:00+00:00", {"postgres": 180_000}, {}, ["dedp"], ["home", "lake"], 0))
    return tmp_path / "backup"


def never() -> NoReturn:
    raise AssertionError("the database is not to be opened")


@pytest.mark.parametrize("there", ["restored/file", "restored/lake/devices/file"])
def test_a_home_that_is_not_empty_is_refused_and_stays_as_it_is(
    tmp_path: Path, backup: Path, places: Places, there: str
) -> None:
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).write_text("mine")
    with pytest.raises(BackupError, match="is not empty"):
        restoring.restore(backup, places, never, places.home / "mark")
    assert [path for path in places.home.rglob("*") if path.is_file()] == [tmp_path / there]


def test_what_is_left_out_of_a_restore_need_not_be_empty_and_stays(
    tmp_path: Path, backup: Path, places: Places
) -> None:
    (tmp_path / "lake" / "devices").mkdir(parents=True)
    elsewhere = Places(places.home, places.internal, places.landing, str(tmp_path / "lake"), places.logs)

    class Reached(Exception):
        pass

    def reached() -> NoReturn:
        raise Reached

    with pytest.raises(Reached):
        restoring.restore(backup, elsewhere, reached, places.home / "mark", without=frozenset({"lake"}))


def test_a_lake_that_lies_elsewhere_and_is_not_empty_is_refused(tmp_path: Path, backup: Path, places: Places) -> None:
    (tmp_path / "lake" / "devices").mkdir(parents=True)
    elsewhere = Places(places.home, places.internal, places.landing, str(tmp_path / "lake"), places.logs)
    with pytest.raises(BackupError, match=r"the Delta tables \(DEDP_DATA_URI\).*is not empty"):
        restoring.restore(backup, elsewhere, never, places.home / "mark")
    assert not places.home.exists()


def test_a_damaged_file_is_named_and_nothing_is_written(backup: Path, places: Places) -> None:
    (backup / "home" / "a").write_bytes(b"damaged")
    with pytest.raises(BackupError, match=f"{backup}/home/a"):
        restoring.restore(backup, places, never, places.home / "mark")
    assert not places.home.exists()


def test_no_space_is_found_out_before(
    backup: Path, places: Places, tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=3))
    with pytest.raises(BackupError, match="3 bytes are free"):
        restoring.restore(backup, places, never, places.home / "mark")
    assert not places.home.exists()
    with pytest.raises(BackupError, match=r"3 bytes are free.*another disk"):
        backing_up.back_up(tmp_path / "other", places, dsn, dsn)
    assert not (tmp_path / "other").exists()


def test_a_disk_needs_room_for_what_comes_to_it_alone(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lake in an object store, and a database elsewhere, take no room in the home."""
    with drafting(tmp_path / "backup") as draft:
        draft.add("home/a", [b"small"], 0o644, 1)
        draft.add("lake/counts/data", [b"large" * 100], 0o644, 1)
        draft.finish(Manifest("2024-01-31T08:00:00+00:00", {}, {}, ["dedp"], ["home", "lake"], 10_000))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100))
    parts = {"home", "lake"}
    restoring._check_space(tmp_path / "backup", replace(places, lake="s3://bucket/lake"), parts, 10_000)
    restoring._check_space(tmp_path / "backup", places, {"home"}, 10_000)
    with pytest.raises(BackupError, match="may need 505 bytes, and 100 bytes are free"):
        restoring._check_space(tmp_path / "backup", places, parts, 10_000)
    own = replace(places, lake="s3://bucket/lake", database=places.home / "postgres")
    with pytest.raises(BackupError, match=r"may need 10\.0 kB"):
        restoring._check_space(tmp_path / "backup", own, parts, 10_000)


@pytest.mark.parametrize("place", ["home", "landing", "internal", "lake", "logs"])
def test_a_backup_is_not_written_into_what_it_is_of(tmp_path: Path, dsn: str, place: str) -> None:
    home, internal, landing, lake, logs = (tmp_path / name for name in ("home", "internal", "landing", "lake", "logs"))
    places = Places(home, internal, landing, str(lake), logs)
    with pytest.raises(BackupError, match=f"is in {tmp_path}/{place}, which is part of the system"):
        backing_up.back_up(tmp_path / place / "backups" / "monday", places, dsn, dsn)


def test_nothing_starts_on_a_home_whose_restore_was_not_completed(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_home / "restore-unfinished").touch()
    for command in (["psql", "-c", "SELECT 1"], ["up"], ["backup", f"{own_home}-backup"]):
        done = run_dedp(*command)
        assert done.returncode == 1
        assert "was not completed" in done.stderr or "there is no system" in done.stderr


def test_a_database_with_tables_is_refused(dsn: str) -> None:
    with pytest.raises(BackupError, match="is not empty: there are tables in the schema dedp"):
        database.check_fits(dsn, 140_000, ["dagster", "dedp"])


def test_an_older_server_is_refused(empty_dsn: str) -> None:
    with pytest.raises(BackupError, match="the backup is of PostgreSQL 99"):
        database.check_fits(empty_dsn, 990_001, ["dedp"])


def administer(dsn: str, *statements: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True  # CREATE DATABASE runs in no transaction
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def test_a_database_that_can_not_store_every_name_is_refused(empty_dsn: str) -> None:
    name = f"{parse_dsn(empty_dsn)['dbname']}_latin1"
    administer(empty_dsn, f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(UnusableDatabase, match="has the encoding LATIN1"):
            database.check_fits(make_dsn(empty_dsn, dbname=name), 140_000, ["dedp"])
    finally:
        administer(empty_dsn, f"DROP DATABASE {name}")


def test_a_role_that_may_not_make_the_tables_is_refused(empty_dsn: str) -> None:
    role = f"somebody_{parse_dsn(empty_dsn)['dbname']}"
    administer(empty_dsn, f"CREATE ROLE {role} LOGIN", "CREATE SCHEMA dedp")
    as_role = make_dsn(empty_dsn, user=role)
    try:
        with pytest.raises(BackupError, match=f"the role {role} may not make the schema dagster.*GRANT CREATE ON"):
            database.check_fits(as_role, 140_000, ["dagster"])
        with pytest.raises(BackupError, match=f"the role {role} may not make the schema dedp, or not its tables"):
            database.check_fits(as_role, 140_000, ["dedp"])
        administer(empty_dsn, f"GRANT CREATE ON SCHEMA dedp TO {role}")
        database.check_fits(as_role, 140_000, ["dedp"])
    finally:
        administer(empty_dsn, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_every_table_is_in_the_dump_with_its_rows(dsn: str, tmp_path: Path) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        for pipeline, folder in MIGRATIONS.items():
            migrate(connection, pipeline, PACKAGE / folder / "migrations")
    administer(dsn, "CREATE SCHEMA dagster", "CREATE TABLE dagster.runs (id integer)")
    described = database.describe(dsn, make_dsn(dsn, options="-csearch_path=dagster"))
    database.dump(dsn, described.schemas, described.server_version, tmp_path / "dump")
    command = [str(embedded_postgres.binary("pg_restore")), "--list", str(tmp_path / "dump")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT nspname || ' ' || relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
            "WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema')"
        )
        tables = {name for (name,) in cursor.fetchall()}
    assert {"dagster runs", "dedp promotions", "dedp_sign_in users"} <= tables
    dumped = set(re.findall(r"TABLE DATA (\S+ \S+)", listed))
    # Nobody is signed in after a restore: not even who was signed out since the backup.
    assert tables - dumped == {"dedp_sign_in sessions"}


def test_users_and_tokens_are_restored_and_sessions_are_not(dsn: str, empty_dsn: str, tmp_path: Path) -> None:
    with connected(dsn) as cursor:
        users.add(cursor, "ada", "a long password of ada", Role.admin)
        session = sessions.start(cursor, "ada", "127.0.0.1")
        token = sessions.new_api_token(cursor, "ada", None)
        assert sessions.user_of(cursor, session)
    described = database.describe(dsn, dsn)
    database.dump(dsn, described.schemas, described.server_version, tmp_path / "dump")
    database.load(empty_dsn, tmp_path / "dump", described.server_version)
    with connected(empty_dsn) as cursor:
        assert users.names(cursor) == ["ada"]
        assert sessions.user_of_api_token(cursor, token) == users.User("ada", Role.admin)
        assert sessions.user_of(cursor, session) is None


def test_a_restore_that_postgres_refuses_leaves_the_database_as_it_was(
    dsn: str, empty_dsn: str, tmp_path: Path
) -> None:
    described = database.describe(dsn, dsn)
    database.dump(dsn, described.schemas, described.server_version, tmp_path / "dump")
    # The last table that is restored: all others are there by then.
    administer(empty_dsn, "CREATE SCHEMA dedp_loads", "CREATE SCHEMA dedp", "CREATE TABLE dedp.schema_migrations ()")
    with pytest.raises(BackupError, match=r'"schema_migrations" already exists.*The database is as it was before'):
        database.load(empty_dsn, tmp_path / "dump", described.server_version)
    with closing(psycopg2.connect(empty_dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname LIKE 'dedp%'")
        assert cursor.fetchall() == [("schema_migrations",)]


def test_two_databases_have_no_common_moment(dsn: str, postgres_server: str) -> None:
    with pytest.raises(BackupError, match="not in the database of DEDP_POSTGRES_DSN"):
        database.describe(dsn, postgres_server)


def test_the_storage_of_dagster_may_be_named_without_its_password() -> None:
    named = database._with_password_of("postgresql://u:word@h/d", "postgresql://u@h/d?options=-csearch_path%3Ddagster")
    assert parse_dsn(named)["password"] == "word"
    assert parse_dsn(named)["options"] == "-csearch_path=dagster"
    own = "postgresql://v:other@h/d"
    assert database._with_password_of("postgresql://u:word@h/d", own) == own
    assert database._with_password_of("postgresql://u@h/d", "postgresql://u@h/d") == "postgresql://u@h/d"


def test_a_dump_that_fails_says_why(dsn: str, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"pg_dump can't copy the database: .*no matching schemas"):
        database.dump(dsn, ["no_such_schema"], 180_000, tmp_path / "dump")


def test_a_dump_holds_up_no_load(dsn: str, tmp_path: Path) -> None:
    """pg_dump locks every table until its end. These are its locks."""
    path = tmp_path / "dataset.csv"
    with closing(psycopg2.connect(dsn)) as loading, closing(psycopg2.connect(dsn)) as dumping:
        path.write_text("type;full_name;version\ntv;Lux;1\n")
        load_file(loading, "20240101", path)
        with dumping.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname ~ '^dedp'")
            tables = ", ".join(name for (name,) in cursor.fetchall())
            cursor.execute(f"LOCK TABLE {tables} IN ACCESS SHARE MODE")
        with loading, loading.cursor() as cursor:
            cursor.execute("SET lock_timeout = '5s'")
        for load_id, device in (("20240101", "Orb"), ("20240102", "Orb")):
            path.write_text(f"type;full_name;version\ntv;{device};1\nbad\n")
            load_file(loading, load_id, path)
