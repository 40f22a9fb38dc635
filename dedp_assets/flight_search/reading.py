"""How Spark gets to see rows: of the files that landed, and of the table of searches."""

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable

from dedp_assets.delta.commits import Snapshot
from dedp_assets.delta.problems import named_problems
from dedp_assets.delta.reading import read_columns
from dedp_assets.errors import SettingError
from dedp_assets.flight_search.contract import PARTITION_COLUMN
from dedp_assets.flight_search.events import SCHEMA
from dedp_assets.resources.spark_limits import LimitedSpark

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Paths that Spark takes literally in any locale. It takes *?[]{}\ for a pattern, and can't be told not to.
_LITERAL = re.compile(r"[A-Za-z0-9 /_.,=+@~-]+")

_TYPES = {"date32[day]": "DATE", "string": "STRING", "timestamp[us, tz=UTC]": "TIMESTAMP", "int32": "INT"}


def read_lines(spark: LimitedSpark, paths: Sequence[Path]) -> "DataFrame":
    """The lines of files, as rows with the columns `file`, which is the name of its folder, and `value`.

    Args:
        spark: the session to read with.
        paths: the files. Their folders have different names.

    Raises:
        SettingError: Spark can't read from such a path.
    """
    for path in paths:
        if not _LITERAL.fullmatch(str(path)):
            raise SettingError(
                f"Spark can't read {path}: set DEDP_INTERNAL to a path of letters, digits and / _ . , = + - only"
            )
    # A line may end with a carriage return, too.
    lines = spark.session.read.option("lineSep", "\n").text([str(path) for path in paths])
    return spark.within_cores(
        lines.selectExpr("element_at(split(_metadata.file_path, '/'), -2) AS file", "rtrim(chr(13), value) AS value")
    )


def read_searches(
    spark: LimitedSpark, table: DeltaTable, snapshot: Snapshot, columns: Sequence[str], days: Sequence[str]
) -> "DataFrame":
    """The searches of some days, from exactly one version of the table.

    Spark itself reads a table in a folder, which must have the same path for each of its executors. A plain Spark has
    no libraries for object stores. From there, this process reads the rows and sends them to Spark.

    Args:
        spark: the session to read with.
        table: the table of searches, opened at the version of the snapshot.
        snapshot: the files of the table.
        columns: the columns to read; the day is one of them.
        days: the days to read.

    Raises:
        TableUnreachable: the table can't be read.
    """
    wanted = pa.schema([SCHEMA.field(name) for name in columns])
    declared = ", ".join(f"{field.name} {_TYPES[str(field.type)]}" for field in wanted)
    files = [file for day in days for file in snapshot.files.get(day, ())]
    if not files:
        return spark.session.createDataFrame([], declared)
    if not _LITERAL.fullmatch(snapshot.root):
        with named_problems(table.table_uri):
            rows = read_columns(table, columns, (PARTITION_COLUMN, [date.fromisoformat(day) for day in days]))
        return spark.within_cores(spark.session.createDataFrame(rows).select(*columns))
    rows_of_files = (
        spark.session.read.schema(declared)
        .option("basePath", snapshot.root)
        # The settings of a server may say to leave such files out.
        .option("ignoreMissingFiles", "false")
        .option("ignoreCorruptFiles", "false")
        .parquet(*files)
    )
    return spark.within_cores(rows_of_files.select(*columns))
