"""The homes of earlier versions are migrated, backed up and restored by this one, and nothing in them is lost.

`backup-0.1.0` is what `dedp backup` of that version wrote, of a home in /srv/dedp with DEDP_START=2999-01-01. To make
one for another version, bring `dedp up` up on such a home, and let it work until nothing is left to do:

- Two days of devices. 2024-01-02 has a line for the quarantine.
- A file of the client acme, also with a bad line; `dedp generate-promotions --from 2024-01-05 --rows 5 --dirty 1
  --supplier supermarket1`; a file of flight searches with one event and one bad line.
- `dedp load-delta 2024-01-01 2024-01-02 2024-01-03 --rows 3`. The first two days are counted.

Then `dedp down`, replace the names of the machine and of folders in Dagster's runs, and `dedp backup`.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from deltalake import DeltaTable

from dedp_assets.client_uploads import ledger
from dedp_assets.isolated_sequencer.aggregator import audits
from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from tests.dedp_command import run_dedp

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
BACKUPS = sorted(path.name for path in HERE.glob("backup-*"))

DEVICES = "SELECT load_id, type, full_name, version FROM dedp.devices_raw ORDER BY 1, 2, 3, 4"
QUARANTINE = "SELECT load_id, line_number, reason FROM dedp.devices_quarantine ORDER BY 1, 2"
RECORDS = "SELECT client, file, id, name, value FROM dedp.upload_records ORDER BY 1, 2, 3"
CURSORS = "SELECT selector_id, instigator_body FROM dagster.instigators ORDER BY 1"


@pytest.fixture
def other_dsn(postgres_server: str, empty_dsn: str) -> Iterator[str]:
    """The URL of a second empty database."""
    name = urlsplit(empty_dsn).path[1:] + "_restored"
    with closing(psycopg2.connect(postgres_server)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            yield urlsplit(empty_dsn)._replace(path=f"/{name}").geturl()
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def dedp(monkeypatch: pytest.MonkeyPatch, home: Path, dsn: str, *command: str) -> None:
    monkeypatch.setenv("DEDP_HOME", str(home))
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    done = run_dedp(*command)
    assert done.returncode == 0, done.stderr


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def all_tables(dsn: str) -> dict[str, str]:
    """The sum of the rows of each table."""
    tables = rows(
        dsn,
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    )
    sums = "SELECT coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), 'empty') FROM {} AS t"
    return {table: rows(dsn, sums.format(table))[0][0] for (table,) in tables}


def files(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and path.name != ".lock" and "dagster" not in path.relative_to(home).parts
    }


def migrate(dsn: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        ensure_tables(connection)
        ledger.ensure_tables(connection)
        for result in (audits.lines_accounted_for(connection), audits.totals_equal_recount(connection)):
            assert result.passed, result.description


@pytest.mark.parametrize("name", BACKUPS)
def test_a_backup_of_an_earlier_version_is_restored_migrated_and_backed_up_again(
    name: str, tmp_path: Path, empty_dsn: str, other_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    dedp(monkeypatch, first, empty_dsn, "restore", str(HERE / name))
    assert first.stat().st_mode & 0o066 == 0  # like a new home, it is this user's alone
    migrate(empty_dsn)
    assert rows(empty_dsn, DEVICES) == [
        ("20240101", "lamp", "Orb", "2"),
        ("20240101", "tv", "Lux", "1"),
        ("20240102", "tv", "Lux", "1"),
    ]
    assert rows(empty_dsn, QUARANTINE) == [("20240102", 3, "missing field")]
    assert rows(empty_dsn, RECORDS) == [("acme", "orders.csv", "1", "axe", "2")]
    assert len(rows(empty_dsn, "SELECT FROM dedp.promotions")) == 5
    for table, count in {"devices": 9, "device_counts": 6, "searches": 1, "searches_quarantine": 1}.items():
        assert DeltaTable(str(first / "lake" / table)).to_pyarrow_table().num_rows == count
    assert rows(empty_dsn, CURSORS)

    dedp(monkeypatch, first, empty_dsn, "backup", str(tmp_path / "backup"))
    dedp(monkeypatch, second, other_dsn, "restore", str(tmp_path / "backup"))
    assert all_tables(other_dsn) == all_tables(empty_dsn)
    assert files(second) == files(first)


def test_a_home_from_before_migrations_is_migrated_backed_up_and_restored(
    tmp_path: Path, empty_dsn: str, other_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in ("landing", "internal"):
        shutil.copytree(HERE / folder, first / folder)
    shutil.copytree(HERE / "lake" / "tables", first / "lake")
    (first / "created").write_text("2024-01-01T08:00:00+00:00\n")
    with closing(psycopg2.connect(empty_dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute((HERE / "database.sql").read_text(encoding="utf-8"))
    dedp(monkeypatch, first, empty_dsn, "backup", str(tmp_path / "before"))
    migrate(empty_dsn)
    dedp(monkeypatch, second, other_dsn, "restore", str(tmp_path / "before"))
    migrate(other_dsn)
    for query in (DEVICES, QUARANTINE):
        assert rows(other_dsn, query) == rows(empty_dsn, query)
    assert files(second) == files(first)
