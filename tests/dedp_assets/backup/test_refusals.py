"""What a backup and a restore refuse before they change anything, and that a dump holds up no load."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from dedp_assets.backup import backing_up, database, restoring
from dedp_assets.backup.archive import Manifest, drafting
from dedp_assets.backup.errors import BackupError
from dedp_assets.backup.places import Places
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
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


def test_a_backup_is_not_written_into_the_home_that_it_is_of(places: Places, dsn: str) -> None:
    with pytest.raises(BackupError, match="is in DEDP_HOME"):
        backing_up.back_up(places.home / "backups" / "monday", places, dsn, dsn)


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
        database.check_is_empty(dsn, ["dagster", "dedp"])


def test_an_older_server_is_refused(dsn: str) -> None:
    with pytest.raises(BackupError, match="the backup is of PostgreSQL 99"):
        database.check_version(dsn, 990_001)


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
