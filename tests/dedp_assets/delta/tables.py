"""Delta tables for these tests: delta-rs writes them, and tests write commits of other writers by hand."""

import json
from collections.abc import Callable, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from dedp_assets.delta.commits import Commit, add_fingerprints
from dedp_assets.delta.log import DeltaLog
from dedp_assets.resources.object_store import storage_options

FIRST, SECOND, THIRD = "2024-01-01", "2024-01-02", "2024-01-03"

# The type of the partition column.
Kind: TypeAlias = Literal["string", "date"]
TYPES: dict[Kind, pa.DataType] = {"string": pa.string(), "date": pa.date32()}

# A part of a commit: JSON of any form.
Action: TypeAlias = dict[str, Any]
# Does something to a table.
Operation: TypeAlias = Callable[["Table"], object]


def devices(day: str | None, names: Sequence[str] = ("galaxy", "iphone", "pixel"), kind: Kind = "string") -> pa.Table:
    """Rows for one partition. If the column is a string, `day` may be any text, or None."""
    value = date.fromisoformat(day) if day and kind == "date" else day
    return pa.table(
        {
            "type": ["phone"] * len(names),
            "full_name": list(names),
            "version": ["1"] * len(names),
            "event_time": pa.array([value] * len(names), TYPES[kind]),
        }
    )


class Table:
    """A Delta table in a folder, with methods to write its log by hand."""

    def __init__(self, uri: str | Path, kind: Kind = "string") -> None:
        self.uri, self.kind, self.options = str(uri), kind, storage_options(str(uri))
        self.log = DeltaLog(self.uri, self.options)

    @property
    def delta(self) -> DeltaTable:
        return DeltaTable(self.uri, storage_options=self.options)

    def append(
        self,
        *days: str | None,
        names: Sequence[str] = ("galaxy", "iphone", "pixel"),
        schema_mode: Literal["merge"] | None = None,
        configuration: dict[str, str | None] | None = None,
    ) -> None:
        write_deltalake(
            self.uri,
            pa.concat_tables([devices(day, names, self.kind) for day in days]),
            mode="append",
            partition_by=["event_time"],
            storage_options=self.options,
            schema_mode=schema_mode,
            configuration=configuration,
        )

    def overwrite(self, day: str, names: Sequence[str] = ("fairphone",)) -> None:
        where = f"event_time = '{day}'"
        write_deltalake(self.uri, devices(day, names, self.kind), mode="overwrite", predicate=where)

    def commit_file(self, version: int) -> Path:
        return Path(self.uri) / "_delta_log" / f"{version:020}.json"

    def actions(self, version: int, kind: str) -> list[Action]:
        lines = [json.loads(line) for line in self.commit_file(version).read_text().splitlines()]
        return [line[kind] for line in lines if kind in line]

    def write_commit(self, version: int, *actions: Action) -> None:
        self.commit_file(version).write_text("".join(f"{json.dumps(action)}\n" for action in actions))

    def forget_commits(self, *versions: int) -> None:
        for version in versions:
            self.commit_file(version).unlink()

    def commits(self, after: int = -1) -> list[Commit]:
        return list(self.log.commits(after))

    def last_commit(self) -> Commit:
        return self.commits(self.delta.version() - 1)[0]


def followed(table: Table) -> dict[str, int]:
    """The fingerprints of all partitions, added up commit by commit."""
    fingerprints: dict[str, int] = {}
    for commit in table.log.commits(-1):
        fingerprints = add_fingerprints(fingerprints, [commit])
    assert fingerprints == add_fingerprints({}, table.commits())
    return fingerprints


def days_changed(commit: Commit) -> list[str]:
    return sorted(commit.changes)


def removal(add: Action, **changed: object) -> Action:
    """A remove action as other writers leave it: without partition values and statistics."""
    return {"remove": {"path": add["path"], "dataChange": True, "deletionTimestamp": 1} | changed}


VECTOR = {
    "storageType": "u",
    "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA",
    "offset": 1,
    "sizeInBytes": 36,
    "cardinality": 2,
}


def with_features(*features: str, reader: int = 3) -> Action:
    versions = {"minReaderVersion": reader, "minWriterVersion": 7}
    return {"protocol": versions | {"readerFeatures": list(features), "writerFeatures": list(features)}}


MODIFIED = datetime(2024, 5, 6, 7, 8, tzinfo=timezone.utc)
