"""The database in a backup: one dump by pg_dump, which sees one moment of all tables, ours and Dagster's."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extensions

from dedp_assets.backup.errors import BackupError
from dedp_assets.resources import embedded_postgres
from dedp_assets.resources.postgres_programs import connection_of

# Between the moment that pg_dump sees and its locks, a table may be dropped. Then it ends, and can be asked again.
_TRIES = 3

_SCHEMAS = r"SELECT nspname FROM pg_namespace WHERE nspname ~ '^dedp(_|$)' OR nspname = ANY(%s) ORDER BY nspname"
_RELATIONS = """
    SELECT nspname FROM pg_namespace
    WHERE nspname = ANY(%s) AND EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_namespace.oid)
    ORDER BY nspname
"""
_MIGRATIONS = "SELECT pipeline, number, name FROM dedp.schema_migrations ORDER BY pipeline, number"
_SERVER = "SELECT pg_postmaster_start_time(), current_database()"


class Described(NamedTuple):
    """A database.

    Attributes:
        schemas: those of ours and of Dagster.
        migrations: the file names of each pipeline's migrations.
        bytes: its size.
        server_version: such as 180004.
    """

    schemas: list[str]
    migrations: dict[str, list[str]]
    bytes: int
    server_version: int


def describe(dsn: str, storage_dsn: str) -> Described:
    """Look what is in a database.

    Args:
        dsn: its address.
        storage_dsn: the address of Dagster's storage, whose search path says in which schema it is.

    Raises:
        BackupError: Dagster's storage is another database. Two databases have no common moment.
    """
    with closing(psycopg2.connect(_with_password_of(dsn, storage_dsn))) as storage:
        place, instance_schema = _one(storage, _SERVER), _one(storage, "SELECT current_schema()")[0]
    with closing(psycopg2.connect(dsn)) as connection:
        if _one(connection, _SERVER) != place:
            raise BackupError(
                "Dagster's storage (DEDP_DAGSTER_STORAGE) is not in the database of DEDP_POSTGRES_DSN. A backup needs "
                "both in one database, because it copies one moment of both; copy these databases with your own tools, "
                "Dagster's first"
            )
        schemas = [name for (name,) in _all(connection, _SCHEMAS, [[instance_schema]])]
        found: dict[str, list[str]] = {}
        if _one(connection, "SELECT to_regclass('dedp.schema_migrations')")[0]:
            for pipeline, number, name in _all(connection, _MIGRATIONS):
                found.setdefault(pipeline, []).append(f"{number:04}_{name}.sql")
        (size,) = _one(connection, "SELECT pg_database_size(current_database())")
        return Described(schemas, found, size, connection.info.server_version)


def _with_password_of(dsn: str, storage_dsn: str) -> str:
    """The second address, which a deployment may give without the password that the first one has."""
    password = psycopg2.extensions.parse_dsn(dsn).get("password")
    if password is None or "password" in psycopg2.extensions.parse_dsn(storage_dsn):
        return storage_dsn
    return psycopg2.extensions.make_dsn(storage_dsn, password=password)


def dump(dsn: str, schemas: Sequence[str], server_version: int, target: Path) -> None:
    """Write the schemas of a database to a file, as they are at one moment. Nobody who reads or loads waits for it.

    Raises:
        BackupError: there is no pg_dump for this server, or it fails.
    """
    program = _pg_dump(server_version // 10_000)
    wanted = [f"--schema={_quoted(name)}" for name in schemas]
    # Roles and their rights belong to a server, and need not exist where the backup is restored.
    options = ["--format=custom", "--no-owner", "--no-privileges", *wanted, f"--file={target}"]
    for attempt in range(_TRIES):
        said = _run(program, options, dsn)
        if said is None:
            return
        if attempt == _TRIES - 1 or "does not exist" not in said:
            raise BackupError(f"pg_dump can't copy the database: {said}")


def check_is_empty(dsn: str, schemas: Sequence[str]) -> None:
    """Raise BackupError if one of the schemas has tables."""
    with closing(psycopg2.connect(dsn)) as connection:
        full = [name for (name,) in _all(connection, _RELATIONS, [list(schemas)])]
        if full:
            raise BackupError(
                f"the database {connection.info.dbname} is not empty: there are tables in the schema {full[0]}. "
                "A backup is restored into an empty database; let DEDP_POSTGRES_DSN name one"
            )


def check_version(dsn: str, dumped_from: int) -> None:
    """Raise BackupError if the server is older than the one that was dumped from."""
    with closing(psycopg2.connect(dsn)) as connection:
        needed, found = dumped_from // 10_000, connection.info.server_version // 10_000
    if found < needed:
        raise BackupError(f"the backup is of PostgreSQL {needed}, and this server is {found}; use {needed} or later")


def load(dsn: str, archive: Path) -> None:
    """Restore a dump, all of it or nothing.

    Raises:
        BackupError: PostgreSQL refuses it.
    """
    program = embedded_postgres.binary("pg_restore")
    with tempfile.NamedTemporaryFile("w", prefix="dedp-restore-", suffix=".list") as wanted:
        wanted.write(_contents_without_existing_schemas(program, dsn, archive))
        wanted.flush()
        said = _run(
            program,
            ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
            + [f"--use-list={wanted.name}", str(archive)],
            dsn,
        )
    if said is not None:
        raise BackupError(f"pg_restore can't restore {archive}: {said}. The database is as it was before")
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _contents_without_existing_schemas(program: Path, dsn: str, archive: Path) -> str:
    # A deployment may have made a schema beforehand, such as that of Dagster's tables.
    with closing(psycopg2.connect(dsn)) as connection:
        existing = {name for (name,) in _all(connection, "SELECT nspname FROM pg_namespace")}
    listed = subprocess.run([str(program), "--list", str(archive)], capture_output=True, text=True)
    if listed.returncode:
        raise BackupError(f"pg_restore can't read {archive}: {_in_a_line(listed.stderr)}")
    kept = []
    for line in listed.stdout.splitlines():
        schema = re.match(r"\d+; \d+ \d+ SCHEMA - (\S+) ", line)
        if schema is None or schema[1] not in existing:
            kept.append(line)
    return "\n".join([*kept, ""])


def _pg_dump(server: int) -> Path:
    """A pg_dump that is not older than the server: the embedded one, or the user's own."""
    embedded = embedded_postgres.binary("pg_dump")
    if _major(embedded) >= server:
        return embedded
    own = shutil.which("pg_dump")
    if own is not None and _major(Path(own)) >= server:
        return Path(own)
    raise BackupError(
        f"the server is PostgreSQL {server}, and the pg_dump of this installation is {_major(embedded)}; put a pg_dump "
        f"of version {server} or later on the PATH"
    )


def _major(program: Path) -> int:
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)", said.partition("PostgreSQL)")[2])
    return int(found[1]) if found else 0


def _run(program: Path, options: list[str], dsn: str) -> str | None:
    """Run a program of PostgreSQL. Returns what it says if it fails."""
    address, environment = connection_of(dsn)
    done = subprocess.run(
        [str(program), f"--dbname={address}", "--no-password", *options],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return _in_a_line(done.stderr) or f"it ended with status {done.returncode}" if done.returncode else None


def _in_a_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _one(connection: Any, query: str) -> tuple[Any, ...]:
    (row,) = _all(connection, query)
    return row


def _all(connection: Any, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with connection, connection.cursor() as cursor:
        cursor.execute(query, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found
