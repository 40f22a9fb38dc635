"""Our Spark code also runs on a cluster: on all of its workers, and even if a worker is lost."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedp_assets.resources_from_settings import SparkFromSettings
from tests.cluster.spark_cluster import PATIENCE_SECONDS, Cluster

FILES = 8
ROWS = 1000

Batches = Iterator[pa.RecordBatch]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder of parquet files, one partition."""
    partition = tmp_path / "devices" / "event_time=2024-01-02"
    partition.mkdir(parents=True)
    for number in range(FILES):
        pq.write_table(pa.table({"id": range(number * ROWS, (number + 1) * ROWS)}), partition / f"{number}.parquet")
    return tmp_path / "devices"


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    """A folder in which the query's tasks say that they run, and wait for a sign to continue."""
    (tmp_path / "signs").mkdir()
    return tmp_path / "signs"


def sums(table: Path, signs: Path) -> int:
    """The sum of the ids, computed by Spark. The task of each file waits for the sign to continue."""
    session = SparkFromSettings().session
    session.conf.set("spark.sql.files.openCostInBytes", "1g")  # a task for each file
    files = [str(path) for path in table.rglob("*.parquet")]
    rows = session.read.option("basePath", str(table)).parquet(*files)
    total = rows.mapInArrow(waits(str(signs), PATIENCE_SECONDS), rows.schema).groupBy().sum("id").first()
    assert total is not None
    return int(total[0])


def waits(signs: str, seconds: float) -> Callable[[Batches], Batches]:
    # A closure, so that it travels as it is: the workers can't import this file.
    def wait(batches: Batches) -> Batches:
        import os
        import time

        # Spark gives each executor a folder of its own: worker/application/executor.
        with open(os.path.join(signs, os.getcwd().replace("/", "_")), "w"):
            give_up = time.monotonic() + seconds
            while not os.path.exists(os.path.join(signs, "go")) and time.monotonic() < give_up:
                time.sleep(0.05)
        yield from batches

    return wait


def wait_for_executors(signs: Path, count: int, query: "Future[int]") -> None:
    """Wait until tasks run on this many executors."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while len(list(signs.iterdir())) < count:
        if query.done():
            query.result()
        assert time.monotonic() < give_up, "the query does not run on all executors"
        time.sleep(0.05)


def test_a_query_over_files_runs_on_both_workers(cluster: Cluster, table: Path, signs: Path) -> None:
    with ThreadPoolExecutor() as pool:
        query = pool.submit(sums, table, signs)
        wait_for_executors(signs, 2, query)
        (signs / "go").touch()
        assert query.result() == sum(range(FILES * ROWS))


def test_a_query_goes_on_when_a_worker_is_killed_in_the_middle(cluster: Cluster, table: Path, signs: Path) -> None:
    with ThreadPoolExecutor() as pool:
        query = pool.submit(sums, table, signs)
        wait_for_executors(signs, 2, query)
        cluster.kill_worker(cluster.workers[0])
        (signs / "go").touch()
        assert query.result() == sum(range(FILES * ROWS))
    assert len(cluster.workers) == 1
