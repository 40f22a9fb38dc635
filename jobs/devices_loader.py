"""Code location of the loading team: takes the devices files in as they land."""

import dagster as dg

from dedp_assets.isolated_sequencer.loader.assets import devices_file
from sensors.files import devices_landed

defs = dg.Definitions(
    assets=[devices_file],
    sensors=[devices_landed],
    # A run has one step at a time; a process for each would only cost its start.
    executor=dg.in_process_executor,
)
