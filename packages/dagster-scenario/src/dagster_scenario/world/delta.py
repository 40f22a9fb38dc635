"""A Delta table of the world outside, which others commit to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from arro3.core import Array, DataType
from arro3.core import Table as Arrow
from deltalake import CommitProperties, DeltaTable, QueryBuilder, write_deltalake
from deltalake.schema import PrimitiveType

from dagster_scenario.errors import ScenarioError

Row = Mapping[str, Any]

_LOCAL, _ZONED = "datetime without a time zone", "datetime with a time zone"
# The kinds of Delta's types that Python values have a type for; long is what new columns of integers get.
_KINDS = {
    **dict.fromkeys(("byte", "short", "integer", "long"), "int"),
    **dict.fromkeys(("float", "double"), "float"),
    "string": "str",
    "boolean": "bool",
    "binary": "bytes",
    "date": "date",
    "timestamp": _ZONED,
    "timestamp_ntz": _LOCAL,
}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (for values without a time zone)


class Table:
    """A Delta table, written by delta-rs. The first rows make it.

    In rows that make it, int becomes long, float double, str string, bool boolean, bytes binary, date date; datetime
    becomes timestamp, or without a time zone timestamp_ntz, which readers of older protocols refuse.

    delta-rs takes the time of a commit from the machine: `timestamp` in the history is real time. The simulated time
    is beside it, as `simulatedTime`.
    """

    def __init__(
        self, path: Path, partition_by: Sequence[str], now: Callable[[], datetime], happened: Callable[[str], None]
    ) -> None:
        self.path = path
        self._partition_by = [partition_by] if isinstance(partition_by, str) else list(partition_by)
        self._now, self._happened = now, happened

    @property
    def version(self) -> int | None:
        """The version it is at; None while it is not there."""
        table = self._table()
        return table.version() if table else None

    def rows(self, where: str | None = None) -> list[dict[str, Any]]:
        """Its rows, sorted by their columns from left to right; where: a condition in SQL."""
        table = self._there()
        order = ", ".join(_quoted(f.name) for f in table.schema().fields if isinstance(f.type, PrimitiveType))
        found = (
            QueryBuilder()
            .register("delta", table)
            .execute(f"SELECT * FROM delta{f' WHERE {where}' if where else ''}{f' ORDER BY {order}' if order else ''}")
            .read_all()
        )
        columns = [[column[row].as_py() for row in range(len(column))] for column in found.columns]
        return [dict(zip(found.column_names, values, strict=True)) for values in zip(*columns, strict=True)]

    def append(self, rows: Sequence[Row]) -> None:
        """Commit more rows; a column that a row leaves out is null.

        Raises ScenarioError for columns that the table has not and for values that do not fit their column.
        """
        if not rows:
            raise ScenarioError("append([]): which rows? As in append([{'id': 1}])")
        self._write(rows, mode="append")
        self._happened(f"{self._name}: {_count(rows)} appended{self._where_of(rows)}, version {self.version}")

    def overwrite(self, rows: Sequence[Row], where: str | None = None) -> None:
        """Commit these rows in place of those that meet a condition in SQL, of all for None.

        Raises ScenarioError as `append` does, and delta-rs's DeltaError for rows that do not meet the condition.
        """
        if rows:
            self._write(rows, mode="overwrite", predicate=where)
        else:
            self._there().delete(where, commit_properties=self._commit())
        replaced = f"those where {where}" if where else "all"
        self._happened(
            f"{self._name}: {_count(rows)}{self._where_of(rows)} in place of {replaced}, version {self.version}"
        )

    def delete(self, where: str | None = None) -> None:
        """Commit the deletion of the rows that meet a condition in SQL, of all for None; none, no commit."""
        metrics = self._there().delete(where, commit_properties=self._commit())
        deleted = f"{_number(metrics['num_deleted_rows'])} deleted{f' where {where}' if where else ''}"
        self._happened(f"{self._name}: {deleted}, version {self.version}")

    def compact(self) -> None:
        """Commit small files as larger ones: a new version with the same rows; nothing to compact, no commit."""
        metrics = self._there().optimize.compact(commit_properties=self._commit())
        removed, added = metrics["numFilesRemoved"], metrics["numFilesAdded"]
        done = f"{removed} files compacted into {added}" if removed else "nothing to compact"
        self._happened(f"{self._name}: {done}, version {self.version}")

    @property
    def _name(self) -> str:
        return self.path.name

    def _table(self) -> DeltaTable | None:
        return DeltaTable(self.path) if DeltaTable.is_deltatable(str(self.path)) else None

    def _there(self) -> DeltaTable:
        table = self._table()
        if table is None:
            raise ScenarioError(f"there is no Delta table at {self.path}; append([...]) makes it")
        return table

    def _commit(self) -> CommitProperties:
        return CommitProperties(custom_metadata={"simulatedTime": self._now().isoformat()})

    def _write(self, rows: Sequence[Row], **how: Any) -> None:
        table = self._table()
        if table is not None:
            self._check_partitioning(table.metadata().partition_columns)
        kinds = {field.name: _kind(field.type) for field in table.schema().fields} if table is not None else {}
        names = list(dict.fromkeys(name for row in rows for name in row))
        for name in names if table is not None else ():
            if name not in kinds:
                raise ScenarioError(f"{self._name} has no column {name!r}; its columns are {', '.join(kinds)}")
        columns = {name: self._column(name, [row.get(name) for row in rows], kinds.get(name)) for name in names}
        if table is None:
            for name in self._partition_by:
                if name not in columns:
                    raise ScenarioError(f"{self._name} is partitioned by {name!r}, which no row has")
        write_deltalake(
            self.path,
            Arrow.from_pydict({name: column for name, column in columns.items() if column is not None}),
            partition_by=self._partition_by or None,
            # Columns that are left out become null.
            schema_mode="merge",
            commit_properties=self._commit(),
            **how,
        )

    def _check_partitioning(self, there: list[str]) -> None:
        if self._partition_by and self._partition_by != there:
            raise ScenarioError(
                f"{self._name} is partitioned by {', '.join(there) or 'nothing'}, not by "
                f"{', '.join(self._partition_by)}; leave partition_by out for a table that is there"
            )

    def _column(self, name: str, values: list[Any], wanted: str | None) -> Array | None:
        """None for a column that has no value and that the table has a type for."""
        kinds = {self._kind_of(name, value) for value in values if value is not None}
        if kinds == {"int", "float"}:
            kinds = {"float"}
        if len(kinds) > 1:
            raise ScenarioError(f"column {name!r} has values of several types: {', '.join(sorted(kinds))}")
        if not kinds and wanted is None:
            raise ScenarioError(f"column {name!r} has no value, so nothing says its type; give one, or leave it out")
        if not kinds:
            return None
        kind = kinds.pop()
        if wanted not in (None, kind) and (kind, wanted) != ("int", "float"):
            raise ScenarioError(f"column {name!r} of {self._name} takes {wanted}, not {kind}")
        try:
            return _array(kind, values)
        except OverflowError:
            raise ScenarioError(f"column {name!r} has a number that is too large for 64 bits") from None

    def _kind_of(self, name: str, value: Any) -> str:
        if isinstance(value, datetime):
            return _LOCAL if value.tzinfo is None else _ZONED
        for kind in (bool, int, float, str, bytes, date):
            if isinstance(value, kind):
                return kind.__name__
        raise ScenarioError(
            f"column {name!r} has a {type(value).__name__}; "
            "expected str, int, float, bool, bytes, date, datetime or None"
        )

    def _where_of(self, rows: Iterable[Row]) -> str:
        """The partitions that rows are in, for the timeline."""
        columns = self._there().metadata().partition_columns
        there = sorted({"/".join(f"{name}={row.get(name)}" for name in columns) for row in rows}) if columns else []
        more = f" and {len(there) - 3} more partitions" if len(there) > 3 else ""
        return f" in {', '.join(there[:3])}{more}" if there else ""


def _kind(type_: Any) -> str:
    return _KINDS.get(type_.type, type_.type) if isinstance(type_, PrimitiveType) else type_.type


def _array(kind: str, values: list[Any]) -> Array:
    # arro3 builds arrays of numbers, texts and bytes only; dates and times come from the numbers they are.
    if kind == "date":
        days = [None if value is None else (value - _EPOCH.date()).days for value in values]
        return Array(days, DataType.int32()).cast(DataType.date32())
    if kind in (_LOCAL, _ZONED):
        zone = None if kind == _LOCAL else "UTC"
        moments = [None if value is None else _microseconds(value) for value in values]
        return Array(moments, DataType.int64()).cast(DataType.timestamp("us", tz=zone))
    types = {
        "bool": DataType.bool(),
        "int": DataType.int64(),
        "float": DataType.float64(),
        "str": DataType.string(),
        "bytes": DataType.binary(),
    }
    return Array(values, types[kind])


def _microseconds(value: datetime) -> int:
    since = value - (_EPOCH if value.tzinfo is None else _EPOCH.replace(tzinfo=timezone.utc))
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _count(rows: Sequence[Row]) -> str:
    return _number(len(rows))


def _number(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"
