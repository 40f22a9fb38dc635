"""Reads rows of a table that is our own, with no thread of Arrow calling back into Python.

deltalake hands Arrow a file system that is written in Python. A process that ends right after it has read through that
one may abort (status 134, "terminate called without an active exception"), for a thread of Arrow is not done with a
Python object when Python is gone: https://github.com/apache/arrow/issues/34314.
"""

from collections.abc import Sequence
from datetime import date
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.fs import DeltaStorageHandler
from pyarrow import fs


def read_columns(
    table: DeltaTable, columns: Sequence[str], dates: tuple[str, Sequence[date]] | None = None
) -> pa.Table:
    """These columns of a table, as of its version.

    Args:
        table: the table, opened.
        columns: their names, in the order that is wanted.
        dates: a column of type date, and which of its values the rows have that are wanted; None for all rows.
    """
    schema = pa.schema(table.schema())
    wanted = pa.schema([schema.field(column) for column in columns])
    if dates and not dates[1]:
        return wanted.empty_table()
    local = _local(table)
    if local is not None:
        filters = [(dates[0], "in", list(dates[1]))] if dates else None
        return table.to_pyarrow_table(columns=list(columns), filters=filters, filesystem=local)
    # Within delta-rs. Not for a folder: what %41 is in its name, that takes for A.
    query = f"SELECT {', '.join(map(_quoted, columns))} FROM it"
    if dates:
        values = ", ".join(f"DATE '{value.isoformat()}'" for value in dates[1])
        query += f" WHERE {_quoted(dates[0])} IN ({values})"
    return pa.table(QueryBuilder().register("it", table).execute(query).read_all()).cast(wanted)


def file_system_of(table: DeltaTable, storage_options: dict[str, str]) -> fs.FileSystem:
    """The files of a table, to read whole ones in the calling thread, such as those of its log."""
    return _local(table) or fs.PyFileSystem(DeltaStorageHandler(table.table_uri, storage_options or None))


def _local(table: DeltaTable) -> fs.FileSystem | None:
    """The folder of a table, by Arrow's own means; None for an object store."""
    if not table.table_uri.startswith("file://"):
        return None
    return fs.SubTreeFileSystem(unquote(table.table_uri.removeprefix("file://")), fs.LocalFileSystem())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
