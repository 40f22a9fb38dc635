"""The code location of the late-data integrator: counts each day of a Delta table, and again when it gets late data."""

import warnings

import dagster as dg

from dedp_assets.freshness_from_settings import with_freshness
from dedp_assets.resources_from_settings import LakeFromSettings, SparkFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.automation import PartitionClosed, UntilRequested, automation_sensor, on_input_change
from sensors.pipelines.late_data_integrator import devices_committed, late_data_reconciled

with warnings.catch_warnings():
    # We use features that are beta in the pinned Dagster. Every command would print a warning about them.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.late_data_integrator import assets
    from dedp_assets.late_data_integrator.picture_asset import picture

# A day is closed once data for the next day exists. Count it then, and from then on whenever it changes.
WHEN_CLOSED = on_input_change() & PartitionClosed()

# For an asset without partitions. Its inputs always have partitions that are missing, so it must not wait for these.
WHEN_ANYTHING_CHANGES = (
    UntilRequested(dg.AutomationCondition.any_deps_updated()) & ~dg.AutomationCondition.in_progress()
)

defs = with_freshness(
    dg.Definitions(
        assets=[
            assets.devices,
            assets.device_counts.map_asset_specs(
                lambda spec: spec.replace_attributes(automation_condition=WHEN_CLOSED)
            ),
            *dg.map_asset_specs(
                lambda spec: spec.replace_attributes(automation_condition=on_input_change()),
                [assets.partitions_state, assets.backfilling_configuration],
            ),
            picture.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=WHEN_ANYTHING_CHANGES)),
        ],
        sensors=[devices_committed, automation_sensor(), late_data_reconciled],
        resources={"lake": LakeFromSettings(), "spark": SparkFromSettings()},
        executor=in_process_executor,
    )
)
