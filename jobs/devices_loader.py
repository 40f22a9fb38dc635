"""Code location of the loading team: takes the devices files in as they land."""

import warnings

import dagster as dg

from dedp_assets.run_processes import in_process_executor
from sensors.pipelines.devices_loader import devices_landed

with warnings.catch_warnings():
    # Beta in Dagster's pinned version, and used on purpose: the notices would head every command's output.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    from dedp_assets.isolated_sequencer.loader.assets import devices_file

defs = dg.Definitions(
    assets=[devices_file],
    sensors=[devices_landed],
    # A run has one step at a time; a process for each would only cost its start.
    executor=in_process_executor,
)
