"""Each line of a file is loaded or set aside, and doing it again leaves what doing it once leaves."""

import hashlib

import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from tests.dedp_assets.isolated_sequencer.aggregator.loads import (
    HEADER,
    LOAD,
    OTHER,
    everything,
    query,
    row_versions,
    some_rows,
)
from tests.dedp_assets.isolated_sequencer.fixture_types import AssertExact, QuarantineOf, RowsOf, WriteDevices


def test_a_dirty_file_ends_up_line_by_line_in_the_table_and_in_the_quarantine(
    database: Connection,
    devices_csv: WriteDevices,
    rows_of: RowsOf,
    quarantine_of: QuarantineOf,
    assert_exact: AssertExact,
) -> None:
    content = HEADER + b"\r\n".join(
        [
            "phone;漢字 😀;1".encode(),
            b'"a;b";"15"" c";\\.',
            b"{........",
            b"phone;Nova",
            b"phone;;3",
            b"phone;Nova;3;4",
            b"phone;Nov\xe9;3",
            b"phone;No\0va;3",
            b"",
            b"\\.",
            b'phone;"No',
            b'va";3',
            b" phone; Nova; 3",
            b"phone;Nova;\\N",
            "phone;漢字 😀;1".encode(),
            b'phone;15" Nova;3',
            b"x" * 16 + b";Nova;3",
            b"last;line;without an end",
        ]
    )
    report = load_file(database, LOAD, devices_csv(content))

    assert rows_of(LOAD) == sorted(
        ["phone;漢字 😀;1", 'a;b;15" c;\\.', " phone; Nova; 3", "phone;Nova;\\N", "last;line;without an end"]
    )
    assert quarantine_of(LOAD) == [
        (4, "missing field", "1 of 3 fields", "{........", b"{........"),
        (5, "missing field", "2 of 3 fields", "phone;Nova", b"phone;Nova"),
        (6, "missing value", "full_name", "phone;;3", b"phone;;3"),
        (7, "extra field", "4 of 3 fields", "phone;Nova;3;4", b"phone;Nova;3;4"),
        (8, "not UTF-8", "byte 0xe9 at position 10", "phone;Nov\\xe9;3", b"phone;Nov\xe9;3"),
        (9, "NUL byte", "at position 9", "phone;No\\x00va;3", b"phone;No\0va;3"),
        (10, "empty line", "", "", b""),
        (11, "missing field", "1 of 3 fields", "\\.", b"\\."),
        (12, "unclosed quote", "one line is one row", 'phone;"No', b'phone;"No'),
        (13, "unclosed quote", "one line is one row", 'va";3', b'va";3'),
        (16, "duplicate", "of an earlier line", "phone;漢字 😀;1", "phone;漢字 😀;1".encode()),
        (17, "unclosed quote", "one line is one row", 'phone;15" Nova;3', b'phone;15" Nova;3'),
        (18, "value too long", "type: 16 characters, 15 fit", "x" * 16 + ";Nova;3", b"x" * 16 + b";Nova;3"),
    ]
    assert (report.lines_read, report.rows_loaded, report.rows_quarantined) == (18, 5, 13)
    assert report.reasons == {
        "missing field": 3,
        "missing value": 1,
        "extra field": 1,
        "not UTF-8": 1,
        "NUL byte": 1,
        "empty line": 1,
        "unclosed quote": 3,
        "duplicate": 1,
        "value too long": 1,
    }
    assert_exact()


@pytest.mark.parametrize("character", ["x", "漢", "😀"])
def test_values_of_exactly_the_columns_length_load_and_one_character_more_does_not(
    database: Connection, devices_csv: WriteDevices, rows_of: RowsOf, quarantine_of: QuarantineOf, character: str
) -> None:
    lengths = [(15, 50, 40), (16, 50, 40), (15, 51, 40), (15, 50, 41)]
    lines = [";".join(character * length for length in line) for line in lengths]
    load_file(database, LOAD, devices_csv(lines))
    assert rows_of(LOAD) == lines[:1]
    assert [(number, detail) for number, _, detail, *_ in quarantine_of(LOAD)] == [
        (3, "type: 16 characters, 15 fit"),
        (4, "full_name: 51 characters, 50 fit"),
        (5, "version: 41 characters, 40 fit"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(HEADER + b"a;b;1\na;b;2\n", id="LF"),
        pytest.param(HEADER + b"a;b;1\na;b;2", id="no last line end"),
        pytest.param((HEADER + b"a;b;1\na;b;2\n").replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(b"\xef\xbb\xbf" + HEADER + b"a;b;1\na;b;2\n", id="byte order mark"),
    ],
)
def test_the_same_rows_load_whatever_ends_their_lines(
    database: Connection, devices_csv: WriteDevices, rows_of: RowsOf, content: bytes
) -> None:
    report = load_file(database, LOAD, devices_csv(content))
    assert rows_of(LOAD) == ["a;b;1", "a;b;2"]
    assert (report.size_bytes, report.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_an_overlong_line_is_set_aside_and_the_lines_around_it_load(
    database: Connection, devices_csv: WriteDevices, rows_of: RowsOf, quarantine_of: QuarantineOf
) -> None:
    content = HEADER + b"a;b;1\n" + b"\xf0\x9f\x98\x80" * (1 << 19) + b"\na;b;2\n"
    load_file(database, LOAD, devices_csv(content))
    assert rows_of(LOAD) == ["a;b;1", "a;b;2"]
    ((number, reason, detail, _, raw),) = quarantine_of(LOAD)
    assert (number, reason) == (3, "line too long")
    assert detail == "2,097,152 bytes, of which the first 1,048,576 are kept here"
    assert raw == b"\xf0\x9f\x98\x80" * (1 << 18)


@pytest.mark.parametrize("reload", [False, True])
def test_later_occurrences_are_the_duplicates_under_their_own_line_numbers(
    database: Connection,
    devices_csv: WriteDevices,
    rows_of: RowsOf,
    quarantine_of: QuarantineOf,
    assert_exact: AssertExact,
    reload: bool,
) -> None:
    # Rejected lines, CRLF and quoting in between: positions in the table and in the file drift apart.
    rows = some_rows(4000)
    body, duplicates, number = [], [], 1
    for n, row in enumerate(rows):
        first, second, third = row.split(";")
        again = f'{first};"{second}";{third}'
        lines = [row] + ["{........"] * (n % 3 == 0) + [again] * (n % 2) + [row] * (n % 5 == 0)
        for position, line in enumerate(lines):
            number += 1
            body.append(line + ("\r\n" if n % 4 else "\n"))
            if position and line != "{........":
                duplicates.append((number, line))
    if reload:
        load_file(database, LOAD, devices_csv(rows[:2000] + ["gone;gone;1"]))

    load_file(database, LOAD, devices_csv(HEADER + "".join(body).encode()))
    assert rows_of(LOAD) == sorted(rows)
    found = [(number, line) for number, reason, _, line, _ in quarantine_of(LOAD) if reason == "duplicate"]
    assert len(duplicates) > 2000
    assert found == duplicates
    assert_exact()


def test_a_wholly_duplicated_file_loads_once(
    database: Connection, devices_csv: WriteDevices, rows_of: RowsOf, quarantine_of: QuarantineOf
) -> None:
    rows = some_rows(3000)
    report = load_file(database, LOAD, devices_csv(rows + rows))
    assert (report.rows_loaded, report.reasons) == (3000, {"duplicate": 3000})
    assert rows_of(LOAD) == sorted(rows)
    assert [(number, line) for number, _, _, line, _ in quarantine_of(LOAD)] == list(enumerate(rows, start=3002))


def test_one_line_over_and_over_loads_once(
    database: Connection, devices_csv: WriteDevices, quarantine_of: QuarantineOf
) -> None:
    report = load_file(database, LOAD, devices_csv(["a;b;1"] * 5000))
    assert (report.rows_loaded, report.rows_quarantined) == (1, 4999)
    assert [number for number, *_ in quarantine_of(LOAD)] == list(range(3, 5002))


def test_rows_that_differ_in_case_or_a_space_are_no_duplicates(
    database: Connection, devices_csv: WriteDevices, rows_of: RowsOf
) -> None:
    rows = ["a;b;1", "A;b;1", "a;b ;1", "a; b;1", "a;b;1 ", "a;e\u0301;1", "a;\u00e9;1"]
    load_file(database, LOAD, devices_csv(rows))
    assert rows_of(LOAD) == sorted(rows)


@pytest.mark.parametrize("folded", [False, True])
def test_doing_the_same_file_again_writes_no_row(
    database: Connection, devices_csv: WriteDevices, assert_exact: AssertExact, folded: bool
) -> None:
    path = devices_csv([*some_rows(500), "{........", *some_rows(3)])
    first = load_file(database, LOAD, path)
    if folded:
        fold(database, LOAD)
    before, versions = everything(database), row_versions(database)
    assert load_file(database, LOAD, path) == first
    assert row_versions(database) == versions
    assert query(database, "TABLE dedp.devices_changes") == []
    assert everything(database) == before
    assert_exact()


@pytest.mark.parametrize("folded", [False, True])
def test_doing_it_again_with_one_row_changed_writes_that_row_only(
    database: Connection, devices_csv: WriteDevices, assert_exact: AssertExact, folded: bool
) -> None:
    rows = some_rows(500)
    load_file(database, LOAD, devices_csv(rows))
    if folded:
        fold(database, LOAD)
    versions = row_versions(database)
    changed = [*rows[:250], "changed;device;1", *rows[251:]]
    load_file(database, LOAD, devices_csv(changed))
    now = row_versions(database)
    assert now.keys() == set(changed)
    assert {row for row in now if now[row] != versions.get(row)} == {"changed;device;1"}
    assert_exact()


def test_a_reload_replaces_rows_and_quarantine_as_a_whole(
    database: Connection,
    devices_csv: WriteDevices,
    rows_of: RowsOf,
    quarantine_of: QuarantineOf,
    assert_exact: AssertExact,
) -> None:
    load_file(database, LOAD, devices_csv([*some_rows(50), "{........"]))
    load_file(database, LOAD, devices_csv(["bad", *some_rows(10, start=45)]))
    assert rows_of(LOAD) == sorted(some_rows(10, start=45))
    assert [(number, line) for number, _, _, line, _ in quarantine_of(LOAD)] == [(2, "bad")]
    assert_exact()


def test_a_reload_leaves_other_loads_alone(database: Connection, devices_csv: WriteDevices) -> None:
    load_file(database, OTHER, devices_csv([*some_rows(50), "{........"]))
    before = everything(database)
    load_file(database, LOAD, devices_csv(some_rows(20)))
    load_file(database, LOAD, devices_csv(some_rows(20, start=10)))
    after = everything(database)
    for table in ("raw", "quarantine", "ledger"):
        assert [row for row in after[table] if OTHER in row] == before[table]
