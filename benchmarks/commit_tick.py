"""A tick of the commit sensor that finds one new commit, with a long log compared with a short log.

Both tables have the same partitions and the same number of files. The time is that of the whole evaluation of the
sensor, without the commit before it. The script writes only the log, and no Parquet files, because a tick opens none.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from deltalake import DeltaTable, Field, Schema
from measuring import compare, seconds

from dedp_assets.late_data_integrator import contract
from dedp_assets.resources_from_settings import LakeFromSettings
from sensors.pipelines.late_data_integrator import devices_committed

DAYS = [(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in range(60)]
SCHEMA = Schema([Field(name, "string") for name in ("type", "full_name", "version", "event_time")])  # type: ignore[arg-type]

# The short tables take turns, because the log of a single one would not stay short.
SHORT_TABLES = 50


class Table:
    """A table in a folder, with its number of commits, the file of each day, and the cursor of the sensor."""

    def __init__(self, folder: Path, commits: int, instance: dg.DagsterInstance) -> None:
        self.lake, self.commits, self.cursor, self.instance = folder, 1, "", instance
        self.files: dict[str, dict[str, Any]] = {}
        self.log = folder / contract.DEVICES.path[-1] / "_delta_log"
        DeltaTable.create(str(self.log.parent), SCHEMA, partition_by=[contract.PARTITION_COLUMN])
        self.commit(*DAYS)
        while self.commits < commits:
            self.commit(DAYS[self.commits % len(DAYS)])
            # Writers also make checkpoints.
            if self.commits % 1_000 == 0:
                DeltaTable(str(self.log.parent)).create_checkpoint()

    def commit(self, *days: str) -> None:
        """Replace the files of these days in the next commit, which appears in one step."""
        actions: list[dict[str, Any]] = [
            {"commitInfo": {"timestamp": 1_700_000_000_000 + self.commits, "operation": "WRITE"}}
        ]
        for day in days:
            path = f"{contract.PARTITION_COLUMN}={day}/part-{self.commits:05}-6d2f1f0b7a11-c000.snappy.parquet"
            values = {contract.PARTITION_COLUMN: day}
            file = {"path": path, "partitionValues": values, "size": 1_000_000, "dataChange": True}
            if day in self.files:
                actions.append({"remove": self.files[day] | {"deletionTimestamp": 1}})
            actions.append({"add": file | {"modificationTime": 1, "stats": '{"numRecords":1000}'}})
            self.files[day] = file
        draft = self.log / ".draft"
        draft.write_text("".join(f"{json.dumps(action)}\n" for action in actions))
        draft.rename(self.log / f"{self.commits:020}.json")
        self.commits += 1

    def tick(self) -> int:
        """Evaluate the sensor, and return how many days it reports."""
        os.environ["DEDP_DATA_URI"] = str(self.lake)
        result = devices_committed(
            dg.build_sensor_context(self.instance, self.cursor, resources={"lake": LakeFromSettings()})
        )
        assert isinstance(result, dg.SensorResult)
        self.cursor = str(result.cursor)
        return len(result.asset_events)

    def catch_up(self) -> None:
        while self.tick():
            pass

    def tick_after_a_commit(self) -> float:
        """Return how long a tick that finds one commit takes, in seconds."""
        self.catch_up()
        self.commit(DAYS[self.commits % len(DAYS)])
        reported: list[int] = []
        taken = seconds(lambda: reported.append(self.tick()))
        assert reported == [1]
        return taken


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--many", type=int, default=10_000)
    arguments.add_argument("--few", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=500)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        few = [Table(Path(folder) / f"few-{number}", options.few, instance) for number in range(SHORT_TABLES)]
        many = Table(Path(folder) / "many", options.many, instance)
        for table in (*few, many):
            table.catch_up()
        # Write everything to the disk now, and not while a tick is measured.
        os.sync()
        taken: list[float] = []

        def at_many(_: int) -> float:
            taken.append(many.tick_after_a_commit())
            return taken[-1]

        held = compare(
            (f"at {options.many:,} commits", f"at {options.few:,} commits"),
            (at_many, lambda number: few[number % SHORT_TABLES].tick_after_a_commit()),
            rounds=options.rounds,
            at_most=1.5,
        )
    print(f"{statistics.median(taken) * 1000:.1f} ms a tick that finds one commit at {options.many:,}")
    return held


if __name__ == "__main__":
    # Dagster logs the findings of every tick to stderr.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = main()
    sys.exit(0 if held else 1)
