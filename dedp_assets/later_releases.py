"""Refuses to start on a database that a later release has migrated, ours or Dagster's.

An older release does not know what the later one has changed: it might write rows that the later one can't read, or
read as nothing what it can't see. So `dedp up`, `dedp exec` and `dedp purge` look before they do anything. A run looks
again, at the tables of its own pipeline (`migrations`).
"""

import re
from contextlib import closing
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection

from dedp_assets.migrations import Applied, WrongTables, migrations_in, newer_than

_PACKAGE = Path(__file__).parent

# The folder of each pipeline's migrations, by the name of the pipeline in dedp.schema_migrations.
MIGRATIONS = {
    "alerts": "alerts",
    "client_uploads": "client_uploads",
    "isolated_sequencer": "isolated_sequencer/aggregator",
    "promotion_reports": "promotions/reports",
    "promotions": "promotions/deliveries",
    "sign_in": "sign_in",
    "user_intake": "user_intake",
}

_AWAY_SECONDS = 10
_DAGSTERS = "dagster/_core/storage/alembic/versions"

_WHAT_TO_DO = (
    "Nothing was changed. Start the later release again; or, to go back, restore the backup that was made before the "
    "upgrade, into an empty home and database: docs/operations.md, Back to the release before"
)


def check_is_not_newer(dsn: str, storage_dsn: str) -> None:
    """See that this release and its Dagster know everything that was done to the tables of a database.

    Args:
        dsn: The address of our tables.
        storage_dsn: The address of Dagster's tables. Its search path says in which schema they are.

    Raises:
        WrongTables: A later release has migrated them. The message says what was found, and what to do.
        psycopg2.Error: The database of Dagster's tables does not answer.
    """
    for pipeline, applied in _ours(dsn).items():
        if pipeline not in MIGRATIONS:  # somebody's own pipeline
            continue
        known = migrations_in(_PACKAGE / MIGRATIONS[pipeline] / "migrations")
        newer = newer_than(known, applied)
        if newer:
            raise WrongTables(
                f"a later release has migrated this database: it has {newer[-1]} of {pipeline}, and the last one "
                f"that this release ({_version('dedp-assets')}) knows is {known[-1].file_name}. {_WHAT_TO_DO}"
            )
    with closing(psycopg2.connect(storage_dsn)) as connection:
        revision = _dagsters_revision(connection)
    if revision is not None and not is_known_to_dagster(revision):
        raise WrongTables(
            f"a later release has migrated Dagster's tables: they have the revision {revision}, which Dagster "
            f"{_version('dagster')} of this release does not know. {_WHAT_TO_DO}"
        )


def _ours(dsn: str) -> dict[str, dict[int, Applied]]:
    """The records of our migrations; none while that database is away. Then the system starts, and its runs look."""
    try:
        with closing(psycopg2.connect(dsn, connect_timeout=_AWAY_SECONDS)) as connection:
            return applied_migrations(connection)
    except psycopg2.OperationalError:
        return {}


def applied_migrations(connection: Connection) -> dict[str, dict[int, Applied]]:
    """The records of our migrations in a database, by pipeline and number. None, if it has no such table."""
    applied: dict[str, dict[int, Applied]] = {}
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('dedp.schema_migrations') IS NOT NULL")
        if cursor.fetchone() == (True,):
            cursor.execute("SELECT pipeline, number, name, sha256 FROM dedp.schema_migrations")
            for pipeline, number, name, sha256 in cursor.fetchall():
                applied.setdefault(pipeline, {})[number] = Applied(name, sha256)
    return applied


def is_known_to_dagster(revision: str) -> bool:
    """Whether the installed Dagster has a migration of this revision. Its files are read, and nothing is imported."""
    dagster = find_spec("dagster")
    assert dagster
    assert dagster.origin
    folder = Path(dagster.origin).parents[1] / _DAGSTERS
    line = re.compile(rf"^revision = [\"']{re.escape(revision)}[\"']", re.MULTILINE)
    return any(line.search(file.read_text(encoding="utf-8")) for file in folder.glob("*.py"))


def _dagsters_revision(connection: Connection) -> str | None:
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('alembic_version') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return None
        cursor.execute("SELECT version_num FROM alembic_version")
        found = cursor.fetchone()
    return str(found[0]) if found else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a checkout need not be installed
        return "of this checkout"
