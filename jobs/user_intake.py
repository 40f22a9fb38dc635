"""The code location of the user intake: the users of an HTTP API, once a day."""

import warnings

import dagster as dg

from dedp_assets.resources_from_settings import PostgresFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.automation import automation_sensor, on_input_change
from sensors.pipelines.user_intake import users_api_up, users_reconciled

with warnings.catch_warnings():
    # We use features that are beta in the pinned Dagster. Every command would print a warning about them.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.user_intake.assets import raw, users

defs = dg.Definitions(
    assets=[raw, users.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=on_input_change()))],
    sensors=[users_api_up, users_reconciled, automation_sensor()],
    resources={"postgres": PostgresFromSettings()},
    executor=in_process_executor,
)
