"""A small backup is restored: where its files come to, what they are like, and what is left if that fails."""

import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from dedp_assets.backup import database, restoring
from dedp_assets.backup.archive import DUMP, Manifest, drafting
from dedp_assets.backup.errors import BackupError
from dedp_assets.backup.places import Places

FILES = {
    "home/uploads.yaml": 0o640,
    "internal/devices/20240101/dataset.csv": 0o600,
    "landing/devices/2024-01-01/dataset.csv": 0o644,
    "lake/counts/_delta_log/0.json": 0o666,
    "lake/counts/data": 0o666,
}
MODIFIED_NS = 1_700_000_000_000_000_000


def make_backup(folder: Path, dsn: str, **versions: str) -> Path:
    described = database.describe(dsn, dsn)
    parts = ["lake", "internal", "home", "landing"]
    with drafting(folder) as draft:
        database.dump(dsn, described.schemas, described.server_version, draft.folder / DUMP)
        draft.adopt(DUMP)
        for path, mode in FILES.items():
            draft.add(path, [path.encode()], mode, MODIFIED_NS)
        (draft.folder / "landing" / "clients" / "acme").mkdir(parents=True)
        made_by = {"postgres": described.server_version, **versions}
        draft.finish(Manifest("2024-01-31T08:00:00+00:00", made_by, {}, described.schemas, parts, described.bytes))
    return folder


def places_in(home: Path) -> Places:
    return Places(home, home / "internal", home / "landing", str(home / "lake"), home / "dagster" / "storage")


def restore(source: Path, home: Path, dsn: str) -> None:
    @contextmanager
    def database_of() -> Iterator[str]:
        yield dsn

    restoring.restore(source, places_in(home), database_of, home / "mark")


def test_files_come_back_with_their_times_and_permissions(dsn: str, empty_dsn: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    restore(make_backup(tmp_path / "backup", dsn), home, empty_dsn)
    found = {path: home / path.removeprefix("home/") for path in FILES}
    assert {path: copy.read_text() for path, copy in found.items()} == {path: path for path in FILES}
    assert {copy.stat().st_mtime_ns for copy in found.values()} == {MODIFIED_NS}
    of_others = {path: mode for path, mode in FILES.items() if not path.startswith("lake/")}
    assert {path: stat.S_IMODE(found[path].stat().st_mode) for path in of_others} == of_others
    assert (home / "landing" / "clients" / "acme").is_dir()
    assert not (home / "mark").exists()
    with closing(psycopg2.connect(empty_dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM dedp.devices_loads")


def test_a_restore_that_fails_leaves_a_mark(dsn: str, tmp_path: Path) -> None:
    """Nothing starts on a home with it."""
    source = make_backup(tmp_path / "backup", dsn)
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA dedp, dedp_loads CASCADE")
        cursor.execute("CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$")
        cursor.execute("CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION no()")
    with pytest.raises(BackupError, match="pg_restore can't restore"):
        restore(source, tmp_path / "home", dsn)
    assert (tmp_path / "home" / "mark").exists()


def test_a_backup_of_a_newer_version_is_refused_before_anything_is_written(
    dsn: str, empty_dsn: str, tmp_path: Path
) -> None:
    source = make_backup(tmp_path / "backup", dsn, dagster="99.0.0")
    with pytest.raises(BackupError, match=r"a newer version has made this backup: dagster 99\.0\.0"):
        restore(source, tmp_path / "home", empty_dsn)
    assert not (tmp_path / "home").exists()
