"""The code location of the user intake: the users of an HTTP API, once a day.

One run fetches and stores. So no condition follows `users/raw`: it would request the users of each new day a second
time. After a fetch alone, `users_reconciled` requests them.
"""

import warnings

import dagster as dg

from dedp_assets.freshness_from_settings import with_freshness
from dedp_assets.resources_from_settings import PostgresFromSettings
from dedp_assets.run_processes import in_process_executor
from sensors.pipelines.user_intake import users_api_up, users_reconciled

with warnings.catch_warnings():
    # We use features that are beta in the pinned Dagster. Every command would print a warning about them.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.user_intake.assets import raw, users

defs = with_freshness(
    dg.Definitions(
        assets=[raw, users],
        sensors=[users_api_up, users_reconciled],
        resources={"postgres": PostgresFromSettings()},
        executor=in_process_executor,
    )
)
