"""Code location of the client uploads: hundreds of directories, one table."""

import dagster as dg

from dedp_assets.client_uploads.assets import uploads
from dedp_assets.client_uploads.report_asset import report
from dedp_assets.resources_from_settings import PostgresFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.pipelines.client_uploads import uploads_arrived
from sensors.pipelines.client_uploads_report import uploads_report

defs = dg.Definitions(
    assets=[uploads, report],
    sensors=[uploads_arrived],
    schedules=[uploads_report],
    resources={"postgres": PostgresFromSettings()},
    executor=in_process_executor,
)
