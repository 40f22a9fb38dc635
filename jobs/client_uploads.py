"""Code location of the client uploads: hundreds of directories, one table."""

import dagster as dg

from dedp_assets.client_uploads.assets import uploads
from dedp_assets.resources_from_settings import PostgresFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.pipelines.client_uploads import uploads_arrived

defs = dg.Definitions(
    assets=[uploads],
    sensors=[uploads_arrived],
    resources={"postgres": PostgresFromSettings()},
    executor=in_process_executor,
)
