"""Makes and changes the tables of a pipeline by numbered SQL files. Each file is applied once, in order.

A pipeline has a folder with files such as `0001_devices_tables.sql`. The table `dedp.schema_migrations` records for
each pipeline which files a database has. Pipelines share the schema `dedp`, and know nothing of each other.

There is no way back. Never change a file that a database may have; correct it by the next migration. A migration and
its record are written in one transaction, so a migration can't contain commands that PostgreSQL refuses in a
transaction, such as CREATE INDEX CONCURRENTLY.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from psycopg2 import ProgrammingError, errors
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.errors import PermanentError

_FILE_NAME = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql")

# The advisory lock of all pipelines, because they share the schema and the table of records. Versions of this project
# that had no migrations used the same lock, so such a version and this one don't make the same tables at once.
_LOCK = "dedp tables, version 1"

_APPLIED = "SELECT number, name, sha256 FROM dedp.schema_migrations WHERE pipeline = %s"

_MAKE_RECORD = """
    CREATE TABLE IF NOT EXISTS dedp.schema_migrations (
        pipeline   text        NOT NULL,
        number     integer     NOT NULL,
        name       text        NOT NULL,
        sha256     char(64)    NOT NULL,  -- of the file's text, its lines ended by line feeds
        applied_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (pipeline, number)
    );
"""


class WrongTables(PermanentError):
    """This version can't use the tables of the database. The message says why, and what to do."""


class Migration(NamedTuple):
    """One numbered file. `text` is its SQL."""

    number: int
    name: str
    text: str

    @property
    def file_name(self) -> str:
        return f"{self.number:04}_{self.name}.sql"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class Applied(NamedTuple):
    """The record of a migration in a database."""

    name: str
    sha256: str


def _none(cursor: Cursor) -> int:
    return 0


def migrate(
    connection: Connection, pipeline: str, folder: Path, *, made_before: Callable[[Cursor], int] = _none
) -> list[str]:
    """Apply the migrations that a database does not have yet, and commit each of them.

    If the database has all of them, this is one query. Several processes may call it at the same time. If one of them
    is killed, the database has only whole migrations.

    Args:
        connection: To the database, outside of a transaction.
        pipeline: The name of the pipeline in the records.
        folder: The migrations of the pipeline.
        made_before: Called if the database has no record of the pipeline. It returns how many of the migrations the
            database has nevertheless, because they were made before there were records. They are recorded, and not run.

    Returns:
        The names of the files that were applied.

    Raises:
        WrongTables: The database is newer than the folder, has another text of one of its files, or refuses one.
        ValueError: The files of the folder are not numbered 1, 2, 3 ...
    """
    known = migrations_in(folder)
    applied = _applied(connection, pipeline)
    if applied and not pending(pipeline, known, applied):
        return []
    done: list[str] = []
    while True:
        applied_now = _apply_next(connection, pipeline, known, made_before)
        if applied_now is None:
            return done
        done.append(applied_now.file_name)


def migrations_in(folder: Path) -> list[Migration]:
    """Read the migrations of a folder, in order. Raises ValueError if their numbers are not 1, 2, 3 without a gap."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path} is not the name of a migration; expected one like 0001_first_tables.sql")
        # Read as text: a checkout with other line ends has the same migrations.
        found.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        names = ", ".join(migration.file_name for migration in found)
        raise ValueError(f"{folder} has the migrations {names}; expected each number from 0001 on once")
    if not found:
        raise ValueError(f"{folder} has no migrations; expected files like 0001_first_tables.sql")
    return found


def pending(pipeline: str, known: Sequence[Migration], applied: Mapping[int, Applied]) -> list[Migration]:
    """The migrations that a database does not have yet.

    Args:
        pipeline: Its name, for messages.
        known: All migrations of the pipeline, in order.
        applied: The records of the database, by number.

    Raises:
        WrongTables: The database has a migration that is not among `known`, or its records have a gap.
    """
    newer = newer_than(known, applied)
    if newer:
        raise WrongTables(
            f"the database is newer than this version: it has the migration {newer[-1]} of {pipeline}, and the last "
            f"one here is {known[-1].file_name}; update this installation, restore the backup from before the upgrade "
            "(docs/operations.md), or point DEDP_POSTGRES_DSN elsewhere"
        )
    for migration in known:
        there = applied.get(migration.number)
        if there is not None and there != Applied(migration.name, migration.sha256):
            raise WrongTables(
                f"the database has another migration {migration.number:04} of {pipeline} than this version: "
                f"{migration.number:04}_{there.name}.sql with SHA-256 {there.sha256[:12]}, here it is "
                f"{migration.file_name} with {migration.sha256[:12]}; "
                "put the file back as it was, and make the change a migration of its own"
            )
    lacking = [migration for migration in known if migration.number not in applied]
    if lacking and lacking[0].number <= len(applied):
        raise WrongTables(
            f"the table dedp.schema_migrations lacks {lacking[0].file_name} of {pipeline}, and has later ones; "
            "was it changed by hand?"
        )
    return lacking


def newer_than(known: Sequence[Migration], applied: Mapping[int, Applied]) -> list[str]:
    """The file names of the migrations that a database has, in order, and that come after the known ones."""
    return [f"{number:04}_{there.name}.sql" for number, there in sorted(applied.items()) if number > len(known)]


def _applied(connection: Connection, pipeline: str) -> dict[int, Applied]:
    try:
        with connection, connection.cursor() as cursor:
            return _read(cursor, pipeline)
    except errors.UndefinedTable:
        return {}
    except errors.UndefinedColumn as error:
        missing = error.diag.message_primary
    raise WrongTables(
        f"the database has a table dedp.schema_migrations that is not ours ({missing}); "
        "point DEDP_POSTGRES_DSN at another database, or rename the table"
    )


def _read(cursor: Cursor, pipeline: str) -> dict[int, Applied]:
    cursor.execute(_APPLIED, [pipeline])
    return {number: Applied(name, sha256) for number, name, sha256 in cursor.fetchall()}


def _apply_next(
    connection: Connection, pipeline: str, known: Sequence[Migration], made_before: Callable[[Cursor], int]
) -> Migration | None:
    """Apply the next migration and commit. Returns it, or None if the database has all of them."""
    migration = None
    try:
        with connection, connection.cursor() as cursor:
            # With another isolation level, we would not see what others committed while we waited for the lock.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [_LOCK])
            migration = _next(cursor, pipeline, known, made_before)
            if migration is not None:
                cursor.execute(migration.text)
                _record(cursor, pipeline, migration)
            return migration
    except ProgrammingError as error:
        refused = error.diag.message_primary or str(error)
    raise WrongTables(
        f"database {connection.info.dbname} refuses {migration.file_name if migration else 'dedp.schema_migrations'} "
        f"of {pipeline} to the role {connection.info.user}: {refused}; no part of it is applied"
    )


def _next(
    cursor: Cursor, pipeline: str, known: Sequence[Migration], made_before: Callable[[Cursor], int]
) -> Migration | None:
    """The next migration to apply. The caller holds the lock. Another process may have applied some meanwhile."""
    # CREATE SCHEMA IF NOT EXISTS needs the right to make schemas even if the schema exists.
    cursor.execute("SELECT FROM pg_namespace WHERE nspname = 'dedp'")
    if not cursor.rowcount:
        cursor.execute("CREATE SCHEMA dedp")
    cursor.execute(_MAKE_RECORD)
    applied = _read(cursor, pipeline)
    if not applied:
        for migration in known[: made_before(cursor)]:
            _record(cursor, pipeline, migration)
        applied = _read(cursor, pipeline)
    return next(iter(pending(pipeline, known, applied)), None)


def _record(cursor: Cursor, pipeline: str, migration: Migration) -> None:
    cursor.execute(
        "INSERT INTO dedp.schema_migrations (pipeline, number, name, sha256) VALUES (%s, %s, %s, %s)",
        [pipeline, migration.number, migration.name, migration.sha256],
    )
