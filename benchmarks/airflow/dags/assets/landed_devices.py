"""An event trigger for an AssetWatcher: it watches the landing folder and takes each devices file that appears."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent


class LandedDevices(BaseEventTrigger):
    """Moves each file `<landing>/<day>/dataset.csv` to `<taken>/<day>.csv`, and emits an event for it."""

    def __init__(self, landing: str, taken: str, poll_seconds: float = 1) -> None:
        super().__init__()
        self.landing, self.taken, self.poll_seconds = landing, taken, poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        values = {"landing": self.landing, "taken": self.taken, "poll_seconds": self.poll_seconds}
        return "landed_devices.LandedDevices", values

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while True:
            for file in sorted(Path(self.landing).glob("*/dataset.csv")):
                day = file.parent.name
                file.replace(Path(self.taken) / f"{day}.csv")
                yield TriggerEvent({"day": day})
            await asyncio.sleep(self.poll_seconds)
