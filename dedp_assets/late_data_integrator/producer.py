"""A writer of the table `lake/devices`, for demos and tests: every load is one commit to one partition.

In production that is somebody else's, and nothing in the pipeline knows this module.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from dedp_assets import days
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import TableProblem
from dedp_assets.errors import PermanentError
from dedp_assets.generator import devices
from dedp_assets.late_data_integrator.contract import PARTITION_COLUMN, partition_name
from dedp_assets.resources import object_store

FIELDS = ("type", "full_name", "version")
_EXAMPLE = '{"type": "mac", "full_name": "MacBook Air", "version": "macOS Ventura"}'

Device: TypeAlias = tuple[str | None, ...]
PartitionType: TypeAlias = Literal["date", "string"]

# The devices of a load, from the day that it is for and the number of commits that the table had.
Source: TypeAlias = Callable[[date, int], Sequence[Device]]

# One append never contradicts another: when somebody else was faster, it is only to be tried again.
_TRIES = 100


class NotLoaded(PermanentError):
    """Nothing was appended. The message names what was found, and what was expected."""


class Load(NamedTuple):
    """What a load did: the partition (`event_time=2024-01-02`), the rows that it added, the version that it made."""

    partition: str
    rows: int
    version: int


def day_of(text: str) -> date:
    """The day that a text such as 2024-01-02 means. Raises NotLoaded."""
    day = days.day_of(text)
    if day is None:
        raise NotLoaded(f"{text!r} is not a day; expected one such as 2024-01-02")
    return day


def generated(rows: int) -> Source:
    """New devices in every load. The same loads in the same order into a new table are the same devices."""

    def source(day: date, commits: int) -> list[Device]:
        return list(devices(rows, seed=f"{day}/{commits}"))

    return source


def from_files(path: Path) -> Source:
    """The devices in a file of JSON lines, or in all files of a folder: the same in every load, read and checked now.

    As in Spark, names in a folder that begin with . or _ do not count. Raises NotLoaded.
    """
    try:
        found = [device for file in _files(path) for device in _devices_in(file)]
    except OSError as error:
        raise NotLoaded(
            f"{error.filename or path} can't be read: {error.strerror}; expected a file of JSON lines, or a folder"
        ) from error
    if not found:
        raise NotLoaded(f"{path} has no devices; expected lines such as {_EXAMPLE}")
    return lambda _day, _commits: found


def load(uri: str, day: date, source: Source, *, typed: PartitionType | None = None) -> Load:
    """Append the devices of a source to a day's partition of the Delta table, in one file and one commit.

    A table that is not there is made. typed: the type of the partition column; None for the one it has, in a new table
    date. Raises NotLoaded, and SettingError for a URI that can't be meant.
    """
    options = object_store.storage_options(uri)
    try:
        while (table := _open(uri, options)) is None:
            content = _content(source(day, 0), day, typed or "date")
            if _create(uri, options, content):
                return Load(partition_name(day.isoformat()), content.num_rows, 0)
        column_type = _checked_type(table, uri, typed)
        content = _content(source(day, table.version() + 1), day, column_type)
        write_deltalake(table, content, mode="append", commit_properties=CommitProperties(max_commit_retries=_TRIES))
        return Load(partition_name(day.isoformat()), content.num_rows, table.version())
    except (DeltaError, OSError) as error:
        raise NotLoaded(f"{uri}: {day} can't be appended: {object_store.reason(error)}") from error


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith((".", "_")))


def _devices_in(file: Path) -> Iterator[Device]:
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _device(line, f"{file}:{number}")


def _device(line: bytes, place: str) -> Device:
    try:
        found = json.loads(line.decode("utf-8-sig"))
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # half a character, escaped, passes the line before
    except (ValueError, RecursionError):
        raise NotLoaded(f"{place} is not JSON in UTF-8; expected a line such as {_EXAMPLE}") from None
    if not isinstance(found, dict) or set(found) != set(FIELDS):
        what = (
            "no object" if not isinstance(found, dict) else f"the fields {', '.join(found)}" if found else "no fields"
        )
        raise NotLoaded(f"{place} has {what}; expected {', '.join(FIELDS)}, as in {_EXAMPLE}")
    for name, value in found.items():
        if not (value is None or isinstance(value, str)):
            raise NotLoaded(f"{place}: {name} is {json.dumps(value)[:40]}; expected a text, or null")
    return tuple(found[name] for name in FIELDS)


def _content(found: Sequence[Device], day: date, column_type: PartitionType) -> pa.Table:
    columns = {name: pa.array([device[at] for device in found], pa.string()) for at, name in enumerate(FIELDS)}
    partition = pa.scalar(day) if column_type == "date" else pa.scalar(day.isoformat())
    return pa.table({**columns, PARTITION_COLUMN: pa.repeat(partition, len(found))})


def _open(uri: str, options: dict[str, str]) -> DeltaTable | None:
    try:
        return DeltaTable(uri, storage_options=options)
    except TableNotFoundError:
        return None
    except DeltaError as error:
        try:
            DeltaLog(uri, options, PARTITION_COLUMN).snapshot()
        except TableProblem as problem:
            raise NotLoaded(str(problem)) from None
        raise error from None


def _create(uri: str, options: dict[str, str], content: pa.Table) -> bool:
    """Make the table with its first rows; False if somebody else was faster."""
    try:
        write_deltalake(
            uri,
            content,
            mode="error",
            partition_by=[PARTITION_COLUMN],
            storage_options=options,
            # Tried again, delta-rs would commit the new table on top of the other one, with another identity.
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    except DeltaError:
        if _open(uri, options) is None:
            raise
        return False
    return True


def _checked_type(table: DeltaTable, uri: str, typed: PartitionType | None) -> PartitionType:
    """The type of the partition column, of a table that takes our rows."""
    partitioned_by = table.metadata().partition_columns
    if partitioned_by != [PARTITION_COLUMN]:
        found = ", ".join(partitioned_by) or "nothing"
        raise NotLoaded(f"{uri} is partitioned by {found}; expected a table partitioned by {PARTITION_COLUMN}")
    columns = {field.name: field.type.type for field in table.schema().fields}
    column_type = columns.get(PARTITION_COLUMN)
    if columns != {**dict.fromkeys(FIELDS, "string"), PARTITION_COLUMN: column_type}:
        found = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
        expected = ", ".join(f"{name} string" for name in FIELDS)
        raise NotLoaded(f"{uri} has the columns {found}; expected {expected}, {PARTITION_COLUMN} date or string")
    for possible in ("date", "string"):
        if column_type == possible and typed in (None, possible):
            return possible
    raise NotLoaded(f"{uri} has {PARTITION_COLUMN} as {column_type}; expected {typed or 'date or string'}")
