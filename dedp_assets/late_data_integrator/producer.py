"""A writer of the table `lake/devices`, for demos and tests: every load is one commit to one partition.

In production somebody else writes the table. Nothing in the pipeline knows this module.
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
from dedp_assets.errors import DedpError, PermanentError, TransientError
from dedp_assets.generator import devices
from dedp_assets.late_data_integrator.contract import PARTITION_COLUMN, partition_name
from dedp_assets.resources import object_store

FIELDS = ("type", "full_name", "version")
_EXAMPLE = '{"type": "mac", "full_name": "MacBook Air", "version": "macOS Ventura"}'

Device: TypeAlias = tuple[str | None, ...]
PartitionType: TypeAlias = Literal["date", "string"]

# Gives the devices of a load, from the day of the load and the number of commits that the table has.
Source: TypeAlias = Callable[[date, int], Sequence[Device]]

# Two appends never conflict: if somebody else was faster, we just try again.
_TRIES = 100


class NotLoaded(DedpError):
    """Nothing was appended. The message says what was found, and what was expected."""


class Unusable(NotLoaded, PermanentError):
    """The devices, or the table, are not what we can use."""


class AppendFailed(NotLoaded, TransientError):
    """The store refused the commit, or did not answer."""


class Load(NamedTuple):
    """What a load did.

    Attributes:
        partition: the partition, as `event_time=2024-01-02`.
        rows: how many rows it added.
        version: the version of the table that it made.
    """

    partition: str
    rows: int
    version: int


def day_of(text: str) -> date:
    """The day that a text such as 2024-01-02 means.

    Raises:
        NotLoaded: the text is not a day.
    """
    day = days.day_of(text)
    if day is None:
        raise Unusable(f"{text!r} is not a day; expected one such as 2024-01-02")
    return day


def generated(rows: int) -> Source:
    """A source of generated devices, different in every load. The same loads into a new table repeat the same devices.

    Args:
        rows: the number of devices in a load.
    """

    def source(day: date, commits: int) -> list[Device]:
        return list(devices(rows, seed=f"{day}/{commits}"))

    return source


def from_files(path: Path) -> Source:
    """A source that gives the same devices in every load. They are read and checked now.

    Args:
        path: a file of JSON lines, or a folder of such files. Files that begin with . or _ are left out, as in Spark.

    Raises:
        NotLoaded: a file can't be read, or has a line that is not a device.
    """
    try:
        found = [device for file in _files(path) for device in _devices_in(file)]
    except OSError as error:
        raise Unusable(
            f"{error.filename or path} can't be read: {error.strerror}; expected a file of JSON lines, or a folder"
        ) from error
    if not found:
        raise Unusable(f"{path} has no devices; expected lines such as {_EXAMPLE}")
    return lambda _day, _commits: found


def load(uri: str, day: date, source: Source, *, typed: PartitionType | None = None) -> Load:
    """Append devices to a day's partition of a Delta table, in one file and one commit. Creates the table if needed.

    Args:
        uri: the table.
        day: the partition.
        source: gives the devices.
        typed: the type that the partition column must have, or None for any type. None means date in a new table.

    Raises:
        NotLoaded: the table has other columns, or the commit failed.
        SettingError: the kind of store is not supported.
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
        raise AppendFailed(f"{uri}: {day} can't be appended: {object_store.reason(error)}") from error


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
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # fails for half a character, such as \ud800
    except (ValueError, RecursionError):
        raise Unusable(f"{place} is not JSON in UTF-8; expected a line such as {_EXAMPLE}") from None
    if not isinstance(found, dict) or set(found) != set(FIELDS):
        what = (
            "no object" if not isinstance(found, dict) else f"the fields {', '.join(found)}" if found else "no fields"
        )
        raise Unusable(f"{place} has {what}; expected {', '.join(FIELDS)}, as in {_EXAMPLE}")
    for name, value in found.items():
        if not (value is None or isinstance(value, str)):
            raise Unusable(f"{place}: {name} is {json.dumps(value)[:40]}; expected a text, or null")
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
            raise Unusable(str(problem)) from None
        raise error from None


def _create(uri: str, options: dict[str, str], content: pa.Table) -> bool:
    """Create the table with its first rows. Returns False if somebody else was faster."""
    try:
        write_deltalake(
            uri,
            content,
            mode="error",
            partition_by=[PARTITION_COLUMN],
            storage_options=options,
            # With retries, delta-rs would commit the new table after the other one, with another identity.
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    except DeltaError:
        if _open(uri, options) is None:
            raise
        return False
    return True


def _checked_type(table: DeltaTable, uri: str, typed: PartitionType | None) -> PartitionType:
    """The type of the partition column. Raises NotLoaded if our rows don't fit into the table."""
    partitioned_by = table.metadata().partition_columns
    if partitioned_by != [PARTITION_COLUMN]:
        found = ", ".join(partitioned_by) or "nothing"
        raise Unusable(f"{uri} is partitioned by {found}; expected a table partitioned by {PARTITION_COLUMN}")
    columns = {field.name: field.type.type for field in table.schema().fields}
    column_type = columns.get(PARTITION_COLUMN)
    if columns != {**dict.fromkeys(FIELDS, "string"), PARTITION_COLUMN: column_type}:
        found = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
        expected = ", ".join(f"{name} string" for name in FIELDS)
        raise Unusable(f"{uri} has the columns {found}; expected {expected}, {PARTITION_COLUMN} date or string")
    for possible in ("date", "string"):
        if column_type == possible and typed in (None, possible):
            return possible
    raise Unusable(f"{uri} has {PARTITION_COLUMN} as {column_type}; expected {typed or 'date or string'}")
