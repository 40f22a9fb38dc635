"""Code location of the reports on promotions: differences, the dashboard, and a message for each delivery."""

import dagster as dg

from dedp_assets.freshness_from_settings import with_freshness
from dedp_assets.promotions.reports.assets import promotion_reports
from dedp_assets.promotions.reports.workflow import WORKFLOW
from dedp_assets.resources_from_settings import NotifierFromSettings, PostgresFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.pipelines.promotion_reports import promotions_followed

defs = with_freshness(
    dg.Definitions(
        assets=[promotion_reports],
        jobs=[WORKFLOW],
        sensors=[promotions_followed],
        resources={"postgres": PostgresFromSettings(), "notifier": NotifierFromSettings()},
        executor=in_process_executor,
    )
)
