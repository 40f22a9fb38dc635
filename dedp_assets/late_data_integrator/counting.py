"""The Spark job: how often each device occurs, per day."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from dedp_assets.late_data_integrator.contract import PARTITION_COLUMN
from dedp_assets.late_data_integrator.delta_log import Snapshot
from dedp_assets.late_data_integrator.device_counts import SCHEMA

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.connect.session import SparkSession

# Given, so that Spark need not read a file to find out, and takes the day from the path as a date.
_DEVICES = f"type STRING, full_name STRING, version STRING, {PARTITION_COLUMN} DATE"

# As many tasks at most read from an object store, whatever the number of files.
_TASKS = 200


def count_devices(spark: "SparkSession", snapshot: Snapshot, days: Sequence[str]) -> pa.Table:
    """The counts of those days, of `device_counts.SCHEMA`, from exactly the files of this snapshot.

    Only the counts come to this process; the rows stay with Spark. A table in a folder is read by Spark itself, for
    which it must be under the same path for each of its executors. One in an object store is read by the Python workers
    of Spark, since a plain Spark has no libraries for that: see `_reader` for what they need.
    """
    files = [(file, day) for day in days for file in snapshot.files.get(day, ())]
    if not files:
        return SCHEMA.empty_table()
    # Delta does not promise that a file's folder is named after its partition. Spark would look for the day there.
    by_spark = "://" not in snapshot.root and all(f"/{PARTITION_COLUMN}={day}/" in file for file, day in files)
    devices = (_read_by_spark if by_spark else _read_in_workers)(spark, snapshot.root, files)
    return devices.groupBy(PARTITION_COLUMN, "type", "full_name", "version").count().toArrow()


def _read_by_spark(spark: "SparkSession", root: str, files: Sequence[tuple[str, str]]) -> "DataFrame":
    return spark.read.schema(_DEVICES).option("basePath", root).parquet(*(file for file, _ in files))


def _read_in_workers(spark: "SparkSession", root: str, files: Sequence[tuple[str, str]]) -> "DataFrame":
    names = [(file.removeprefix(f"{root}/"), day) for file, day in files]
    tasks = spark.createDataFrame(names, "file STRING, day STRING").repartition(min(len(names), _TASKS))
    return tasks.mapInArrow(_reader(root), _DEVICES)


def _reader(root: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What reads the rows of files below `root`, given by `file` and `day`, within a Python worker of Spark.

    A worker needs Python of the same minor version as here, with pyarrow and deltalake, and the object store's
    standard variables (AWS_ACCESS_KEY_ID and so on) in its own environment: no credentials are sent. The workers of
    an embedded server have all that from the process that started it; a cluster's executors have to be given it.
    """
    column = PARTITION_COLUMN

    # A function within a function is sent as it is. One of this module would be sent as its name, for each worker to
    # look up in a dedp_assets of its own.
    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from datetime import date

        import pyarrow as pa
        import pyarrow.dataset as ds
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import PyFileSystem

        store = PyFileSystem(DeltaStorageHandler(root))
        devices = pa.schema([(name, pa.string()) for name in ("type", "full_name", "version")])
        for batch in batches:
            for task in batch.to_pylist():
                day = pa.scalar(date.fromisoformat(task["day"]))
                # As Spark reads: a column that a file does not have is null.
                rows = ds.dataset([task["file"]], schema=devices, format="parquet", filesystem=store)
                for part in rows.to_batches():
                    yield part.append_column(column, pa.repeat(day, part.num_rows))

    return read
