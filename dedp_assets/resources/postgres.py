"""The project's PostgreSQL database: the embedded server, or whichever `DEDP_POSTGRES_DSN` names."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import psycopg2
from psycopg2.extensions import connection as Connection

from dedp_assets import settings
from dedp_assets.resources import embedded_postgres


def database_dsn() -> str:
    """Where the database is; starts the embedded server for this process's life if that is the one."""
    return settings.postgres_dsn() or embedded_postgres.attach(settings.make_home() / "postgres")


class PostgresResource(dg.ConfigurableResource):
    """Connections to the project's database. `dsn` overrides the environment, for tests."""

    dsn: str | None = None

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection that is closed at the end of the block; what was not committed is rolled back."""
        connection = psycopg2.connect(self.dsn or database_dsn(), application_name="dedp")
        try:
            yield connection
        finally:
            connection.close()
