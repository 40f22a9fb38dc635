"""A table that cannot be read ends a tick of the reconciling sensor with a message, and nothing that waits is lost."""

from pathlib import Path

import dagster as dg

from dedp_assets.late_data_integrator import contract
from dedp_assets.resources_from_settings import LakeFromSettings
from sensors.pipelines.late_data_integrator import late_data_reconciled
from tests.sensors.delta_commits.world import FIRST, SECOND, Devices, protocol_with
from tests.ticks import SensorTicks


class Reconciling(SensorTicks):
    """Ticks of `late_data_reconciled`."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        super().__init__(late_data_reconciled, instance, resources={"lake": LakeFromSettings()})


def test_a_table_that_is_not_there_yet_is_named(instance: dg.DagsterInstance) -> None:
    devices = Devices()
    assert Reconciling(instance)().message == f"there is no Delta table at {devices.uri}"


def test_a_table_that_became_unreadable_is_named_and_nothing_that_waits_is_forgotten(
    instance: dg.DagsterInstance,
) -> None:
    devices, ticks = Devices(), Reconciling(instance)
    devices.append(FIRST, SECOND)
    for day in (FIRST, SECOND):
        instance.report_runless_asset_event(dg.AssetMaterialization(contract.DEVICES, partition=day))
    assert ticks().message == f"1 behind their input: {FIRST}"
    waiting = ticks.cursor
    devices.write_commit(1, protocol_with("typeWidening"))
    tick = ticks()
    assert "typeWidening" in tick.message
    assert tick.cursor == waiting


def test_a_damaged_state_table_is_named_and_hides_no_day_that_is_behind(instance: dg.DagsterInstance) -> None:
    devices, ticks = Devices(), Reconciling(instance)
    devices.append(FIRST, SECOND)
    for day in (FIRST, SECOND):
        instance.report_runless_asset_event(dg.AssetMaterialization(contract.DEVICES, partition=day))
    ticks()
    state_table = Path(contract.uri(contract.PARTITIONS_STATE))
    (state_table / "_delta_log" / f"{0:020}.json").write_text("damaged")
    ticks.cursor = None
    message = ticks().message
    assert message.startswith(f"error: {state_table} can't be read")
    assert message.endswith(f"1 behind their input: {FIRST}")
    assert FIRST in (ticks.cursor or "")
