"""The environment variables of a system's processes, and Dagster's instance in the project's database."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

from dedp_assets import settings
from dedp_assets.later_releases import check_is_not_newer
from dedp_assets.local_stack.errors import StackError
from dedp_assets.resources import embedded_postgres

# In a checkout, workspace.yaml is a link to that of the top folder. A wheel contains a copy.
_DEPLOYMENT = Path(str(resources.files("dedp_assets"))) / "deployment"
INSTANCE_CONFIG = _DEPLOYMENT / "dagster.yaml"
WORKSPACE = _DEPLOYMENT / "workspace.yaml"

_INSTANCE_SCHEMA = "dagster"


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """Provide the environment variables for a command that uses this system's Dagster instance and database.

    A deployment with a PostgreSQL server of its own may have Dagster's tables elsewhere (DEDP_DAGSTER_STORAGE). The
    database runs at least until the block ends.
    """
    home = settings.make_home()
    with ExitStack() as cleanup:
        dsn = settings.postgres_dsn() or cleanup.enter_context(embedded_postgres.server_lease(home / "postgres"))
        yield {
            **os.environ,
            "DEDP_DATA_URI": settings.data_uri(),
            "DEDP_HOME": str(home),
            "DEDP_LANDING": str(settings.landing()),
            "DEDP_INTERNAL": str(settings.internal()),
            "DEDP_POSTGRES_DSN": dsn,
            "DEDP_DAGSTER_STORAGE": _own_storage() or in_dagster_schema(dsn),
            "DAGSTER_HOME": str(_instance_folder(home)),
            "PYTHONUNBUFFERED": "1",
        }


def _own_storage() -> str | None:
    return settings.dagster_storage() if settings.postgres_dsn() else None


def in_dagster_schema(dsn: str) -> str:
    """Return the DSN of Dagster's own tables in a database of the project, as a URL."""
    return in_schema(dsn, _INSTANCE_SCHEMA)


def in_schema(dsn: str, schema: str) -> str:
    """Return the DSN as a URL, with `schema` as the search path of its connections."""
    parts = psycopg2.extensions.parse_dsn(dsn)
    options = f"{parts.pop('options', '')} -csearch_path={schema}".strip()
    user, password = parts.pop("user", ""), parts.pop("password", "")
    credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    database = quote(parts.pop("dbname", ""), safe="")
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in {**parts, "options": options}.items())
    return f"postgresql://{credentials}@/{database}?{query}" if credentials else f"postgresql:///{database}?{query}"


def create_instance_schema(shared: dict[str, str]) -> None:
    """Create the schema for Dagster's own tables, which is the search path of their address.

    Raises:
        StackError: the database does not answer, or refuses to.
    """
    setting = "DEDP_DAGSTER_STORAGE" if _own_storage() else "DEDP_POSTGRES_DSN"
    try:
        connection = psycopg2.connect(shared["DEDP_DAGSTER_STORAGE"])
    except psycopg2.Error as error:
        raise StackError(f"PostgreSQL can't be reached; is {setting} right? {_in_a_line(error)}") from None
    schema = _INSTANCE_SCHEMA
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('search_path') WHERE current_schema() IS NULL")
            for (schema,) in cursor.fetchall():
                cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema.strip('"'))))
    except psycopg2.Error as error:
        raise StackError(
            f"the schema {schema} for Dagster's own tables can't be created; "
            f"the user in {setting} needs the privilege CREATE on the database: {_in_a_line(error)}"
        ) from None
    finally:
        connection.close()


def refuse_later_tables(shared: dict[str, str]) -> None:
    """See that no later release has migrated the tables of the system, ours or Dagster's.

    Raises:
        WrongTables: one has. The message says what was found, and what to do.
    """
    check_is_not_newer(shared["DEDP_POSTGRES_DSN"], shared["DEDP_DAGSTER_STORAGE"])


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _instance_folder(home: Path) -> Path:
    """Return DAGSTER_HOME, with its configuration. If the user has set and configured one, it stays unchanged."""
    chosen = os.environ.get("DAGSTER_HOME")
    folder = Path(chosen).resolve() if chosen else home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if not chosen:
        folder.chmod(0o700)  # the output of runs is in it
    if not chosen or not (folder / "dagster.yaml").exists():
        shutil.copyfile(INSTANCE_CONFIG, folder / "dagster.yaml")
    return folder
