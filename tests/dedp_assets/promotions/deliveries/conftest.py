"""A database of the test's own, with the tables of deliveries."""

from collections.abc import Iterator

import psycopg2
import pytest

from dedp_assets.promotions.deliveries.tables import ensure_tables
from tests.dedp_assets.promotions.deliveries.shop import Shop


@pytest.fixture
def shop(dsn: str) -> Iterator[Shop]:
    connection = psycopg2.connect(dsn)
    ensure_tables(connection)
    yield Shop(connection)
    connection.close()
