"""A database with the tables of the promotions."""

from collections.abc import Iterator

import pytest

from tests.promotion_tables import Deliveries


@pytest.fixture
def deliveries(empty_dsn: str) -> Iterator[Deliveries]:
    made = Deliveries(empty_dsn)
    yield made
    made.connection.close()
