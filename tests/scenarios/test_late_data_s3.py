"""The late-data integrator with all its tables in an object store: a real S3 server, real Delta, real Spark."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake
from pyspark import cloudpickle

from dedp_assets.cli import dedp
from dedp_assets.delta.log import DeltaLog
from dedp_assets.late_data_integrator import contract, counting
from dedp_assets.resources.object_store import read_text, storage_options
from dedp_assets.resources_from_settings import LakeFromSettings, SparkFromSettings
from jobs.late_data_integrator import defs
from sensors.pipelines.late_data_integrator import devices_committed
from tests.lake import Device, count_anew, read_counts, read_states
from tests.ticks import SensorTicks

FIRST, SECOND, THIRD = "2024-01-01", "2024-01-02", "2024-01-03"
TARGETS = [contract.DEVICE_COUNTS, contract.PARTITIONS_STATE, contract.BACKFILLING_CONFIGURATION]


@pytest.fixture
def lake(s3_bucket: str, spark_remote: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> "Lake":
    monkeypatch.setenv("DEDP_DATA_URI", f"{s3_bucket}/some/lake")
    return Lake(instance)


class Lake:
    """The tables in the bucket, and a Dagster instance beside them."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.ticks = SensorTicks(
            devices_committed, instance, resources={"lake": LakeFromSettings()}, records_events=True
        )

    def load(self, *days: str) -> None:
        done = CliRunner().invoke(dedp, ["load-delta", *days], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    def tick(self) -> dict[str, str]:
        """A tick of the commit sensor: the days that it reports, with their data versions."""
        return {str(event.partition): (event.tags or {})["dagster/data_version"] for event in self.ticks().events}

    def materialize(self, day: str) -> None:
        job = defs.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=self.instance, partition_key=day, asset_selection=TARGETS).success

    def table(self, key: dg.AssetKey) -> DeltaTable:
        return DeltaTable(contract.uri(key), storage_options=storage_options(contract.uri(key)))

    def recount(self, day: str) -> Counter[Device]:
        return count_anew(contract.uri(contract.DEVICES), day)

    def counts(self, day: str) -> Counter[Device]:
        return read_counts(contract.uri(contract.DEVICE_COUNTS), day)

    def state(self) -> dict[str, tuple[bool, int | None]]:
        return read_states(contract.uri(contract.PARTITIONS_STATE))

    def configuration(self, day: str) -> str | None:
        return read_text(f"{contract.uri(contract.BACKFILLING_CONFIGURATION)}_{day}.json")


@pytest.mark.slow
def test_a_day_and_its_late_data_from_the_commits_to_the_last_json(lake: Lake) -> None:
    lake.load(FIRST, SECOND, THIRD)
    assert lake.tick() == {FIRST: "0", SECOND: "1", THIRD: "2"}
    for day in (FIRST, SECOND):
        lake.materialize(day)
        assert lake.counts(day) == lake.recount(day)
        assert lake.counts(day).total() == 100
    assert lake.state() == {FIRST: (False, 2), SECOND: (False, 2)}
    assert lake.configuration(SECOND) == '{"partitions":[]}'

    lake.load(FIRST)
    assert lake.tick() == {FIRST: "3"}
    written = lake.table(contract.DEVICE_COUNTS).version()
    lake.materialize(SECOND)
    assert lake.table(contract.DEVICE_COUNTS).version() == written
    assert lake.configuration(SECOND) == '{"partitions":["event_time=2024-01-01"]}'

    lake.materialize(FIRST)
    assert lake.counts(FIRST) == lake.recount(FIRST)
    assert lake.counts(FIRST).total() == 200
    assert lake.state() == {FIRST: (False, 3), SECOND: (False, 2)}
    assert lake.tick() == {}


def devices(day: str | date, **columns: pa.Array) -> pa.Table:
    rows = len(next(iter(columns.values())))
    return pa.table({**columns, "event_time": [day] * rows})


@pytest.mark.parametrize(
    "typed", [pytest.param(str, marks=pytest.mark.slow), date.fromisoformat], ids=["as text", "as date"]
)
def test_the_workers_of_spark_read_an_object_store_as_spark_reads_a_folder(
    lake: Lake, tmp_path: Path, typed: Callable[[str], str | date]
) -> None:
    names = pa.array(["a", None, "", "Ω 😀", "a"])
    contents = [
        devices(typed(FIRST), type=names, full_name=pa.array(list("vwxyz")), more=pa.array(range(5))),
        devices(typed(FIRST), type=names, full_name=names, version=names),
        devices(typed(SECOND), type=names.cast(pa.large_string()), full_name=names.dictionary_encode(), version=names),
        devices(typed(THIRD), type=names, full_name=names, version=names),
    ]
    found = []
    for uri in (str(tmp_path / "devices"), contract.uri(contract.DEVICES)):
        for content in contents:
            write_deltalake(
                uri,
                content,
                mode="append",
                partition_by=["event_time"],
                schema_mode="merge",
                storage_options=storage_options(uri),
            )
        snapshot = DeltaLog(uri, storage_options(uri)).snapshot()
        counts = counting.count_devices(SparkFromSettings().session, snapshot, [FIRST, SECOND])
        found.append(sorted(map(str, counts.to_pylist())))
    assert found[0] == found[1]
    assert len(found[0]) == 5 + 4 + 4


# A worker of a cluster: it has pyarrow, deltalake and the store's variables, and nothing of ours.
_WORKER = """
import pickle, sys
import pyarrow as pa
sys.modules["dedp_assets"] = None
read, files = pickle.load(sys.stdin.buffer)
print(sum(part.num_rows for part in read(iter([pa.RecordBatch.from_pylist(files)]))))
"""


def test_a_worker_needs_nothing_of_ours_and_is_sent_no_credentials(lake: Lake) -> None:
    lake.load(FIRST, SECOND)
    uri = contract.uri(contract.DEVICES)
    snapshot = DeltaLog(uri, storage_options(uri)).snapshot()
    files = [
        {"file": file.removeprefix(f"{uri}/"), "day": day} for day in (FIRST, SECOND) for file in snapshot.files[day]
    ]
    read = counting._reader(uri, ["type", "full_name", "version"])
    sent: bytes = cloudpickle.dumps((read, files))  # type: ignore[no-untyped-call]  # PySpark has no type for it
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert os.environ[name].encode() not in sent
    worker = subprocess.run([sys.executable, "-c", _WORKER], input=sent, capture_output=True, check=False)
    assert (worker.stdout, worker.stderr) == (b"200\n", b"")
