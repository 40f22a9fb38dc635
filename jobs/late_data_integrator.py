"""Code location of the late-data integrator: counts each day of a Delta table, and again when late data has come."""

import warnings

import dagster as dg

from dedp_assets.resources.lake import LakeResource
from dedp_assets.resources.spark import SparkConnectResource
from dedp_assets.run_processes import in_process_executor
from sensors.automation import PartitionClosed, UntilRequested, automation_sensor, on_input_change
from sensors.pipelines.late_data_integrator import devices_committed, late_data_reconciled

with warnings.catch_warnings():
    # Beta in Dagster's pinned version, and used on purpose: the notices would head every command's output.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.late_data_integrator import assets
    from dedp_assets.late_data_integrator.picture_asset import picture

# First when the day is closed, as the next one has begun; from then on whenever it changes.
WHEN_CLOSED = on_input_change() & PartitionClosed()

# An asset without partitions, after one that always has days which are not there yet.
WHEN_ANYTHING_CHANGES = (
    UntilRequested(dg.AutomationCondition.any_deps_updated()) & ~dg.AutomationCondition.in_progress()
)

defs = dg.Definitions(
    assets=[
        assets.devices,
        assets.device_counts.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=WHEN_CLOSED)),
        *dg.map_asset_specs(
            lambda spec: spec.replace_attributes(automation_condition=on_input_change()),
            [assets.partitions_state, assets.backfilling_configuration],
        ),
        picture.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=WHEN_ANYTHING_CHANGES)),
    ],
    sensors=[devices_committed, automation_sensor(), late_data_reconciled],
    resources={"lake": LakeResource(), "spark": SparkConnectResource()},
    executor=in_process_executor,
)
