"""A run for late data in one day, on a warm server, compared with the same Spark job as a bare Connect script.

Both read the files of the day, count, and write the counts to a Delta table. In addition the run chooses a snapshot,
finds the changes since the last one, records the input version, and writes the state table and metadata.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

import dagster as dg
from deltalake import write_deltalake
from lake import append
from measuring import compare, seconds

from dedp_assets.late_data_integrator import assets, contract
from dedp_assets.late_data_integrator.counting import count_devices
from dedp_assets.late_data_integrator.tables import open_devices_log
from dedp_assets.resources_from_settings import LakeFromSettings, SparkFromSettings

AT_MOST = 1.3
DAY = "2024-01-02"


def main() -> bool:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=15)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        os.environ |= {"DEDP_HOME": folder}
        spark = SparkFromSettings()
        bare_table = str(Path(folder) / "bare")
        append(DAY, given.rows)
        steps = Steps(instance, spark)

        def run(_: int) -> float:
            append(DAY, 1)
            return steps.seconds()

        def bare(_: int) -> float:
            append(DAY, 1)
            return seconds(lambda: count_bare(spark, bare_table))

        for warm_up in range(5):
            run(warm_up)
            bare(warm_up)
        return compare(("the run's step", "a bare script"), (run, bare), rounds=given.rounds, at_most=AT_MOST)


def count_bare(spark: SparkFromSettings, table: str) -> None:
    snapshot = open_devices_log(LakeFromSettings()).snapshot()
    counts = count_devices(spark.session, snapshot, [DAY])
    write_deltalake(table, counts, mode="overwrite", partition_by=[contract.PARTITION_COLUMN])


class Steps:
    """Runs of device_counts for the day, in this process."""

    def __init__(self, instance: dg.DagsterInstance, spark: SparkFromSettings) -> None:
        self._instance, self._spark = instance, spark

    def seconds(self) -> float:
        """How long the step of a run takes, without what Dagster does before and after it."""
        done = dg.materialize(
            [assets.devices, assets.device_counts],
            instance=self._instance,
            partition_key=DAY,
            resources={"lake": LakeFromSettings(), "spark": self._spark},
        )
        entries = {
            entry.dagster_event.event_type_value: entry.timestamp
            for entry in self._instance.all_logs(done.run_id)
            if entry.dagster_event and entry.dagster_event.step_key
        }
        return entries["STEP_SUCCESS"] - entries["STEP_START"]


if __name__ == "__main__":
    # Dagster logs every event of a run to stderr.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        held = main()
    sys.exit(0 if held else 1)
