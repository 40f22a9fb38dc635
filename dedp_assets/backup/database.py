"""The database in a backup: one dump by pg_dump, which sees one moment of all tables, ours and Dagster's."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extensions

from dedp_assets.backup.errors import BackupError
from dedp_assets.resources import embedded_postgres
from dedp_assets.resources.postgres import connect
from dedp_assets.resources.postgres_programs import connection_of

# Between the moment that pg_dump sees and its locks, a table may be dropped. Then it ends, and can be asked again.
_TRIES = 3
# What the programs say is looked at.
_ENGLISH = {"LC_ALL": "C"}
# pg_restore sets transaction_timeout. An older server takes that for an error.
_FIRST_WITH_TRANSACTION_TIMEOUT = 17
# Who has signed in: neither a backup nor what is restored from it is a way in.
_SESSIONS = "dedp_sign_in.sessions"

_SCHEMAS = r"SELECT nspname FROM pg_namespace WHERE nspname ~ '^dedp(_|$)' OR nspname = ANY(%s) ORDER BY nspname"
_FULL = """
    SELECT nspname FROM pg_namespace
    WHERE nspname = ANY(%s) AND EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_namespace.oid)
    ORDER BY nspname
"""
_CLOSED = """
    SELECT name FROM unnest(%s::text[]) AS wanted (name) LEFT JOIN pg_namespace ON nspname = name
    WHERE NOT CASE WHEN nspname IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                   ELSE has_schema_privilege(name, 'CREATE') END
    ORDER BY name
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
    program = _program("pg_dump", server_version // 10_000)
    wanted = [f"--schema={_quoted(name)}" for name in schemas]
    # Roles and their rights belong to a server, and need not exist where the backup is restored.
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--exclude-table-data={_SESSIONS}"]
    for attempt in range(_TRIES):
        said = _run(program, [*options, *wanted, f"--file={target}"], dsn)
        if said is None:
            return
        if attempt == _TRIES - 1 or "does not exist" not in said:
            raise BackupError(f"pg_dump can't copy the database: {said}")


def check_fits(dsn: str, dumped_from: int, schemas: Sequence[str]) -> None:
    """See that a dump can be restored into a database.

    Args:
        dsn: the address of the database.
        dumped_from: the version of the server of the dump, such as 180004.
        schemas: the schemas of the dump.

    Raises:
        BackupError: the server is older, there are tables in one of the schemas, or the role may not make them.
        UnusableDatabase: the database can't store every text.
    """
    with connect(dsn) as connection:
        needed, found = dumped_from // 10_000, connection.info.server_version // 10_000
        if found < needed:
            raise BackupError(
                f"the backup is of PostgreSQL {needed}, and this server is {found}; use {needed} or later"
            )
        database, role = connection.info.dbname, connection.info.user
        full = [name for (name,) in _all(connection, _FULL, [list(schemas)])]
        if full:
            raise BackupError(
                f"the database {database} is not empty: there are tables in the schema {full[0]}. "
                "A backup is restored into an empty database; let DEDP_POSTGRES_DSN name one"
            )
        closed = [name for (name,) in _all(connection, _CLOSED, [list(schemas)])]
        if closed:
            raise BackupError(
                f"the role {role} may not make the schema {closed[0]}, or not its tables, in the database {database}; "
                f"GRANT CREATE ON DATABASE {database} TO {role}, or make it the owner of the schema"
            )


def load(dsn: str, archive: Path, dumped_from: int) -> None:
    """Restore a dump, all of it or nothing.

    Args:
        dsn: the address of the database.
        archive: the dump.
        dumped_from: the version of its server, such as 180004.

    Raises:
        BackupError: PostgreSQL refuses it.
    """
    program = _program("pg_restore", dumped_from // 10_000)
    with closing(psycopg2.connect(dsn)) as connection:
        server = connection.info.server_version // 10_000
    with tempfile.NamedTemporaryFile("w", prefix="dedp-restore-", suffix=".list") as wanted:
        wanted.write(_contents_without_existing_schemas(program, dsn, archive))
        wanted.flush()
        options = ["--no-owner", "--no-privileges", f"--use-list={wanted.name}", str(archive)]
        if server < _FIRST_WITH_TRANSACTION_TIMEOUT:
            said = _load_into_older(program, options, dsn)
        else:
            said = _run(program, ["--single-transaction", "--exit-on-error", *options], dsn)
    if said is not None:
        raise BackupError(f"pg_restore can't restore {archive}: {said}. The database is as it was before")
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _load_into_older(program: Path, options: list[str], dsn: str) -> str | None:
    """Restore into a server without a setting that pg_restore makes first. Returns what is said if it fails."""
    address, environment = connection_of(dsn)
    psql = [str(embedded_postgres.binary("psql")), f"--dbname={address}", "--no-password", "--no-psqlrc", "--quiet"]
    with tempfile.TemporaryFile() as errors:
        loading = subprocess.Popen(
            [*psql, "--set=ON_ERROR_STOP=1", "--output=/dev/null"],
            env={**os.environ, **environment, **_ENGLISH},
            stdin=subprocess.PIPE,
            stderr=errors,
        )
        script = subprocess.Popen([str(program), *options, "--file=-"], stdout=subprocess.PIPE, stderr=errors)
        with suppress(BrokenPipeError), loading, script:  # psql may end early, and says why
            assert loading.stdin
            assert script.stdout
            loading.stdin.write(b"BEGIN;\n")
            for line in script.stdout:
                if line == b"SET transaction_timeout = 0;\n":
                    break
                loading.stdin.write(line)
            shutil.copyfileobj(script.stdout, loading.stdin)
            if script.wait() == 0:
                loading.stdin.write(b"COMMIT;\n")
        errors.seek(0)
        said = _in_a_line(errors.read().decode(errors="replace"))
    failed = script.returncode or loading.returncode
    return said or f"it ended with status {failed}" if failed else None


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


def _program(name: str, server: int) -> Path:
    """A pg_dump or pg_restore that is not older than the server of the data: the embedded one, or the user's own."""
    embedded = embedded_postgres.binary(name)
    if _major(embedded) >= server:
        return embedded
    own = shutil.which(name)
    if own is not None and _major(Path(own)) >= server:
        return Path(own)
    raise BackupError(
        f"the data is of PostgreSQL {server}, and the {name} of this installation is {_major(embedded)}; put a {name} "
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
        env={**os.environ, **environment, **_ENGLISH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
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
