"""The Spark job: how often each device occurs, per day."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from dedp_assets.delta.commits import Snapshot
from dedp_assets.delta.problems import UnsupportedTable
from dedp_assets.late_data_integrator.contract import PARTITION_COLUMN
from dedp_assets.late_data_integrator.device_counts import SCHEMA

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.connect.session import SparkSession

_COUNTED = ("type", "full_name", "version")

# What a column that is counted may be, by Delta's name of the type and by Spark's.
_TYPES = {"string": "STRING", "byte": "TINYINT", "short": "SMALLINT", "integer": "INT", "long": "BIGINT"}

# As many tasks at most read from Python, whatever the number of files.
_TASKS = 200

# Names that mean themselves to Spark, whatever its locale. Any of *?[]{}\ is a pattern to it, and it has no way to take
# that literally; a colon makes it fail.
_LITERAL = re.compile(r"[A-Za-z0-9 /_.,=+@~-]+")

# What Spark says, and what `_reader` says, of a file whose columns are not what its table promises.
_WRONG_FILE = re.compile(
    r"\[FAILED_READ_FILE\.PARQUET_COLUMN_DATA_TYPE_MISMATCH\] (.*?)\.? SQLSTATE"
    r"|UnsupportedFile: (.*)"
)


def count_devices(spark: "SparkSession", snapshot: Snapshot, days: Sequence[str]) -> pa.Table:
    """The counts of those days, of `device_counts.SCHEMA`, from exactly the files of this snapshot.

    Only the counts come to this process; the rows stay with Spark. A table in a folder is read by Spark itself, for
    which it must be under the same path for each of its executors. One in an object store is read by the Python workers
    of Spark, since a plain Spark has no libraries for that: see `_reader` for what they need. So are files whose names
    Spark would not take literally. Raises UnsupportedTable for a table without the columns that are counted.
    """
    files = [(file, day) for day in days for file in snapshot.files.get(day, ())]
    if not files:
        return SCHEMA.empty_table()
    columns = counted_columns(snapshot.root, snapshot.schema)
    by_spark = all(spark_reads(snapshot.root, file, day) for file, day in files)
    devices = (_read_by_spark if by_spark else _read_in_workers)(spark, snapshot, columns, files)
    return _computed(snapshot.root, devices.groupBy(PARTITION_COLUMN, *_COUNTED).count())


def counted_columns(table: str, schema: Mapping[str, str]) -> dict[str, str]:
    """The table's name for each column that is counted. Its names have any case, as Delta has it.

    schema: the type, in Delta's words, of each column of the table. Texts are counted as they are, integers by their
    decimal text. Raises UnsupportedTable for a column that is missing, there twice, or of another type.
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
    """Whether Spark itself reads this one file of a table, and the day from its folder's name.

    Not from an object store; not a name that is a pattern to it, or hidden, which it leaves out without a word. Delta
    does not promise that a file's folder is named after its partition: Spark would look for the day there.
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


def _computed(table: str, counts: "DataFrame") -> pa.Table:
    from pyspark.errors import PySparkException

    try:
        return counts.toArrow()
    except PySparkException as error:
        found = _WRONG_FILE.search(str(error))
        if found is None:
            raise
        raise UnsupportedTable(
            f"{table} can't be counted: {found[1] or found[2]}; have its writer write the file anew"
        ) from None


def _read_by_spark(
    spark: "SparkSession", snapshot: Snapshot, columns: Mapping[str, str], files: Sequence[tuple[str, str]]
) -> "DataFrame":
    # Given, so that Spark need not read a file to find out, and takes the day from the path as a date.
    types = [f"{name} {_TYPES[snapshot.schema[name]]}" for name in columns.values()]
    rows = (
        spark.read.schema(", ".join([*types, f"{PARTITION_COLUMN} DATE"]))
        .option("basePath", snapshot.root)
        # A server may be set to leave such files out.
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
    """What reads the rows of files below `root`, given by `file` and `day`, within a Python worker of Spark.

    texts: the counted columns that are strings; the others are integers.

    A worker needs Python of the same minor version as here, with pyarrow. For an object store also deltalake, and the
    store's standard variables (AWS_ACCESS_KEY_ID and so on) in its own environment: no credentials are sent. The
    workers of an embedded server have all that from the process that started it; a cluster's executors have to be
    given it.
    """
    counted, partition_column = _COUNTED, PARTITION_COLUMN

    # A function within a function is sent as it is. One of this module would be sent as its name, for each worker to
    # look up in a dedp_assets of its own.
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
            """A file's field for a column of the table; None if the file does not have it: then it is null."""
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
                # One file by its name: a dataset that is looked for leaves out the hidden ones.
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
