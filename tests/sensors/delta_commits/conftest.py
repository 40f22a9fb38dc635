"""The table that the sensor follows, and the sensor's ticks."""

import dagster as dg
import pytest

from tests.sensors.delta_commits.world import CommitTicks, Devices


@pytest.fixture
def ticks(instance: dg.DagsterInstance) -> CommitTicks:
    return CommitTicks(instance)


@pytest.fixture
def devices() -> Devices:
    return Devices()
