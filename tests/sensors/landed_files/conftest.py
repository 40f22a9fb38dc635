"""The days that land, and the sensor's ticks."""

from datetime import datetime, timezone

import dagster as dg
import pytest

from dedp_assets import settings
from dedp_assets.isolated_sequencer import contract
from tests.sensors.landed_files.world import LandedTicks


@pytest.fixture
def three_days() -> list[str]:
    """The days whose partitions take the undated file in a new home."""
    days = contract.due_days(datetime.now(timezone.utc), settings.start())
    assert len(days) == 3
    return list(days)


@pytest.fixture
def ticks(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> LandedTicks:
    # Files are taken at once. Other tests see to it that they settle first.
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "0")
    return LandedTicks(instance)
