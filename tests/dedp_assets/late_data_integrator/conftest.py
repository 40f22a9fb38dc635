"""The tables of the test's own home."""

import pytest

from dedp_assets.late_data_integrator.processing import Processed, process
from tests.dedp_assets.late_data_integrator.device_tables import Counting, Lake, Run, count


@pytest.fixture
def lake() -> Lake:
    return Lake()


@pytest.fixture
def counting() -> Counting:
    return count


@pytest.fixture
def run(lake: Lake, counting: Counting) -> Run:
    """Counts days without Spark."""

    def run(*days: str) -> list[Processed]:
        return process(days, lake.log, lake.open_counts, counting)

    return run
