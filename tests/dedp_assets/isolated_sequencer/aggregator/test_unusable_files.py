"""A file of which nothing can be loaded is named, with what was found in it, and changes nothing."""

from pathlib import Path

import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.delimited.header import RefusedLine, UnusableFile
from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from tests.dedp_assets.isolated_sequencer.aggregator.loads import (
    HEADER,
    LOAD,
    everything,
    query,
    row_versions,
    some_rows,
)
from tests.dedp_assets.isolated_sequencer.fixture_types import AssertExact, QuarantineOf, RowsOf, WriteDevices


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(HEADER, "has a header and no lines", id="header only"),
        pytest.param(b"type;name;version\na;b;1\n", "has the first line 'type;name;version'", id="wrong header"),
        pytest.param(b"type,full_name,version\na,b,1\n", "is delimited by ',', not by ';'", id="commas"),
        pytest.param(b"type\tfull_name\tversion\na\tb\t1\n", "is delimited by '\\t', not by ';'", id="tabs"),
        pytest.param(None, "does not exist; materialize devices_file", id="missing"),
        pytest.param(HEADER + b"\n", "of 1 read (empty line 1), the first is line 2, '': empty line", id="a line end"),
        pytest.param(HEADER + b"a,b,1", "line 2, 'a,b,1': missing field, 1 of 3 fields", id="rows with commas"),
        pytest.param(HEADER * 2, "line 2, 'type;full_name;version': repeated header", id="two headers"),
        pytest.param(
            HEADER + b"a;b;1\ra;b;2\r",
            r"(carriage return 1), the first is line 2, 'a;b;1\ra;b;2': carriage return, at position 6; "
            "is a carriage return alone the end of its lines?",
            id="an old Mac's lines",
        ),
    ],
)
@pytest.mark.parametrize("earlier", [False, True])
def test_an_unusable_file_is_named_and_changes_nothing(
    database: Connection,
    devices_csv: WriteDevices,
    tmp_path: Path,
    assert_exact: AssertExact,
    earlier: bool,
    content: bytes | None,
    found: str,
) -> None:
    if earlier:
        load_file(database, LOAD, devices_csv([*some_rows(20), "{........"]))
        fold(database, LOAD)
    before, versions = everything(database), row_versions(database)
    path = tmp_path / "missing.csv" if content is None else devices_csv(content, "unusable.csv")
    with pytest.raises(UnusableFile) as raised:
        load_file(database, LOAD, path)
    assert found in str(raised.value)
    assert str(path) not in str(raised.value)
    if "first line" in found or "delimited" in found:
        assert "expected the header type;full_name;version" in str(raised.value)
    assert everything(database) == before
    assert row_versions(database) == versions
    assert_exact()


def test_a_file_without_one_usable_line_tells_how_many_it_has_for_which_reasons_and_the_first(
    database: Connection, devices_csv: WriteDevices
) -> None:
    with pytest.raises(UnusableFile) as raised:
        load_file(database, LOAD, devices_csv(["{........"] * 1200 + [""] * 3 + ["x" * 300, "phone;Nov\0a;1"]))
    assert str(raised.value) == (
        "has a header and no usable line; of 1,205 read (missing field 1,201, empty line 3, NUL byte 1), the first is "
        "line 2, '{........': missing field, 1 of 3 fields"
    )
    assert raised.value.lines_read == 1205
    assert raised.value.reasons == {"missing field": 1201, "empty line": 3, "NUL byte": 1}
    assert raised.value.first_lines == tuple(
        RefusedLine(number, "missing field", "1 of 3 fields", "{........") for number in range(2, 7)
    )
    assert query(database, "SELECT count(*) FROM dedp.devices_loads") == [(0,)]


def test_one_usable_line_among_many_bad_ones_is_a_load(
    database: Connection, devices_csv: WriteDevices, rows_of: RowsOf, assert_exact: AssertExact
) -> None:
    report = load_file(database, LOAD, devices_csv(["{........"] * 300 + ["a;b;1"]))
    assert (report.lines_read, report.rows_loaded, report.rows_quarantined) == (301, 1, 300)
    assert rows_of(LOAD) == ["a;b;1"]
    assert_exact()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_of_joined_files_the_rows_load_and_the_header_is_set_aside_as_it_came(
    database: Connection,
    devices_csv: WriteDevices,
    rows_of: RowsOf,
    quarantine_of: QuarantineOf,
    assert_exact: AssertExact,
    mark: str,
) -> None:
    header = f"{mark}type;full_name;version"
    content = "\n".join([header, "a;b;1", header, f"{mark}a;b;2", f"{mark}a;b;1", f"a;b{mark or 'x'};1", ""])
    load_file(database, LOAD, devices_csv(content.encode()))
    assert rows_of(LOAD) == (["a;b;1", "a;b;2"] if mark else ["a;b;1", "a;b;2", "a;bx;1"])
    assert quarantine_of(LOAD) == [
        (3, "repeated header", "were files joined?", header, header.encode()),
        (5, "duplicate", "of an earlier line", f"{mark}a;b;1", f"{mark}a;b;1".encode()),
        *[(6, "byte order mark", "at position 4", f"a;b{mark};1", f"a;b{mark};1".encode())] * bool(mark),
    ]
    assert_exact()


def test_a_folder_in_place_of_the_file_is_an_unusable_file(database: Connection, tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match=r"^can't be read: Is a directory$"):
        load_file(database, LOAD, tmp_path)


def test_an_unusable_file_leaves_the_connection_and_the_load_usable(
    database: Connection, devices_csv: WriteDevices, rows_of: RowsOf
) -> None:
    with pytest.raises(UnusableFile):
        load_file(database, LOAD, devices_csv(b""))
    load_file(database, LOAD, devices_csv(["a;b;1"]))
    assert rows_of(LOAD) == ["a;b;1"]
