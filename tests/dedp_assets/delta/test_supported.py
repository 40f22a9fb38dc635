"""Tables that would be read wrong are refused, with what to do; those that only could be are not."""

import json
from collections.abc import Callable
from typing import TypeAlias

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from dedp_assets.delta.problems import UnsupportedTable
from tests.dedp_assets.delta.tables import FIRST, MODIFIED, VECTOR, Action, Table, devices, removal, with_features

# Gives the actions of another writer's commit, from the table and the add action of its only file.
OtherWriter: TypeAlias = Callable[[Table, Action], list[Action]]
# Gives rows and partition columns of another table, from rows.
Repartition: TypeAlias = Callable[[pa.Table], tuple[pa.Table, list[str]]]


def metadata(table: Table, version: int = 0, **changed: object) -> Action:
    (found,) = table.actions(version, "metaData")
    return {"metaData": found | changed}


def column_mapping(table: Table, mode: str) -> Action:
    (found,) = table.actions(0, "metaData")
    schema = json.loads(found["schemaString"])
    for number, column in enumerate(schema["fields"], start=1):
        column["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": column["name"]}
    properties = {"delta.columnMapping.mode": mode, "delta.columnMapping.maxColumnId": "4"}
    return {"metaData": found | {"schemaString": json.dumps(schema), "configuration": properties}}


UNSUPPORTED: dict[str, tuple[OtherWriter, str]] = {
    "deletion vectors in use": (
        lambda t, add: [
            with_features("deletionVectors"),
            removal(add, partitionValues=add["partitionValues"]),
            {"add": add | {"deletionVector": VECTOR}},
        ],
        "deletionVectors.*delta.enableDeletionVectors = false.*REORG TABLE",
    ),
    "columns mapped by name": (
        lambda t, add: [{"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}, column_mapping(t, "name")],
        "columnMapping, delta.columnMapping.mode = name.*set it to 'none'",
    ),
    "columns mapped by id, as a feature": (
        lambda t, add: [with_features("columnMapping"), column_mapping(t, "id")],
        "columnMapping, delta.columnMapping.mode = id.*set it to 'none'",
    ),
    "a feature that delta-rs knows": (lambda t, add: [with_features("typeWidening")], "typeWidening.*DROP FEATURE"),
    "several features": (
        lambda t, add: [with_features("variantType", "timestampNtz", "typeWidening")],
        "the table feature typeWidening, variantType, which",
    ),
    "a feature that nobody knows": (lambda t, add: [with_features("madeUp")], "madeUp.*write it without"),
    "commits kept in a catalog": (lambda t, add: [with_features("catalogManaged")], "catalog.*write it without"),
    "a protocol of the future": (
        lambda t, add: [with_features(reader=4)],
        "version 4 of the protocol.*write it without",
    ),
    "no partition column": (
        lambda t, add: [metadata(t, partitionColumns=[])],
        r"is partitioned by no column; expected event_time alone: write it with partition_by=\['event_time'\]",
    ),
    "files that lie elsewhere": (
        lambda t, add: [{"add": add | {"path": "s3://bucket/devices/" + add["path"]}}],
        "s3://bucket/devices/event_time=.* lies outside of it .a shallow clone.",
    ),
    "files that lie elsewhere on this machine": (
        lambda t, add: [{"add": add | {"path": "/data/" + add["path"]}}],
        "/data/event_time=.* lies outside of it .a shallow clone.",
    ),
}


@pytest.mark.parametrize(("actions", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_a_table_that_would_be_read_wrong_is_refused_by_name_and_with_what_to_do(
    table: Table, actions: OtherWriter, message: str
) -> None:
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(1, *actions(table, add))
    with pytest.raises(UnsupportedTable, match=message) as raised:
        table.log.snapshot()
    assert str(raised.value).startswith(table.uri)
    assert "\n" not in str(raised.value)
    (commit,) = table.commits(0)
    assert commit.check_table


OTHERWISE: dict[str, tuple[Repartition, str]] = {
    "another partition column": (
        lambda rows: (rows, ["type"]),
        "is partitioned by type; expected event_time alone: write it with partition_by=",
    ),
    "a second partition column": (
        lambda rows: (rows, ["event_time", "type"]),
        "is partitioned by event_time, type; expected event_time alone",
    ),
    "a partition column of another type": (
        lambda rows: (rows.set_column(3, "event_time", pa.array([MODIFIED] * 3)), ["event_time"]),
        "its partition column event_time is of type timestamp; expected date, or string as in 2024-01-31",
    ),
}


@pytest.mark.parametrize(("change", "message"), OTHERWISE.values(), ids=OTHERWISE)
def test_a_table_that_is_not_partitioned_by_day_is_refused(table: Table, change: Repartition, message: str) -> None:
    rows, partition_by = change(devices(FIRST))
    write_deltalake(table.uri, rows, partition_by=partition_by)
    with pytest.raises(UnsupportedTable, match=f"{table.uri}.* {message}"):
        table.log.snapshot()


def test_deletion_vectors_that_can_be_read_are_refused_like_those_that_cannot(table: Table) -> None:
    table.append(FIRST, names=["nokia"] * 30)
    (add,) = table.actions(0, "add")
    # From the examples of Delta's protocol: rows 3, 4, 7, 11, 18 and 29 of some file, inline.
    inline = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"
    vector = {"storageType": "i", "pathOrInlineDv": inline, "sizeInBytes": 40, "cardinality": 6}
    table.write_commit(1, with_features("deletionVectors"))
    table.write_commit(2, removal(add), {"add": add | {"deletionVector": vector}})
    with pytest.raises(UnsupportedTable, match=r"has files with deletion vectors \(deletionVectors\), which"):
        table.log.snapshot()


READABLE: dict[str, Callable[[Table], list[Action]]] = {
    "deletion vectors that no file has": lambda t: [
        with_features("deletionVectors"),
        metadata(t, configuration={"delta.enableDeletionVectors": "true"}),
    ],
    "column mapping that is not used": lambda t: [with_features("columnMapping"), column_mapping(t, "none")],
    "features that are nothing to us": lambda t: [
        with_features("v2Checkpoint", "timestampNtz", "vacuumProtocolCheck"),
    ],
}


@pytest.mark.parametrize("actions", READABLE.values(), ids=READABLE)
def test_a_feature_that_does_no_harm_is_none(table: Table, actions: Callable[[Table], list[Action]]) -> None:
    table.append(FIRST)
    table.write_commit(1, *actions(table))
    assert set(table.log.snapshot().files) == {FIRST}


def test_a_table_that_got_rid_of_its_deletion_vectors_is_read_again(table: Table) -> None:
    table.append(FIRST)
    (add,) = table.actions(0, "add")
    table.write_commit(1, with_features("deletionVectors"))
    table.write_commit(2, removal(add), {"add": add | {"deletionVector": VECTOR}})
    with pytest.raises(UnsupportedTable):
        table.log.snapshot()
    table.write_commit(3, removal(add | {"path": add["path"]}, deletionVector=VECTOR))
    assert table.log.snapshot().files == {}
