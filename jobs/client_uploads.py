"""Code location of the client uploads: hundreds of directories, one table."""

import warnings

import dagster as dg

from dedp_assets.client_uploads.workflow import WORKFLOW
from dedp_assets.freshness_from_settings import with_freshness
from dedp_assets.resources_from_settings import NotifierFromSettings, PostgresFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.pipelines.client_uploads import uploads_arrived
from sensors.pipelines.client_uploads_quarantine import uploads_quarantine_watched
from sensors.pipelines.client_uploads_report import uploads_report

with warnings.catch_warnings():
    # Beta in Dagster's pinned version, and used on purpose: the notices would head every command's output.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.client_uploads.assets import no_client_is_silent, uploads
    from dedp_assets.client_uploads.report_asset import report

defs = with_freshness(
    dg.Definitions(
        assets=[uploads, report],
        asset_checks=[no_client_is_silent],
        jobs=[WORKFLOW],
        sensors=[uploads_arrived, uploads_quarantine_watched],
        schedules=[uploads_report],
        resources={"postgres": PostgresFromSettings(), "notifier": NotifierFromSettings()},
        executor=in_process_executor,
    )
)
