"""The code location of the aggregating team: loads the copied files, and keeps the totals.

All that it knows of the loading team is the key of the asset `devices_file`, its partitions and the place of a copy.
"""

import warnings

import dagster as dg

from dedp_assets.freshness_from_settings import with_freshness
from dedp_assets.resources_from_settings import PostgresFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.automation import automation_sensor, on_input_change
from sensors.pipelines.devices_aggregator import DAYS_FOLLOWED_PER_RUN, devices_raw_reconciled

with warnings.catch_warnings():
    # We use features that are beta in the pinned Dagster. Every command would print a warning about them.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.isolated_sequencer.aggregator import assets

defs = with_freshness(
    dg.Definitions(
        assets=[
            assets.devices_file,
            *dg.map_asset_specs(
                lambda spec: spec.replace_attributes(automation_condition=on_input_change()),
                [assets.devices_raw, assets.devices_aggregates],
            ),
        ],
        asset_checks=[assets.all_loads_accounted_for, assets.totals_equal_recount],
        sensors=[automation_sensor(partitions_per_run=DAYS_FOLLOWED_PER_RUN), devices_raw_reconciled],
        resources={"postgres": PostgresFromSettings()},
        executor=in_process_executor,
    )
)
