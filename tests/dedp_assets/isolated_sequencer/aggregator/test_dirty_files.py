"""Whatever a file is made of, every line of it is in the table or set aside, once, and as it came."""

import io
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer.aggregator import lines
from dedp_assets.isolated_sequencer.aggregator.header import UnusableFile
from dedp_assets.isolated_sequencer.aggregator.lines import CleanLines, RejectedLine, classify
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from dedp_assets.isolated_sequencer.aggregator.values import split_values

HEADER = b"type;full_name;version\n"
LOAD = "20240101"

LINE_BYTES = 500  # what a test lets a line be; more than any clean one

_values = st.one_of(
    st.sampled_from(
        [
            "a",
            "b",
            "phone",
            "é😀",
            " x",
            "x ",
            ";",
            '"',
            'a"b',
            "",
            " ",
            "\t",
            "\\.",
            "\\N",
            "NULL",
            "\x0b",
            "\ufeff",
            "\u017f",
        ]
    ),
    st.text(max_size=6),
    st.builds(
        lambda character, length: character * length,
        st.sampled_from("x漢😀"),
        st.sampled_from([15, 16, 40, 41, 50, 51]),
    ),
)
_plain_lines = st.builds(lambda *values: ";".join(values).encode(), *[st.sampled_from(["a", "b", "c d", "é😀"])] * 3)
_headers = st.permutations(["type", "full_name", "version"]).flatmap(
    lambda names: st.tuples(
        *[st.sampled_from([name, name.upper(), f" {name}", f"{name}\t", "a", "tyPe"]) for name in names]
    )
)


def written(values: Iterable[str], quoted: Callable[[str], bool] = lambda value: bool(set(value) & set(';"'))) -> str:
    """The values as a CSV writer writes them."""
    return ";".join('"' + value.replace('"', '""') + '"' if quoted(value) else value for value in values)


_written_lines = st.one_of(
    st.lists(_values, min_size=2, max_size=4).map(written),
    st.builds(lambda values, quote: written(values, lambda value: quote), _headers, st.booleans()),
)
_anything = st.one_of(
    st.text(alphabet='ab;"\r\0é ', max_size=12).map(str.encode),
    st.binary(max_size=12),
    st.sampled_from([b"{........", b"", b'"', b"\xff", b"\xef\xbb\xbf", b"\r", b"x" * 499, b"x" * 501, b"x;" * 700]),
)
_marked = st.builds(
    lambda marks, line: ("\ufeff" * marks + line).encode("utf-8", "replace"),
    st.sampled_from([0, 0, 1, 2]),
    _written_lines,
)
_lines = st.one_of(_plain_lines, _plain_lines, _marked, _anything)


@st.composite
def dirty_files(draw: st.DrawFn) -> bytes:
    """The lines of a file below the header, with any line ends; the last may have none."""
    body = b"".join(
        line + end
        for line, end in draw(st.lists(st.tuples(_lines, st.sampled_from([b"\n", b"\n", b"\r\n"])), min_size=1))
    )
    return draw(st.sampled_from([body, body + b"a;b;last"]))


def physical_lines(body: bytes) -> dict[int, bytes]:
    """The lines as they stand in the file, by number, without their ends."""
    pieces = body.split(b"\n")
    if not pieces[-1]:
        pieces.pop()
    return {number: piece.removesuffix(b"\r") for number, piece in enumerate(pieces, start=2)}


def values_of(raw: bytes) -> tuple[str, ...] | None:
    """The three values of a line that is a row, read character by character; None of any other."""
    try:
        line = raw.decode()
    except UnicodeDecodeError:
        return None
    while line[:1] == "\ufeff":
        line = line[1:]
    values = [""]
    quoted, closed = False, False
    position = 0
    while position < len(line):
        character = line[position]
        if quoted:
            if line[position : position + 2] == '""':
                values[-1] += '"'
                position += 1
            elif character == '"':
                quoted, closed = False, True
            else:
                values[-1] += character
        elif character == ";":
            values.append("")
            closed = False
        elif closed or character in "\r\0" or (character == '"' and values[-1]):
            return None
        elif character == '"':
            quoted = True
        else:
            values[-1] += character
        position += 1
    if quoted or len(values) != 3 or set(line) & set("\r\0\ufeff"):
        return None
    if {value.strip(" \t").lower() for value in values} == {"type", "full_name", "version"}:
        return None
    fits = all(value.strip(" \t") and len(value) <= most for value, most in zip(values, (15, 50, 40), strict=True))
    return tuple(values) if fits else None


@settings(deadline=None, max_examples=300)
@given(body=dirty_files(), block_bytes=st.integers(32, 200))
def test_every_line_is_clean_or_rejected_once_and_under_its_own_number(body: bytes, block_bytes: int):
    clean: dict[int, tuple[str, ...]] = {}
    rejected: dict[int, tuple[bytes, str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block_bytes)
        patch.setattr(lines, "MAX_LINE_BYTES", LINE_BYTES)
        next_number = 2
        for item in classify(io.BytesIO(HEADER + body)):
            if isinstance(item, CleanLines):
                assert item.first_line_number == next_number
                for line in item.text.removesuffix("\n").split("\n"):
                    clean[next_number] = tuple(split_values(line) or ())
                    next_number += 1
            else:
                assert item.line_number == next_number
                rejected[next_number] = (item.raw, item.rejection.reason)
                next_number += 1

    expected = physical_lines(body)
    assert clean.keys() | rejected.keys() == expected.keys()
    assert clean == {number: values for number, raw in expected.items() if (values := values_of(raw))}
    for number, (raw, reason) in rejected.items():
        if reason == "line too long":
            assert len(expected[number]) > LINE_BYTES - 1
            assert raw == (expected[number] + b"\r\n")[:LINE_BYTES]
        else:
            assert raw == expected[number]


@settings(deadline=None, max_examples=200)
@given(line=_lines)
def test_the_fast_path_takes_no_line_that_the_slow_path_rejects(line: bytes):
    if b"\n" in line:
        return
    raw = line.rstrip(b"\r")  # one at its end would be a part of the line's end
    rejected = lines.rejection(raw)
    fast = lines._CLEAN_LINES.fullmatch(raw.decode("utf-8", "replace") + "\n")
    assert not (fast and rejected)
    assert list(classify(io.BytesIO(HEADER + raw + b"\n"))) == [
        RejectedLine(2, raw, rejected)
        if rejected
        else CleanLines(2, raw.decode().lstrip("\ufeff") + "\n", "\ufeff" * raw.decode().count("\ufeff"))
    ]


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=dirty_files().filter(lambda body: not any(map(values_of, physical_lines(body).values()))))
def test_a_file_without_one_row_is_refused_with_all_its_lines_counted(
    body: bytes,
    database: Connection,
    devices_csv: Callable[..., Path],
    rows_of: Callable[[str], list[str]],
    quarantine_of: Callable[[str], list[tuple[int, str, str, str, bytes]]],
):
    load_file(database, LOAD, devices_csv(["earlier;row;1", "bad"]))
    with pytest.raises(UnusableFile) as raised:
        load_file(database, LOAD, devices_csv(HEADER + body))
    rejected = {
        item.line_number: item for item in classify(io.BytesIO(HEADER + body)) if isinstance(item, RejectedLine)
    }
    assert raised.value.lines_read == len(rejected) == len(physical_lines(body))
    assert raised.value.reasons == Counter(item.rejection.reason for item in rejected.values())
    assert [line.line_number for line in raised.value.first_lines] == list(rejected)[:5]
    assert rows_of(LOAD) == ["earlier;row;1"]
    assert [raw for *_, raw in quarantine_of(LOAD)] == [b"bad"]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=dirty_files(), block_bytes=st.sampled_from([32, 47, 1000]))
def test_tables_hold_the_clean_lines_once_and_every_other_line_byte_by_byte(
    body: bytes,
    block_bytes: int,
    database: Connection,
    devices_csv: Callable[..., Path],
    assert_exact: Callable[[], None],
    quarantine_of: Callable[[str], list[tuple[int, str, str, str, bytes]]],
):
    path = devices_csv(HEADER + b"first;row;1\n" + body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block_bytes)
        report = load_file(database, LOAD, path)

    in_table: set[tuple[str, ...]] = set()
    set_aside: dict[int, tuple[bytes, bool]] = {}
    expected = physical_lines(b"first;row;1\n" + body)
    for number, raw in expected.items():
        values = values_of(raw)
        if values is None or values in in_table:
            set_aside[number] = (raw, values is not None)
        else:
            in_table.add(values)

    with database, database.cursor() as cursor:
        cursor.execute("SELECT type, full_name, version FROM dedp.devices_raw")
        rows = cursor.fetchall()
    assert len(rows) == len(in_table)
    assert set(rows) == in_table
    assert set_aside == {number: (raw, reason == "duplicate") for number, reason, _, _, raw in quarantine_of(LOAD)}
    assert (report.lines_read, report.rows_loaded, report.rows_quarantined) == (
        len(expected),
        len(in_table),
        len(set_aside),
    )
    assert_exact()
