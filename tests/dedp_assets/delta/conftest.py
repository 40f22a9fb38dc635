"""The tables that these tests follow."""

from pathlib import Path

import pytest

from tests.dedp_assets.delta.tables import TYPES, Table


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path / "devices")


@pytest.fixture(params=TYPES)
def table_of_each_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    return Table(tmp_path / "devices", request.param)
