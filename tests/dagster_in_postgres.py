"""A real Dagster instance whose tables are in PostgreSQL, in the schema that the system uses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psycopg2

from dedp_assets import local_stack

_CONFIG = """
storage:
  custom:
    module: dedp_assets.resources.dagster_storage
    class: PooledPostgresStorage
    config: {{postgres_url: "{url}"}}
run_retries: {{enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}}
telemetry: {{enabled: false}}
"""


@contextmanager
def dagster_in_postgres(dsn: str, folder: Path) -> Iterator[tuple[dg.DagsterInstance, str]]:
    """An instance in the database, and the URL of its tables. Its configuration is in the folder."""
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA dagster")
    connection.close()
    url = local_stack.in_dagster_schema(dsn)
    (folder / "dagster.yaml").write_text(_CONFIG.format(url=url))
    with dg.DagsterInstance.from_config(os.fspath(folder)) as instance:
        yield instance, url
