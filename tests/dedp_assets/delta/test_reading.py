"""A table of our own is read the same from a folder and from an object store."""

from datetime import date, timedelta

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from dedp_assets.delta.reading import read_columns
from dedp_assets.delta.transactions import read_transactions
from dedp_assets.resources.object_store import storage_options

SCHEMA = pa.schema(
    [
        pa.field("event_time", pa.date32()),
        pa.field("type", pa.string()),
        pa.field("full_name", pa.string()),
        pa.field("version", pa.string()),
        pa.field("count", pa.int64()),
    ]
)
DAYS = [date(2024, 1, 1) + timedelta(days=number) for number in range(50)]


@pytest.fixture(params=["folder", "folder of an odd name", "object store"])
def uri(request: pytest.FixtureRequest) -> str:
    if request.param == "object store":
        return f"{request.getfixturevalue('s3_bucket')}/lake/it"
    return str(request.getfixturevalue("tmp_path") / ("lake" if request.param == "folder" else "l {1} *?#%é") / "it")


def written(uri: str) -> DeltaTable:
    options = storage_options(uri)
    rows = pa.table([DAYS, ["phone"] * 50, ["a"] * 50, [None] * 50, list(range(50))], schema=SCHEMA)
    write_deltalake(uri, rows, partition_by=["event_time"], storage_options=options)
    return DeltaTable(uri, storage_options=options)


def test_columns_are_read_in_their_order_and_as_they_are_typed(uri: str) -> None:
    found = read_columns(written(uri), ["count", "full_name", "version", "event_time"])
    assert found.schema.types == [pa.int64(), pa.string(), pa.string(), pa.date32()]
    assert sorted(found.to_pylist(), key=lambda row: row["count"]) == [
        {"count": number, "full_name": "a", "version": None, "event_time": day} for number, day in enumerate(DAYS)
    ]


@pytest.mark.parametrize("wanted", [DAYS[3:5], [DAYS[7], date(1999, 1, 1)], []])
def test_only_the_rows_of_the_dates_that_are_wanted_are_read(uri: str, wanted: list[date]) -> None:
    found = read_columns(written(uri), ["count"], ("event_time", wanted))
    assert sorted(found["count"].to_pylist()) == [DAYS.index(day) for day in wanted if day in DAYS]


def test_a_table_is_read_as_of_the_version_that_was_opened(uri: str) -> None:
    table = written(uri)
    write_deltalake(uri, SCHEMA.empty_table(), mode="overwrite", storage_options=storage_options(uri))
    assert read_columns(table, ["count"]).num_rows == 50
    table.update_incremental()
    assert read_columns(table, ["count"]).num_rows == 0


@pytest.mark.parametrize("checkpoint", [False, True])
def test_transactions_are_read_from_the_log_wherever_it_is(uri: str, checkpoint: bool) -> None:
    table = written(uri)
    properties = CommitProperties(app_transactions=[Transaction("app/1", 7)])
    write_deltalake(table, SCHEMA.empty_table(), mode="append", commit_properties=properties)
    if checkpoint:
        table.create_checkpoint()
    assert read_transactions(table, storage_options(uri), prefix="app/") == {"app/1": 7}
