"""Refuses tables that we would read wrongly: Spark opens their Parquet files one by one, without Delta."""

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.schema import PrimitiveType

from dedp_assets.delta.problems import UnsupportedTable, short_reason

# With these reader features, a table's files can still be read as plain Parquet. For `deletionVectors` and
# `columnMapping` that is true only while the table does not use them.
_HARMLESS_FEATURES = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "deletionVectors", "columnMapping"}


def refuse_unsupported(uri: str, table: DeltaTable, column: str) -> None:
    """Refuse a table that needs more of its reader than we can do, or that is not partitioned by `column` alone.

    Args:
        uri: where the table is, for the message. `table` may have been opened from a copy of its log.
        table: the table as of the version that is to be read.
        column: the name of the one partition column. Its type must be date or string.

    Raises:
        UnsupportedTable: the table is refused. The message says why, and how to write it instead.
    """
    _refuse_features(uri, table)
    _refuse_column_mapping(uri, table)
    _refuse_other_partitions(uri, table, column)
    if "deletionVectors" in (table.protocol().reader_features or []):
        _refuse_deletion_vectors(uri, table)


def _refuse_features(uri: str, table: DeltaTable) -> None:
    protocol = table.protocol()
    strange = sorted(set(protocol.reader_features or []) - _HARMLESS_FEATURES)
    if strange or protocol.min_reader_version > 3:
        what = f"the table feature {', '.join(strange)}" if strange else f"version {protocol.min_reader_version}"
        raise UnsupportedTable(
            f"{uri}: to read this table takes {what}, which is not supported; "
            "drop it from the table (ALTER TABLE ... DROP FEATURE), or write the table without it"
        )


def _refuse_column_mapping(uri: str, table: DeltaTable) -> None:
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        raise UnsupportedTable(
            f"{uri} maps its columns (columnMapping, delta.columnMapping.mode = {mapping}), which is not supported; "
            "set it to 'none', which rewrites the table, or write the table without it"
        )


def _refuse_other_partitions(uri: str, table: DeltaTable, column: str) -> None:
    partitioned_by = table.metadata().partition_columns
    if partitioned_by != [column]:
        found = ", ".join(partitioned_by) or "no column"
        raise UnsupportedTable(
            f"{uri} is partitioned by {found}; expected {column} alone: write it with partition_by=[{column!r}]"
        )
    kind = next(field.type for field in table.schema().fields if field.name == column)
    if kind not in (PrimitiveType("date"), PrimitiveType("string")):
        name = getattr(kind, "type", kind)
        raise UnsupportedTable(
            f"{uri}: its partition column {column} is of type {name}; expected date, or string as in 2024-01-31"
        )


def _refuse_deletion_vectors(uri: str, table: DeltaTable) -> None:
    """Refuse deletion vectors in use: deleted rows are still in the Parquet files. The feature alone is harmless."""
    try:
        if any(batch.num_rows for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors())):
            raise has_deletion_vectors(uri)
    except DeltaError as error:
        what = f"seems to have files with deletion vectors (deletionVectors; {short_reason(error)})"
        raise _deletion_vectors(uri, what) from None


def has_deletion_vectors(uri: str) -> UnsupportedTable:
    """The problem that some rows of the table are deleted only by a deletion vector."""
    return _deletion_vectors(uri, "has files with deletion vectors (deletionVectors)")


def _deletion_vectors(uri: str, what: str) -> UnsupportedTable:
    return UnsupportedTable(
        f"{uri} {what}, which are not supported; set its property delta.enableDeletionVectors = false, then "
        "have the vectors written out (REORG TABLE ... APPLY (PURGE))"
    )


def lies_outside(uri: str, path: str) -> UnsupportedTable:
    """The problem that a data file of the table is outside the table's folder."""
    return UnsupportedTable(
        f"{uri}: its file {path} lies outside of it (a shallow clone), which is not supported; "
        "make a deep clone of the table, or write it anew"
    )
