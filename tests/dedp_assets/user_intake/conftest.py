"""The API of the tests, and a database with the tables of the user intake."""

from collections.abc import Iterator

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.user_intake.storing import ensure_tables
from tests.user_api import Api, user_api


@pytest.fixture
def api() -> Iterator[Api]:
    with user_api() as running:
        yield running


@pytest.fixture
def tables(dsn: str) -> Iterator[Connection]:
    connection = psycopg2.connect(dsn)
    ensure_tables(connection)
    yield connection
    connection.close()
