"""How programs of PostgreSQL, such as psql and pg_dump, are told where the database is."""

import psycopg2.extensions


def connection_of(dsn: str) -> tuple[str, dict[str, str]]:
    """Split an address into what may stand in a command line, and what may not.

    Every user of the machine can read a command line, so the password goes into the environment.

    Returns:
        The address without its password, and the environment variables that a program needs beside it.
    """
    parts = psycopg2.extensions.parse_dsn(dsn)
    secret = {"PGPASSWORD": parts.pop("password")} if "password" in parts else {}
    return psycopg2.extensions.make_dsn(**parts), secret
