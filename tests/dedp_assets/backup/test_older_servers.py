"""A backup is restored into a server that is older than our pg_restore, and does not know all of its settings."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from dedp_assets.backup import database
from dedp_assets.backup.errors import BackupError
from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables

pytestmark = pytest.mark.slow

# Where Debian has the programs of each version.
PROGRAMS = {int(path.parts[-3]): path.parent for path in Path("/usr/lib/postgresql").glob("[1-9]*/bin/initdb")}


@pytest.fixture
def older_server() -> Iterator[str]:
    """The address of a server before version 17, with the databases `one` and `two`."""
    version = max((number for number in PROGRAMS if number < 17), default=None)
    if version is None:
        pytest.skip("there is no PostgreSQL 14 to 16 in /usr/lib/postgresql")
    somebody = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}  # it refuses to run as root

    def run(program: str, *options: str) -> None:
        done = subprocess.run(
            [str(PROGRAMS[version] / program), *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **somebody,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, program

    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        Path(folder).chmod(0o777)
        run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "--pgdata=data")
        run("pg_ctl", "--pgdata=data", "--log=log", f"--options=-k {folder} -c listen_addresses= -F", "--wait", "start")
        try:
            dsn = make_dsn(host=folder, user="postgres", dbname="postgres")
            execute(dsn, "CREATE DATABASE one")
            execute(dsn, "CREATE DATABASE two")
            yield dsn
        finally:
            run("pg_ctl", "--pgdata=data", "--mode=immediate", "--wait", "stop")


def execute(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def test_a_backup_of_an_older_server_is_restored_into_one_all_or_nothing(older_server: str, tmp_path: Path) -> None:
    one, two = (make_dsn(older_server, dbname=name) for name in ("one", "two"))
    with closing(psycopg2.connect(one)) as connection:
        ensure_tables(connection)
    # As a line of data, what is left out of the settings stays.
    execute(one, "CREATE TABLE dedp.words AS SELECT 'SET transaction_timeout = 0;' AS word FROM generate_series(1, 3)")
    described = database.describe(one, one)
    database.dump(one, described.schemas, described.server_version, tmp_path / "dump")

    execute(two, "CREATE SCHEMA dedp")
    execute(two, "CREATE TABLE dedp.words ()")
    with pytest.raises(BackupError, match=r'relation "words" already exists.*The database is as it was before'):
        database.load(two, tmp_path / "dump", described.server_version)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname LIKE 'dedp%' ORDER BY 1"
    assert execute(two, tables) == [("words",)]

    execute(two, "DROP TABLE dedp.words")
    database.load(two, tmp_path / "dump", described.server_version)
    assert execute(two, tables) == execute(one, tables)
    for table in ("dedp.words", "dedp.schema_migrations"):
        assert execute(two, f"SELECT * FROM {table}") == execute(one, f"SELECT * FROM {table}")
    with closing(psycopg2.connect(two)) as connection:
        ensure_tables(connection)  # nothing is to be migrated: it would fail
