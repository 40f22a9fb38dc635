"""A table that cannot be read ends a tick of the reconciling sensor with a message, and nothing that waits is lost."""

import dagster as dg

from sensors.pipelines.late_data_integrator import late_data_reconciled
from tests.sensors.delta_commits.world import FIRST, SECOND, Devices, protocol_with
from tests.ticks import SensorTicks


def test_a_table_that_is_not_there_yet_is_named(instance: dg.DagsterInstance) -> None:
    devices = Devices()
    assert SensorTicks(late_data_reconciled, instance)().message == f"there is no Delta table at {devices.uri}"


def test_a_table_that_became_unreadable_is_named_and_nothing_that_waits_is_forgotten(
    instance: dg.DagsterInstance,
) -> None:
    devices, ticks = Devices(), SensorTicks(late_data_reconciled, instance)
    devices.append(FIRST, SECOND)
    for day in (FIRST, SECOND):
        instance.report_runless_asset_event(dg.AssetMaterialization(["lake", "devices"], partition=day))
    assert ticks().message == f"1 behind their input: {FIRST}"
    waiting = ticks.cursor
    devices.write_commit(1, protocol_with("typeWidening"))
    tick = ticks()
    assert "typeWidening" in tick.message
    assert tick.cursor == waiting
