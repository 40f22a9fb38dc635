"""The code location of the flight searches: files of events, a table that Spark appends them to, two aggregations."""

import warnings

import dagster as dg

from dedp_assets.freshness_from_settings import with_freshness
from dedp_assets.resources_from_settings import LakeFromSettings, SparkFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.automation import automation_sensor, on_input_change
from sensors.pipelines.flight_search import flight_search_reconciled, flight_searches_landed

with warnings.catch_warnings():
    # We use features that are beta in the pinned Dagster. Every command would print a warning about them.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.flight_search import assets

defs = with_freshness(
    dg.Definitions(
        assets=[
            assets.searches,
            *dg.map_asset_specs(
                lambda spec: spec.replace_attributes(automation_condition=on_input_change()),
                [assets.per_route, assets.per_hour],
            ),
        ],
        sensors=[flight_searches_landed, automation_sensor(), flight_search_reconciled],
        resources={"lake": LakeFromSettings(), "spark": SparkFromSettings()},
        executor=in_process_executor,
    )
)
