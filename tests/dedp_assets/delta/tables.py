"""Delta tables for these tests: written by delta-rs, and by hand where another writer would."""

import json
from datetime import date, datetime, timezone
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from dedp_assets.delta.commits import add_fingerprints
from dedp_assets.delta.log import DeltaLog
from dedp_assets.resources.object_store import storage_options

FIRST, SECOND, THIRD = "2024-01-01", "2024-01-02", "2024-01-03"


TYPES = {"string": pa.string(), "date": pa.date32()}


def devices(day, names=("galaxy", "iphone", "pixel"), kind="string"):
    """Rows for one partition; `day` may be any text where the column is a string, and None."""
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
    """A Delta table in a folder, and a hand in its log."""

    def __init__(self, uri, kind="string"):
        self.uri, self.kind, self.options = str(uri), kind, storage_options(str(uri))
        self.log = DeltaLog(self.uri, self.options)

    @property
    def delta(self):
        return DeltaTable(self.uri, storage_options=self.options)

    def append(self, *days, names=("galaxy", "iphone", "pixel"), **options):
        rows = pa.concat_tables([devices(day, names, self.kind) for day in days])
        write_deltalake(
            self.uri, rows, mode="append", partition_by=["event_time"], storage_options=self.options, **options
        )

    def overwrite(self, day, names=("fairphone",)):
        where = f"event_time = '{day}'"
        write_deltalake(self.uri, devices(day, names, self.kind), mode="overwrite", predicate=where)

    def commit_file(self, version):
        return Path(self.uri) / "_delta_log" / f"{version:020}.json"

    def actions(self, version, kind):
        lines = [json.loads(line) for line in self.commit_file(version).read_text().splitlines()]
        return [line[kind] for line in lines if kind in line]

    def write_commit(self, version, *actions):
        self.commit_file(version).write_text("".join(f"{json.dumps(action)}\n" for action in actions))

    def forget_commits(self, *versions):
        for version in versions:
            self.commit_file(version).unlink()

    def commits(self, after=-1):
        return list(self.log.commits(after))

    def last_commit(self):
        return self.commits(self.delta.version() - 1)[0]


def followed(table):
    """The fingerprints, kept commit by commit."""
    fingerprints = {}
    for commit in table.log.commits(-1):
        fingerprints = add_fingerprints(fingerprints, [commit])
    assert fingerprints == add_fingerprints({}, table.commits())
    return fingerprints


def days_changed(commit):
    return sorted(commit.changes)


def removal(add, **changed):
    """What another writer may leave of a remove action: no partition values, no statistics."""
    return {"remove": {"path": add["path"], "dataChange": True, "deletionTimestamp": 1} | changed}


VECTOR = {
    "storageType": "u",
    "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA",
    "offset": 1,
    "sizeInBytes": 36,
    "cardinality": 2,
}


def with_features(*features, reader=3):
    versions = {"minReaderVersion": reader, "minWriterVersion": 7}
    return {"protocol": versions | {"readerFeatures": list(features), "writerFeatures": list(features)}}


MODIFIED = datetime(2024, 5, 6, 7, 8, tzinfo=timezone.utc)
