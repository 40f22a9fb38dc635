"""Reads rows of our own tables in a way that never makes the process abort at its end.

deltalake gives Arrow a file system that is written in Python. A process that ends right after a read through it may
abort (status 134, "terminate called without an active exception"): a thread of Arrow still holds a Python object when
the interpreter has ended. See https://github.com/apache/arrow/issues/34314. So no thread of Arrow may call Python here.
"""

from collections.abc import Sequence
from datetime import date
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.fs import DeltaStorageHandler
from pyarrow import fs

from dedp_assets.delta.problems import named_problems


def read_columns(
    table: DeltaTable, columns: Sequence[str], dates: tuple[str, Sequence[date]] | None = None
) -> pa.Table:
    """Read columns of a table, as of the version at which it was opened.

    Args:
        table: the opened table.
        columns: the names of the columns, in the order that the result should have.
        dates: a column of type date, and the values of it whose rows to read; None for all rows.

    Raises:
        TableUnreachable, DamagedTable: the files can't be read.
    """
    schema = pa.schema(table.schema())
    wanted = pa.schema([schema.field(column) for column in columns])
    if dates and not dates[1]:
        return wanted.empty_table()
    with named_problems(table.table_uri):
        return _read(table, columns, dates, wanted)


def _read(
    table: DeltaTable, columns: Sequence[str], dates: tuple[str, Sequence[date]] | None, wanted: pa.Schema
) -> pa.Table:
    local = _local(table)
    if local is not None:
        filters = [(dates[0], "in", list(dates[1]))] if dates else None
        return table.to_pyarrow_table(columns=list(columns), filters=filters, filesystem=local)
    # delta-rs reads object stores by itself. It can't read every folder: it takes %41 in a folder's name for A.
    query = f"SELECT {', '.join(map(_quoted, columns))} FROM it"
    if dates:
        values = ", ".join(f"DATE '{value.isoformat()}'" for value in dates[1])
        query += f" WHERE {_quoted(dates[0])} IN ({values})"
    return pa.table(QueryBuilder().register("it", table).execute(query).read_all()).cast(wanted)


def file_system_of(table: DeltaTable, storage_options: dict[str, str]) -> fs.FileSystem:
    """The file system of a table's folder. Use it to read whole files, such as commits, in the calling thread."""
    return _local(table) or fs.PyFileSystem(DeltaStorageHandler(table.table_uri, storage_options or None))


def _local(table: DeltaTable) -> fs.FileSystem | None:
    """Arrow's own file system for the folder of a table; None for an object store."""
    if not table.table_uri.startswith("file://"):
        return None
    return fs.SubTreeFileSystem(unquote(table.table_uri.removeprefix("file://")), fs.LocalFileSystem())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
