"""The code location of the loading team: copies the devices files as they land."""

import warnings

import dagster as dg

from dedp_assets.freshness_from_settings import with_freshness
from dedp_assets.run_processes import in_process_executor
from sensors.pipelines.devices_loader import devices_landed

with warnings.catch_warnings():
    # We use features that are beta in the pinned Dagster. Every command would print a warning about them.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.isolated_sequencer.loader.assets import devices_file

defs = with_freshness(
    dg.Definitions(
        assets=[devices_file],
        sensors=[devices_landed],
        # A run executes one step at a time. A process for each step would only cost time.
        executor=in_process_executor,
    )
)
