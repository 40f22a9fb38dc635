"""The Spark job: how often each device occurs, per day."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from dedp_assets.delta.commits import Snapshot
from dedp_assets.delta.problems import UnsupportedTable
from dedp_assets.errors import TransientError
from dedp_assets.late_data_integrator.contract import PARTITION_COLUMN
from dedp_assets.late_data_integrator.device_counts import SCHEMA

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.connect.session import SparkSession

_LONGEST_REASON = 500

_COUNTED = ("type", "full_name", "version")

# The types that a counted column may have: Delta's name of the type, and Spark's.
_TYPES = {"string": "STRING", "byte": "TINYINT", "short": "SMALLINT", "integer": "INT", "long": "BIGINT"}

# At most this many Spark tasks read files in Python, however many files there are.
_TASKS = 200

# File names that Spark takes literally in any locale. It takes *?[]{}\ for a pattern, and can't be told not to. A colon
# makes it fail.
_LITERAL = re.compile(r"[A-Za-z0-9 /_.,=+@~-]+")

# What Spark and `_reader` say about a file whose columns do not match its table.
_WRONG_FILE = re.compile(
    r"\[FAILED_READ_FILE\.PARQUET_COLUMN_DATA_TYPE_MISMATCH\] (.*?)\.? SQLSTATE"
    r"|UnsupportedFile: (.*)"
)


class CountingFailed(TransientError):
    """Spark could not count the rows. The next attempt may succeed: a file was vacuumed, or a worker was lost."""


def count_devices(spark: "SparkSession", snapshot: Snapshot, days: Sequence[str]) -> pa.Table:
    """Count the devices of days, from exactly the files of this snapshot.

    Only the counts come to this process; the rows stay with Spark. Spark itself reads a table in a folder, which must
    have the same path for each of its executors. A plain Spark has no libraries for object stores, so its Python
    workers read tables there; see `_reader` for what they need. They also read files with names that Spark would not
    take literally.

    Args:
        spark: the session to count with.
        snapshot: the input.
        days: the days to count.

    Returns:
        Rows of `device_counts.SCHEMA`.

    Raises:
        UnsupportedTable: the table, or a file of it, lacks a counted column or has it in another type.
        CountingFailed: Spark failed for another reason.
    """
    files = [(file, day) for day in days for file in snapshot.files.get(day, ())]
    if not files:
        return SCHEMA.empty_table()
    columns = counted_columns(snapshot.root, snapshot.schema)
    by_spark = all(spark_reads(snapshot.root, file, day) for file, day in files)
    with _named_failures_of_spark(snapshot.root):
        devices = (_read_by_spark if by_spark else _read_in_workers)(spark, snapshot, columns, files)
        return devices.groupBy(PARTITION_COLUMN, *_COUNTED).count().toArrow()


def counted_columns(table: str, schema: Mapping[str, str]) -> dict[str, str]:
    """The name that the table has for each counted column. Delta ignores the case of names, and so do we.

    Args:
        table: the table, for messages.
        schema: the type of each column of the table, in Delta's words. Texts are counted unchanged, integers as decimal
            text.

    Raises:
        UnsupportedTable: a column is missing, occurs twice, or has another type.
    """
    named = {column: [name for name in schema if name.lower() == column] for column in _COUNTED}
    found = ", ".join(f"{name} ({kind})" for name, kind in schema.items()) or "none"
    missing = [column for column, names in named.items() if not names]
    if missing:
        raise UnsupportedTable(
            f"{table} has no column {', '.join(missing)}; found: {found}; expected: {', '.join(_COUNTED)}, in any "
            "case; rename its columns, or have its writer write these"
        )
    twice = [name for names in named.values() if len(names) > 1 for name in names]
    if twice:
        raise UnsupportedTable(
            f"{table} has the columns {', '.join(twice)}, which Delta takes for one; drop all but one of them"
        )
    columns = {column: name for column, [name] in named.items()}
    odd = [f"{name} is of type {schema[name]}" for name in columns.values() if schema[name] not in _TYPES]
    if odd:
        raise UnsupportedTable(
            f"{table}: its column {', '.join(odd)}; expected string, or an integer; write it as one of these"
        )
    return columns


def spark_reads(root: str, file: str, day: str) -> bool:
    """Whether Spark can read this file by itself, and the day from the name of its folder.

    It can't read from an object store. It takes some names for patterns, and silently leaves out hidden files. Delta
    does not promise that a file's folder is named after its partition, but Spark looks for the day there.

    Args:
        root: the folder of the table.
        file: the absolute path of the file.
        day: the partition of the file.
    """
    folder = f"{root}/{PARTITION_COLUMN}={day}/"
    name = file.removeprefix(folder)
    return (
        "://" not in root
        and file.startswith(folder)
        and "/" not in name
        and not name.startswith(("_", "."))
        and not name.endswith("._COPYING_")
        and _LITERAL.fullmatch(file) is not None
    )


@contextmanager
def _named_failures_of_spark(table: str) -> Iterator[None]:
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        found = _WRONG_FILE.search(str(error))
        if found is None:
            said = str(error).strip().partition("\n")[0][:_LONGEST_REASON]
            raise CountingFailed(
                f"Spark could not count {table}: {said}; look at the log of the Spark server"
            ) from error
        raise UnsupportedTable(
            f"{table} can't be counted: {found[1] or found[2]}; have its writer write the file anew"
        ) from None


def _read_by_spark(
    spark: "SparkSession", snapshot: Snapshot, columns: Mapping[str, str], files: Sequence[tuple[str, str]]
) -> "DataFrame":
    # With a schema, Spark need not read a file to find it, and takes the day from the path as a date.
    types = [f"{name} {_TYPES[snapshot.schema[name]]}" for name in columns.values()]
    rows = (
        spark.read.schema(", ".join([*types, f"{PARTITION_COLUMN} DATE"]))
        .option("basePath", snapshot.root)
        # The settings of a server may say to leave such files out.
        .option("ignoreMissingFiles", "false")
        .option("ignoreCorruptFiles", "false")
        .parquet(*(file for file, _ in files))
    )
    as_text = [f"CAST({name} AS STRING) AS {column}" for column, name in columns.items()]
    return rows.selectExpr(PARTITION_COLUMN, *as_text)


def _read_in_workers(
    spark: "SparkSession", snapshot: Snapshot, columns: Mapping[str, str], files: Sequence[tuple[str, str]]
) -> "DataFrame":
    names = [(file.removeprefix(f"{snapshot.root}/"), day) for file, day in files]
    tasks = spark.createDataFrame(names, "file STRING, day STRING").repartition(min(len(names), _TASKS))
    texts = [column for column, name in columns.items() if snapshot.schema[name] == "string"]
    rows = ", ".join(f"{column} STRING" for column in _COUNTED)
    return tasks.mapInArrow(_reader(snapshot.root, texts), f"{rows}, {PARTITION_COLUMN} DATE")


def _reader(root: str, texts: Sequence[str]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function that reads the rows of files in a Python worker of Spark.

    A worker needs Python of the same minor version as here, with pyarrow. For an object store it also needs deltalake,
    and the store's standard variables (AWS_ACCESS_KEY_ID and so on) in its own environment: we send no credentials. The
    workers of an embedded server inherit all that from the process that started it. On a cluster, somebody has to
    provide it.

    Args:
        root: the folder of the table. The function gets files as paths inside it, with their days.
        texts: the counted columns that are strings. The others are integers.
    """
    counted, partition_column = _COUNTED, PARTITION_COLUMN

    # Spark sends the code of an inner function. Of a function of this module it would send only the name, and a worker
    # would need dedp_assets to find it.
    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from datetime import date

        import pyarrow as pa
        import pyarrow.dataset as ds
        from pyarrow import fs, types

        if "://" in root:
            from deltalake.fs import DeltaStorageHandler

            store = fs.PyFileSystem(DeltaStorageHandler(root))
        else:
            store = fs.SubTreeFileSystem(root, fs.LocalFileSystem())

        class UnsupportedFile(ValueError):
            pass

        def field_of(file: str, schema: pa.Schema, column: str) -> pa.Field | None:
            """The file's field for a column of the table; None if the file lacks it, which means null."""
            found = [field for field in schema if field.name.lower() == column]
            if len(found) > 1:
                names = ", ".join(field.name for field in found)
                raise UnsupportedFile(f"{root}/{file} has the columns {names}, which Delta takes for one")
            for field in found:
                kind = field.type.value_type if types.is_dictionary(field.type) else field.type
                is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind)
                right = is_text if column in texts else types.is_signed_integer(kind)
                if not right and not types.is_null(kind):
                    expected = "a string" if column in texts else "an integer"
                    raise UnsupportedFile(
                        f"{root}/{file}: its column {field.name} is of type {kind}; expected {expected}, "
                        "as the table has it"
                    )
            return found[0] if found else None

        for batch in batches:
            for task in batch.to_pylist():
                day = pa.scalar(date.fromisoformat(task["day"]))
                # Name the file: a dataset that searches a folder leaves out hidden files.
                file = ds.ParquetFileFormat().make_fragment(task["file"], filesystem=store)
                schema = file.physical_schema
                fields = {column: field_of(task["file"], schema, column) for column in counted}
                there = pa.schema([field for field in fields.values() if field])
                for part in file.to_batches(schema=there):
                    columns = {
                        column: part.column(field.name).cast(pa.string()) if field else pa.nulls(len(part), pa.string())
                        for column, field in fields.items()
                    }
                    yield pa.RecordBatch.from_pydict({**columns, partition_column: pa.repeat(day, len(part))})

    return read
