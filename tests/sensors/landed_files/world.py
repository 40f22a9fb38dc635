"""A real landing folder, and ticks of the sensor that watches it."""

from dataclasses import replace
from datetime import date, timedelta

import dagster as dg

from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader.assets import devices_file
from jobs import devices_loader
from sensors.landed_files.cursor import Cursor
from sensors.pipelines.devices_loader import devices_landed
from tests.ticks import SensorTicks, Tick


class LandedTicks(SensorTicks):
    """Ticks of `devices_landed`."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        super().__init__(devices_landed, instance, definitions=devices_loader.defs)

    def compare_copies(self) -> Tick:
        """A tick that compares all copies with the files, and for which all that waits is due."""
        cursor = Cursor.from_json(self.cursor)
        waiting = {day: each._replace(due=0) for day, each in cursor.waiting.items()}
        self.cursor = replace(cursor, compared=0, waiting=waiting).to_json()
        return self()

    def run_requested(self, tick: Tick) -> list[str]:
        """Execute the runs that a tick requested; returns their days."""
        for request in tick.run_requests:
            assert run(self.instance, request)
        return [day for request in tick.run_requests for day in days_of(request)]


def run(instance: dg.DagsterInstance, request: dg.RunRequest) -> bool:
    """Execute a run that the sensor requested, as the daemon would; returns whether it succeeded."""
    return dg.materialize(
        [devices_file],
        instance=instance,
        partition_key=request.partition_key,
        tags=dict(request.tags),
        run_config=request.run_config,
        raise_on_error=False,
    ).success


def days_of(request: dg.RunRequest) -> list[str]:
    """The days of a run, which is over one partition or over a range."""
    if request.partition_key:
        return [request.partition_key]
    first, last = (date.fromisoformat(request.tags[f"dagster/asset_partition_range_{end}"]) for end in ("start", "end"))
    return [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]


def content_of(day: str) -> str:
    """The content of a day's copy."""
    return contract.internal_file(day).read_text()
