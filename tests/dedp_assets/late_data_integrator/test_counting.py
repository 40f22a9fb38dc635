"""What Spark counts: the same rows from a folder as from an object store, of exactly the files of a snapshot."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from deltalake.fs import DeltaStorageHandler

from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import UnsupportedTable
from dedp_assets.late_data_integrator.counting import CountingFailed, count_devices, counted_columns, spark_reads
from dedp_assets.resources.object_store import storage_options
from dedp_assets.resources_from_settings import SparkFromSettings
from tests.dedp_assets.late_data_integrator.device_tables import Action

DAY, OTHER = "2024-01-01", "2024-01-02"
AS_WRITTEN = {"type": "string", "full_name": "string", "version": "string", "event_time": "date"}

# Names of files that a pattern, an escape, a hidden file or a scheme might be taken for.
ODD_NAMES = [
    "part-{1}.parquet",
    "part-[1].parquet",
    "part-*.parquet",
    "part-?.parquet",
    "_part.parquet",
    ".part.parquet",
    "part%201.parquet",
    "part 1.parquet",
    "part:1.parquet",
    "pärt.parquet",
    "part.parquet._COPYING_",
    "part,1#2&3=4;5.parquet",
]
# What Spark would read in place of them.
NEIGHBOURS = ["part-1.parquet", "part-2.parquet", "part.parquet", "part 1.parquet", "1.parquet"]


class Table:
    """A Delta table that is written by hand, file by file."""

    def __init__(self, uri: str, **schema: str) -> None:
        self.uri, self.version = uri, -1
        if "://" in uri:
            self.store: pa.fs.FileSystem = pa.fs.PyFileSystem(DeltaStorageHandler(uri, storage_options(uri)))
        else:
            Path(uri, "_delta_log").mkdir(parents=True)
            self.store = pa.fs.SubTreeFileSystem(uri, pa.fs.LocalFileSystem())
        self.set_schema(**(schema or AS_WRITTEN))

    def set_schema(self, **schema: str) -> None:
        self.schema = schema
        fields = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in schema.items()]
        metadata = {
            "id": "a-table",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": fields}),
            "partitionColumns": ["event_time"],
            "configuration": {},
        }
        protocol = {"minReaderVersion": 1, "minWriterVersion": 2}
        self.commit({"protocol": protocol}, {"metaData": metadata})

    def add(self, path: str, rows: pa.Table, day: str = DAY) -> None:
        """Write a file, and the commit that adds it."""
        self.put(path, rows)
        values = {"event_time": day}
        action = {"path": path.replace("%", "%25"), "partitionValues": values, "size": 1, "modificationTime": 0}
        self.commit({"add": {**action, "dataChange": True}})

    def put(self, path: str, rows: pa.Table) -> None:
        """Write a file that the table does not know."""
        content = io.BytesIO()
        pq.write_table(rows, content)
        self._write(path, content.getvalue())

    def commit(self, *actions: Action) -> None:
        self.version += 1
        content = "".join(f"{json.dumps(action)}\n" for action in actions)
        self._write(f"_delta_log/{self.version:020}.json", content.encode())

    def _write(self, path: str, content: bytes) -> None:
        if "://" not in self.uri:
            Path(self.uri, path).parent.mkdir(parents=True, exist_ok=True)
        with self.store.open_output_stream(path, compression=None, buffer_size=len(content) + 1) as file:
            file.write(content)

    def counts(self, *days: str) -> list[tuple[Any, ...]]:
        """The counts of those days, in order."""
        snapshot = DeltaLog(self.uri, storage_options(self.uri)).snapshot()
        counts = count_devices(SparkFromSettings().session, snapshot, days or [DAY])
        rows = (tuple(row.values())[1:] for row in counts.select(SCHEMA).to_pylist())
        return sorted(rows, key=str)


SCHEMA = ["event_time", "type", "full_name", "version", "count"]


@pytest.fixture(params=["folder", pytest.param("object store", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, spark_remote: str) -> str:
    """Where a table may be: a folder, or a bucket."""
    if request.param == "folder":
        return str(request.getfixturevalue("tmp_path"))
    return str(request.getfixturevalue("s3_bucket"))


def rows(number: int = 1, **columns: pa.DataType) -> pa.Table:
    """`number` equal rows: a phone called a, of version 7."""
    kinds = columns or {"type": pa.string(), "full_name": pa.string(), "version": pa.string()}
    values = {"type": "phone", "full_name": "a", "version": "7"}
    return pa.table(
        {
            name: pa.array([values.get(name.lower(), "0")] * number).cast(pa.string()).cast(kind)
            for name, kind in kinds.items()
        }
    )


def folder(day: str = DAY) -> str:
    return f"event_time={day}"


@pytest.mark.parametrize(
    ("schema", "columns"),
    [
        (AS_WRITTEN, {"type": "type", "full_name": "full_name", "version": "version"}),
        (
            {"event_time": "date", "VERSION": "long", "Type": "string", "Full_Name": "byte", "more": "struct"},
            {"type": "Type", "full_name": "Full_Name", "version": "VERSION"},
        ),
    ],
)
def test_the_columns_of_a_table_are_found_in_any_order_and_case(
    schema: dict[str, str], columns: dict[str, str]
) -> None:
    assert counted_columns("/lake/devices", schema) == columns


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"device_type": "string", "name": "string", "version": "string", "event_time": "date"},
            "/lake/devices has no column type, full_name; found: device_type (string), name (string), "
            "version (string), event_time (date); expected: type, full_name, version, in any case; "
            "rename its columns, or have its writer write these",
        ),
        ({}, "/lake/devices has no column type, full_name, version; found: none; expected: type, full_name, version"),
        (AS_WRITTEN | {"Version": "string"}, "/lake/devices has the columns version, Version, which Delta takes for"),
        (AS_WRITTEN | {"version": "double"}, "/lake/devices: its column version is of type double; expected string, "),
        (AS_WRITTEN | {"version": "decimal(10,0)"}, "its column version is of type decimal(10,0); expected string"),
        (AS_WRITTEN | {"type": "binary", "version": "date"}, "type is of type binary, version is of type date;"),
        (AS_WRITTEN | {"type": "struct"}, "its column type is of type struct; expected string"),
        (AS_WRITTEN | {"type": "boolean"}, "its column type is of type boolean; expected string"),
    ],
)
def test_a_table_without_the_columns_that_are_counted_is_refused_with_what_was_found(
    changed: dict[str, str], message: str
) -> None:
    with pytest.raises(UnsupportedTable) as refused:
        counted_columns("/lake/devices", changed)
    assert message in str(refused.value)


@pytest.mark.parametrize("name", [*ODD_NAMES[:5], "_part.parquet", ".part.parquet", "part:1.parquet", "pärt.parquet"])
def test_spark_itself_is_not_asked_for_a_file_that_it_would_not_take_by_its_name(name: str) -> None:
    assert spark_reads("/lake", f"/lake/event_time={DAY}/part.parquet", DAY)
    assert not spark_reads("/lake", f"/lake/event_time={DAY}/{name}", DAY)


@pytest.mark.parametrize(
    ("root", "file"),
    [
        ("s3://bucket", f"s3://bucket/event_time={DAY}/part.parquet"),
        ("/lake{1}", f"/lake{{1}}/event_time={DAY}/part.parquet"),
        ("/lake%20", f"/lake%20/event_time={DAY}/part.parquet"),
        ("/lake", f"/lake/event_time={OTHER}/part.parquet"),
        ("/lake", f"/lake/event_time={DAY}/more=1/part.parquet"),
        ("/lake", "/lake/part.parquet"),
    ],
)
def test_spark_itself_reads_only_where_the_folder_tells_the_day(root: str, file: str) -> None:
    assert not spark_reads(root, file, DAY)


def test_columns_in_any_case_are_counted_everywhere(place: str) -> None:
    table = Table(f"{place}/devices", Type="string", Full_Name="string", VERSION="string", event_time="date")
    table.add(f"{folder()}/1.parquet", rows(1, Type=pa.string(), Full_Name=pa.string(), VERSION=pa.string()))
    table.add(f"{folder()}/2.parquet", rows(2, type=pa.string(), FULL_NAME=pa.string(), version=pa.string()))
    assert table.counts() == [("phone", "a", "7", 3)]


@pytest.mark.parametrize(("delta", "arrow"), [("byte", pa.int8()), ("integer", pa.int32()), ("long", pa.int64())])
def test_integers_are_counted_by_their_text_everywhere(place: str, delta: str, arrow: pa.DataType) -> None:
    table = Table(f"{place}/devices", **AS_WRITTEN | {"version": delta})
    data = rows(3, type=pa.string(), full_name=pa.string(), version=arrow)
    largest = 2 ** (arrow.bit_width - 1) - 1
    values = pa.array([0, -largest - 1, None], arrow)
    table.add(f"{folder()}/1.parquet", data.set_column(2, "version", values))
    table.add(f"{folder()}/2.parquet", data.set_column(2, "version", pa.array([largest, 0, 7], arrow)))
    names = sorted([None, "0", "0", "7", str(largest), str(-largest - 1)], key=str)
    assert sorted([name for *_, name, count in table.counts() for _ in range(count)], key=str) == names


def test_a_column_that_a_file_does_not_have_is_null_everywhere(place: str) -> None:
    table = Table(f"{place}/devices", **AS_WRITTEN)
    table.add(f"{folder()}/1.parquet", rows(2, type=pa.string(), full_name=pa.string()))
    table.add(f"{folder()}/2.parquet", rows(3, something=pa.string()))
    table.add(f"{folder()}/3.parquet", rows(4))
    assert table.counts() == [("phone", "a", "7", 4), ("phone", "a", None, 2), (None, None, None, 3)]


def test_a_table_of_other_columns_is_refused_everywhere_before_anything_is_counted(place: str) -> None:
    table = Table(f"{place}/devices", device_type="string", name="string", version="string", event_time="date")
    table.add(f"{folder()}/1.parquet", rows(1, device_type=pa.string(), name=pa.string(), version=pa.string()))
    with pytest.raises(UnsupportedTable, match=rf"^{place}/devices has no column type, full_name; found: device_type"):
        table.counts()
    assert table.counts(OTHER) == []


def test_a_file_of_another_type_than_its_table_is_never_read_as_if_it_were_right(place: str) -> None:
    table = Table(f"{place}/devices", **AS_WRITTEN | {"version": "integer"})
    table.add(f"{folder()}/1.parquet", rows(1, type=pa.string(), full_name=pa.string(), version=pa.int32()))
    table.add(f"{folder()}/2.parquet", rows(1))
    with pytest.raises(UnsupportedTable, match=r"2\.parquet"):
        table.counts()


def test_exactly_the_files_of_a_snapshot_are_read_whatever_they_are_called(place: str) -> None:
    """Each file has a number of rows of its own, so their sum says which were read."""
    table = Table(f"{place}/devices")
    for name in NEIGHBOURS:
        table.put(f"{folder()}/{name}", rows(100_000))
    expected = []
    for number, name in enumerate(ODD_NAMES):
        if name not in ("part:1.parquet",) or "://" not in place:
            table.add(f"{folder()}/{name}", rows(2**number))
            expected.append(2**number)
    assert table.counts() == [("phone", "a", "7", sum(expected))]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_of_an_odd_name_is_read_alone_from_a_folder(spark_remote: str, tmp_path: Path, name: str) -> None:
    table = Table(str(tmp_path / "devices"))
    for neighbour in {*NEIGHBOURS} - {name}:
        table.put(f"{folder()}/{neighbour}", rows(100))
    table.add(f"{folder()}/{name}", rows(3))
    assert table.counts() == [("phone", "a", "7", 3)]


@pytest.mark.parametrize(
    "lake", ["la{1}", "la[1]", "la*", "la?", "la ke", "_lake", ".lake", "lä", "la:ke", "la,ke#1&2"]
)
def test_a_lake_in_a_folder_of_an_odd_name_is_read(spark_remote: str, tmp_path: Path, lake: str) -> None:
    for neighbour in ("la1", "la2", "lake"):
        Table(str(tmp_path / neighbour / "devices")).add(f"{folder()}/1.parquet", rows(100))
    table = Table(str(tmp_path / lake / "devices"))
    table.add(f"{folder()}/1.parquet", rows(3))
    assert table.counts() == [("phone", "a", "7", 3)]


def test_a_day_is_what_the_log_says_and_not_what_a_folder_is_called(place: str) -> None:
    table = Table(f"{place}/devices")
    table.add(f"{folder(OTHER)}/1.parquet", rows(1), day=DAY)
    table.add("2.parquet", rows(2), day=DAY)
    table.add(f"{folder()}/more=1/3.parquet", rows(4), day=DAY)
    table.add(f"{folder()}/4.parquet", rows(8), day=OTHER)
    assert table.counts() == [("phone", "a", "7", 7)]
    assert table.counts(OTHER) == [("phone", "a", "7", 8)]


@pytest.mark.parametrize("setting", ["ignoreMissingFiles", "ignoreCorruptFiles"])
def test_a_file_that_cannot_be_read_fails_the_count_whatever_spark_is_set_to(
    spark_remote: str, tmp_path: Path, setting: str
) -> None:
    table = Table(str(tmp_path / "devices"))
    table.add(f"{folder()}/1.parquet", rows(1))
    table.add(f"{folder()}/2.parquet", rows(1))
    spark = SparkFromSettings().session
    snapshot = DeltaLog(table.uri).snapshot()
    file = Path(table.uri, folder(), "2.parquet")
    if setting == "ignoreMissingFiles":
        file.unlink()
    else:
        file.write_bytes(b"damaged")
    spark.conf.set(f"spark.sql.files.{setting}", "true")
    try:
        with pytest.raises(CountingFailed, match=r"2\.parquet"):
            count_devices(spark, snapshot, [DAY])
    finally:
        spark.conf.unset(f"spark.sql.files.{setting}")


def test_a_snapshot_tells_the_columns_of_its_table(place: str) -> None:
    table = Table(f"{place}/devices", **AS_WRITTEN | {"version": "decimal(10,2)"})
    assert DeltaLog(table.uri, storage_options(table.uri)).snapshot().schema == table.schema
    table.set_schema(**AS_WRITTEN)
    assert DeltaLog(table.uri, storage_options(table.uri)).snapshot(0).schema["version"] == "decimal(10,2)"
    assert DeltaLog(table.uri, storage_options(table.uri)).snapshot().schema == AS_WRITTEN
