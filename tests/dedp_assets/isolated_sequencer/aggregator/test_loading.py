"""A load is there as a whole or not at all, and doing it again leaves what doing it once leaves."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.delimited.header import RefusedLine, UnusableFile
from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from tests.dedp_assets.isolated_sequencer.fixture_types import (
    AssertExact,
    QuarantineOf,
    RowsOf,
    WaitUntil,
    WriteDevices,
)

HEADER = b"type;full_name;version\n"
LOAD = "20240101"
OTHER = "20240102"

_GATE = 20240101  # an advisory lock that the test holds and the load has to wait for


def some_rows(count: int, start: int = 0) -> list[str]:
    return [f"type {n % 7};device {n};{n % 3}" for n in range(start, start + count)]


@contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    connection = psycopg2.connect(dsn)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def locked(dsn: str, table: str) -> Iterator[Connection]:
    """Keep every other connection from `table`, until the block ends or the connection given is rolled back."""
    with connected(dsn) as connection:
        connection.cursor().execute(f"LOCK TABLE {table}")
        yield connection


@contextmanager
def closed_gate(dsn: str) -> Iterator[Connection]:
    """Hold _GATE until the block ends or the connection given is rolled back."""
    with connected(dsn) as connection:
        connection.cursor().execute("SELECT pg_advisory_xact_lock(%s)", [_GATE])
        yield connection


def execute(connection: Connection, statement: str, *parameters: object) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


def query(connection: Connection, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall()


def everything(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All that readers can see, but for the time of loading."""
    tables = {
        "raw": "SELECT * FROM dedp.devices_raw",
        "quarantine": "SELECT load_id, line_number, reason, detail, line, raw_line::text FROM dedp.devices_quarantine",
        "ledger": "SELECT load_id, sha256, lines_read, rows_loaded, rows_quarantined FROM dedp.devices_loads",
        "totals": "SELECT * FROM dedp.devices_aggregates",
    }
    return {name: sorted(query(connection, statement)) for name, statement in tables.items()}


def row_versions(connection: Connection) -> dict[str, tuple[Any, ...]]:
    """Which transaction wrote each row, and where it lies."""
    statement = "SELECT concat_ws(';', type, full_name, version), xmin::text, ctid::text FROM dedp.devices_raw"
    return {row: tuple(version) for row, *version in query(connection, statement)}


# --- what is loaded, and what is set aside


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


# --- doing it again


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


# --- files of which nothing can be loaded


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


# --- killed at any point

# Each makes the load stop at one point, from within the database, until the test lets go of _GATE.
_WAIT_AT_COMMAND = """
    CREATE FUNCTION wait_at_gate() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_query() LIKE '%{0}%' THEN PERFORM pg_advisory_xact_lock({1}); END IF;
    END $$;
    CREATE EVENT TRIGGER gate ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION wait_at_gate();
"""
_WAIT_AT_WRITE = """
    CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock({1}); RETURN NULL; END $$;
    CREATE {0} EXECUTE FUNCTION wait_at_gate();
"""


class Step(NamedTuple):
    """A point in a load at which it can be made to wait."""

    waits: str
    reload: bool
    commits: bool = False


STEPS = {
    "key is built, new": Step(_WAIT_AT_COMMAND.format("ADD PRIMARY KEY", _GATE), reload=False),
    "key is built, again": Step(_WAIT_AT_COMMAND.format("ADD PRIMARY KEY", _GATE), reload=True),
    "partition is attached": Step(_WAIT_AT_COMMAND.format("ATTACH PARTITION", _GATE), reload=False),
    "quarantine is written": Step(
        _WAIT_AT_WRITE.format("TRIGGER gate AFTER INSERT ON dedp.devices_quarantine FOR EACH ROW", _GATE), reload=True
    ),
    "rows are gone": Step(
        _WAIT_AT_WRITE.format("TRIGGER gate AFTER DELETE ON dedp.devices_raw FOR EACH STATEMENT", _GATE), reload=True
    ),
    "rows have come": Step(
        _WAIT_AT_WRITE.format("TRIGGER gate AFTER INSERT ON dedp.devices_raw FOR EACH STATEMENT", _GATE), reload=True
    ),
    "ledger is written, new": Step(
        _WAIT_AT_WRITE.format("TRIGGER gate AFTER UPDATE ON dedp.devices_loads FOR EACH ROW", _GATE), reload=False
    ),
    "ledger is written, again": Step(
        _WAIT_AT_WRITE.format("TRIGGER gate AFTER UPDATE ON dedp.devices_loads FOR EACH ROW", _GATE), reload=True
    ),
    # The server has been told to commit, and nobody is left to hear that it did.
    "commit": Step(
        _WAIT_AT_WRITE.format(
            "CONSTRAINT TRIGGER gate AFTER UPDATE ON dedp.devices_loads DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
            _GATE,
        ),
        reload=True,
        commits=True,
    ),
}


def _load_in_child(dsn: str, path: Path) -> None:
    load_file(psycopg2.connect(dsn, application_name="child"), LOAD, path)


@contextmanager
def loading_process(dsn: str, path: Path) -> Iterator[multiprocessing.process.BaseProcess]:
    """Another process that loads `path` as LOAD, and is dead when the block ends."""
    process = multiprocessing.get_context("fork").Process(target=_load_in_child, args=(dsn, path))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


WAITING_CHILD = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'child' "
    "AND wait_event_type = 'Lock'"
)
NO_CHILD = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'child'"


@pytest.mark.parametrize("name", list(STEPS))
def test_a_load_killed_at_any_step_leaves_the_earlier_one_and_can_be_done_again(
    database: Connection,
    dsn: str,
    devices_csv: WriteDevices,
    rows_of: RowsOf,
    assert_exact: AssertExact,
    wait_until: WaitUntil,
    name: str,
) -> None:
    step = STEPS[name]
    load_file(database, OTHER, devices_csv(some_rows(30)))
    if step.reload:
        load_file(database, LOAD, devices_csv([*some_rows(200), "{........"]))
        fold(database, LOAD)
    path = devices_csv([*some_rows(300, start=100), *some_rows(5, start=390), "bad"])
    before = everything(database)

    execute(database, step.waits)
    with closed_gate(dsn), loading_process(dsn, path) as process:
        wait_until(WAITING_CHILD)
        assert everything(database) == before
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    wait_until(NO_CHILD)

    assert (everything(database) == before) is not step.commits
    assert_exact()
    execute(database, "DROP FUNCTION wait_at_gate() CASCADE")
    load_file(database, LOAD, path)
    assert rows_of(LOAD) == sorted(some_rows(300, start=100))
    assert_exact()


@pytest.mark.parametrize("reload", [False, True])
def test_a_load_killed_while_rows_are_copied_leaves_the_earlier_one_and_can_be_done_again(
    database: Connection,
    dsn: str,
    devices_csv: WriteDevices,
    rows_of: RowsOf,
    assert_exact: AssertExact,
    wait_until: WaitUntil,
    tmp_path: Path,
    reload: bool,
) -> None:
    load_file(database, OTHER, devices_csv(some_rows(30)))
    if reload:
        load_file(database, LOAD, devices_csv([*some_rows(200), "{........"]))
        fold(database, LOAD)
    before = everything(database)
    rows = some_rows(40_000)
    path = devices_csv(rows)

    # A pipe in place of the file: half of it comes, and then nothing.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with loading_process(dsn, pipe) as process, open(pipe, "wb") as writer:
        writer.write(path.read_bytes()[:700_000])
        writer.flush()
        copying = "SELECT min(p.pid) FROM pg_stat_progress_copy AS p WHERE tuples_processed > 0"
        wait_until(f"{copying} AND datname = current_database()")
        assert everything(database) == before
        process.kill()
        process.join()
    wait_until(NO_CHILD)

    assert everything(database) == before
    assert_exact()
    load_file(database, LOAD, path)
    assert rows_of(LOAD) == sorted(rows)
    assert_exact()


# --- a server that goes away


def accepts(dsn: str) -> bool:
    try:
        psycopg2.connect(dsn).close()
        return True
    except psycopg2.OperationalError:
        return False


def answers(connection: Connection) -> bool:
    try:
        return query(connection, "SELECT true") == [(True,)]
    except psycopg2.Error:
        return False


def crash_server(dsn: str, connection: Connection, pid: int) -> None:
    """Kill one of the server's processes, at which PostgreSQL ends every connection and recovers; wait for both."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while answers(connection) or not accepts(dsn):
        assert time.monotonic() < deadline, "the server does not come back"
        time.sleep(0.01)  # between two looks; what is waited for is the condition


@pytest.mark.parametrize("reload", [False, True])
class TestAServerThatGoesAway:
    @pytest.fixture
    def postgres_server(self, server_to_crash: str) -> str:
        return server_to_crash

    @pytest.mark.parametrize("breaks", ["the server crashes", "the connection is cut"])
    def test_fails_a_load_which_can_be_done_again(
        self,
        dsn: str,
        database: Connection,
        devices_csv: WriteDevices,
        assert_exact: AssertExact,
        wait_until: WaitUntil,
        reload: bool,
        breaks: str,
    ) -> None:
        if reload:
            load_file(database, LOAD, devices_csv([*some_rows(200), "{........"]))
            fold(database, LOAD)
        before = everything(database)
        path = devices_csv([*some_rows(300, start=100), "bad"])

        # The lock goes before the pool, on any way out: the load must not be left waiting for it.
        with ThreadPoolExecutor(1) as pool, locked(dsn, "dedp.devices_quarantine"):
            load = pool.submit(load_file, psycopg2.connect(dsn, application_name="child"), LOAD, path)
            pid = wait_until(WAITING_CHILD)
            if breaks == "the server crashes":
                crash_server(dsn, database, pid)
            else:
                execute(database, "SELECT pg_terminate_backend(%s)", pid)
            with pytest.raises((psycopg2.OperationalError, psycopg2.InterfaceError)):
                load.result()

        with connected(dsn) as afresh:
            assert everything(afresh) == before
            assert_exact()
            load_file(afresh, LOAD, path)
            assert query(afresh, "SELECT count(*) FROM dedp.devices_raw WHERE load_id = %s", LOAD) == [(300,)]
            assert_exact()


# --- many at once


class Readers:
    """Threads that look at the tables without a pause, until the block ends, and keep what they found wrong."""

    def __init__(self, dsn: str, *checks: Callable[[Connection], str | None]) -> None:
        self._dsn, self._checks = dsn, checks
        self._over = threading.Event()
        self.wrong: list[str] = []
        self.looks = 0

    def _look(self) -> None:
        with connected(self._dsn) as connection:
            # One snapshot for the plan as well: in READ COMMITTED a statement may be planned without a
            # partition whose rows it would see, and is then neither before nor after its load.
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            while not self._over.is_set():
                self.wrong += [found for check in self._checks if (found := check(connection))]
                self.looks += 1

    def __enter__(self) -> "Readers":
        self._threads = [threading.Thread(target=self._look) for _ in range(2)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def wrong_totals(connection: Connection) -> str | None:
    wrong = query(
        connection,
        "SELECT * FROM dedp.devices_aggregates FULL JOIN ("
        "  SELECT type, full_name, version, count(*) AS counted FROM dedp.devices_raw GROUP BY 1, 2, 3"
        ") AS recount USING (type, full_name, version) WHERE all_occurrences IS DISTINCT FROM counted LIMIT 3",
    )
    return f"totals are not the recount: {wrong}" if wrong else None


def partial_load(*counts: int) -> Callable[[Connection], str | None]:
    def check(connection: Connection) -> str | None:
        found = query(connection, "SELECT load_id, count(*) FROM dedp.devices_raw GROUP BY load_id")
        partial = [load for load in found if load[1] not in counts]
        return f"loads are not whole: {partial}" if partial else None

    return check


def open_account(connection: Connection) -> str | None:
    found = query(
        connection,
        "SELECT load_id, rows_loaded, present FROM dedp.devices_loads, LATERAL ("
        "  SELECT count(*) AS present FROM dedp.devices_raw WHERE load_id = devices_loads.load_id"
        ") AS rows WHERE rows_loaded <> present",
    )
    return f"accounts do not close: {found}" if found else None


def load_and_fold(dsn: str, load_id: str, path: Path, start: threading.Barrier | None = None) -> None:
    with connected(dsn) as connection:
        if start:
            start.wait()
        load_file(connection, load_id, path)
        fold(connection, load_id)


def test_eight_loads_of_different_days_at_once_are_exact_at_every_moment(
    dsn: str, database: Connection, devices_csv: WriteDevices, assert_exact: AssertExact
) -> None:
    days = [f"202401{day:02}" for day in range(1, 9)]
    old = [devices_csv([*some_rows(1000, start=100 * n), "bad"], f"old {n}") for n in range(8)]
    new = [devices_csv([*some_rows(1500, start=70 * n), *some_rows(9, start=70 * n)], f"new {n}") for n in range(8)]
    with Readers(dsn, wrong_totals, partial_load(1000, 1500), open_account) as readers:
        for paths in (old, new, new):
            start = threading.Barrier(8)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda day, path, at=start: load_and_fold(dsn, day, path, at), days, paths))
            assert_exact()
    assert readers.looks > 0
    assert readers.wrong == []
    assert query(database, "SELECT count(*), sum(rows_loaded), sum(rows_quarantined) FROM dedp.devices_loads") == [
        (8, 12_000, 72)
    ]
    assert query(database, "TABLE dedp.devices_changes") == []
    assert query(database, "SELECT sum(all_occurrences) FROM dedp.devices_folded") == [(12_000,)]


@pytest.mark.parametrize("reload", [False, True])
def test_eight_loads_of_one_day_at_once_leave_one_whole_load(
    dsn: str,
    database: Connection,
    devices_csv: WriteDevices,
    rows_of: RowsOf,
    assert_exact: AssertExact,
    wait_until: WaitUntil,
    reload: bool,
) -> None:
    if reload:
        load_and_fold(dsn, LOAD, devices_csv(some_rows(900)))
    variants = [some_rows(800 + n, start=50 * n) for n in range(8)]
    paths = [devices_csv(rows, f"variant {n}") for n, rows in enumerate(variants)]
    counts = [900, *map(len, variants)]
    with (
        Readers(dsn, wrong_totals, partial_load(*counts), open_account) as readers,
        ThreadPoolExecutor(8) as pool,
        connected(dsn) as holder,
    ):
        holder.cursor().execute("LOCK TABLE dedp.devices_loads IN EXCLUSIVE MODE")  # which readers don't mind
        loads = [pool.submit(load_and_fold, dsn, LOAD, path) for path in paths]
        # All of them are under way before the first gets its turn.
        wait_until(
            "SELECT count(*) = 8 FROM pg_locks WHERE NOT granted AND relation = 'dedp.devices_loads'::regclass "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        holder.rollback()
        for load in loads:
            load.result()
    assert readers.wrong == []
    assert rows_of(LOAD) in [sorted(rows) for rows in variants]
    assert query(database, "TABLE dedp.devices_changes") == []
    assert_exact()


def test_readers_wait_for_no_load(
    dsn: str, database: Connection, devices_csv: WriteDevices, wait_until: WaitUntil
) -> None:
    load_file(database, LOAD, devices_csv(some_rows(100)))
    execute(database, STEPS["ledger is written, new"].waits)
    loads = [(LOAD, devices_csv(some_rows(50), "again")), (OTHER, devices_csv(some_rows(70), "new"))]
    with ThreadPoolExecutor(2) as pool, closed_gate(dsn) as gate:
        running = [pool.submit(load_file, psycopg2.connect(dsn, application_name="child"), *load) for load in loads]
        wait_until(f"SELECT count(*) = 2 FROM ({WAITING_CHILD}) AS waiting")
        execute(database, "SET lock_timeout = '1ms'")
        assert query(database, "SELECT count(*) FROM dedp.devices_raw") == [(100,)]
        assert query(database, "SELECT sum(all_occurrences) FROM dedp.devices_aggregates") == [(100,)]
        gate.rollback()
        for load in running:
            load.result()
    assert query(database, "SELECT sum(all_occurrences) FROM dedp.devices_aggregates") == [(120,)]


# --- memory

_MEASURE = """
import resource, sys
from pathlib import Path
import psycopg2
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
dsn, load_id, path = sys.argv[1:]
load_file(psycopg2.connect(dsn), load_id, Path(path))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_megabytes(dsn: str, load_id: str, path: Path) -> float:
    """The most memory that a fresh process had while it loaded `path`."""
    # Through a shell: a process starts with the peak of the one that started it, which is the test run's here.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", _MEASURE, dsn, load_id, str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(output) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def write_big_file(path: Path, megabytes: int, line: str) -> int:
    """Write a file of one good line and then lines `line % n`, and return how many."""
    count = (megabytes << 20) // len((line % 0).encode())
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("type;full_name;version\na;b;1\n")
        stream.writelines(line % n for n in range(count))
    return 1 + count


@pytest.mark.parametrize(
    ("small", "big", "line"),
    [
        pytest.param(4, 60, f"{'t' * 15};{'漢' * 20} %09d;{'v' * 40}\n", id="clean"),
        pytest.param(1, 12, f"{'x' * 990} %09d\n", id="bad lines", marks=pytest.mark.slow),
        pytest.param(1, 5, f"{'t' * 15};{'x' * 50}%.0s;{'v' * 40}\n", id="duplicates", marks=pytest.mark.slow),
    ],
)
def test_memory_does_not_grow_with_the_file(
    database: Connection, dsn: str, tmp_path: Path, assert_exact: AssertExact, small: int, big: int, line: str
) -> None:
    lines = write_big_file(tmp_path / "small", small, line)
    little = peak_megabytes(dsn, OTHER, tmp_path / "small")
    lines += write_big_file(tmp_path / "big", big, line)
    much = peak_megabytes(dsn, LOAD, tmp_path / "big")
    assert query(database, "SELECT sum(lines_read) FROM dedp.devices_loads") == [(lines,)]
    assert much - little < 15, f"{little:.0f} MB became {much:.0f} MB"
