"""Code location of the promotions' deliveries: copied whole, loaded with quarantine, and measured."""

import warnings

import dagster as dg

from dedp_assets.freshness_from_settings import with_freshness
from dedp_assets.resources_from_settings import NotifierFromSettings, PostgresFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.pipelines.promotions import promotions_delivered
from sensors.pipelines.promotions_reconciled import promotions_reconciled

with warnings.catch_warnings():
    # Beta in Dagster's pinned version, and used on purpose: the notices would head every command's output.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.promotions.deliveries.assets import every_supplier_delivered, promotion_deliveries
    from dedp_assets.promotions.deliveries.refreshing import refresh_supermarket

defs = with_freshness(
    dg.Definitions(
        assets=[promotion_deliveries],
        asset_checks=[every_supplier_delivered],
        jobs=[refresh_supermarket],
        sensors=[promotions_delivered, promotions_reconciled],
        resources={"postgres": PostgresFromSettings(), "notifier": NotifierFromSettings()},
        executor=in_process_executor,
    )
)
