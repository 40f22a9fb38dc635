"""What the loading team watches: the folder that devices files land in."""

from dedp_assets import settings
from dedp_assets.doorbell.woken_by import woken_by
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader.landing import landing_folder
from sensors.landed_files.sensor import landed_files_sensor

devices_landed = landed_files_sensor(
    "devices_landed",
    contract.DEVICES_FILE,
    partitions=contract.LOADS,
    landing=landing_folder,
    copy_of=contract.internal_file,
    due_days=contract.due_days,
    undated_due_days=lambda now: contract.due_days(now, settings.start()),
    settle_seconds=settings.settle_seconds,
    description="Copies each day's devices file once it is there, complete and new. Waiting takes up no run.",
    metadata=woken_by(folders="sensors.watched_folders:devices"),
)
