"""The tables of the test's own home."""

from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest

from dedp_assets.delta.commits import Snapshot
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
    def run(*days: str, while_counting: Callable[[], object] = lambda: None) -> list[Processed]:
        def count(snapshot: Snapshot, wanted: Sequence[str]) -> pa.Table:
            table = counting(snapshot, wanted)
            while_counting()
            return table

        return process(days, lake.log, lake.open_counts, count)

    return run
