"""Code location of the aggregating team: loads what the loader took in, and keeps the totals.

It follows the loader by the key of the asset `devices_file` alone.
"""

import warnings

import dagster as dg

from dedp_assets.resources_from_settings import PostgresFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.automation import automation_sensor, on_input_change
from sensors.pipelines.devices_aggregator import devices_raw_reconciled

with warnings.catch_warnings():
    # Beta in Dagster's pinned version, and used on purpose: the notices would head every command's output.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.isolated_sequencer.aggregator import assets

defs = dg.Definitions(
    assets=[
        assets.devices_file,
        *dg.map_asset_specs(
            lambda spec: spec.replace_attributes(automation_condition=on_input_change()),
            [assets.devices_raw, assets.devices_aggregates],
        ),
    ],
    asset_checks=[assets.all_loads_accounted_for, assets.totals_equal_recount],
    sensors=[automation_sensor(), devices_raw_reconciled],
    resources={"postgres": PostgresFromSettings()},
    executor=in_process_executor,
)
