"""One line is one row, and a line that can't be a row costs itself and nothing else."""

import gzip
import io
import zipfile

import pyarrow as pa
import pytest
from pyarrow import parquet

from dedp_assets.delimited import lines
from dedp_assets.delimited.format import Column, Format
from dedp_assets.delimited.header import UnusableFile
from dedp_assets.delimited.lines import CleanLines, RejectedLine, Rejection, classify, rejection
from dedp_assets.delimited.values import split_values

FORMAT = Format(";", (Column("type", 15), Column("full_name", 50), Column("version", 40)))
MAX_LENGTH = {column.name: column.max_length or 0 for column in FORMAT.columns}
HEADER = b"type;full_name;version\n"
MARK = "\ufeff".encode()


def classified(content: bytes) -> tuple[dict[int, str], dict[int, tuple[bytes, str, str]]]:
    """The clean and the rejected lines of a file, by line number."""
    clean: dict[int, str] = {}
    rejected: dict[int, tuple[bytes, str, str]] = {}
    for item in classify(io.BytesIO(content), FORMAT):
        if isinstance(item, CleanLines):
            numbered = enumerate(item.text.removesuffix("\n").split("\n"), start=item.first_line_number)
            for number, line in numbered:
                assert number not in clean
                clean[number] = line
        else:
            assert item.line_number not in rejected
            rejected[item.line_number] = (item.raw, *item.rejection)
    return clean, rejected


@pytest.mark.parametrize(
    ("line", "values"),
    [
        pytest.param("phone;Nova 8;Android 14", ["phone", "Nova 8", "Android 14"], id="plain"),
        pytest.param('"a;b";c;d', ["a;b", "c", "d"], id="a quoted delimiter"),
        pytest.param('"15"" screen";c;d', ['15" screen', "c", "d"], id="a doubled quote"),
        pytest.param('a;"""";c', ["a", '"', "c"], id="nothing but a quote"),
        pytest.param(" a; b ;c ", [" a", " b ", "c "], id="spaces belong to the value"),
        pytest.param('\ta;" b";c', ["\ta", " b", "c"], id="so do tabs, and quoted spaces"),
        pytest.param("a;\\.;\\N", ["a", "\\.", "\\N"], id="what COPY knows as end of data and as NULL"),
        pytest.param("a;NULL;'b'", ["a", "NULL", "'b'"], id="what SQL would read otherwise"),
        pytest.param("a;\u00a0;\u2028", ["a", "\u00a0", "\u2028"], id="blanks of Unicode are values"),
        pytest.param("a;x\x0by;\x85", ["a", "x\x0by", "\x85"], id="control characters that end no line here"),
    ],
)
def test_a_clean_line_keeps_every_character(line: str, values: list[str]) -> None:
    assert rejection(line.encode(), FORMAT) is None
    assert split_values(line, FORMAT) == values
    assert classified(HEADER + line.encode() + b"\n") == ({2: line}, {})


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        (b"", "empty line", ""),
        (b"{........", "missing field", "1 of 3 fields"),
        (b"\\.", "missing field", "1 of 3 fields"),
        (b"   ", "missing field", "1 of 3 fields"),
        (b"phone", "missing field", "1 of 3 fields"),
        (b"phone;Nova 8", "missing field", "2 of 3 fields"),
        (b'"phone;Nova 8;Android 14"', "missing field", "1 of 3 fields"),
        (b"phone;Nova 8;Android 14;", "extra field", "4 of 3 fields"),
        (b"phone;Nova 8;Android 14;x;y", "extra field", "5 of 3 fields"),
        (b";Nova 8;Android 14", "missing value", "type"),
        (b"phone;;Android 14", "missing value", "full_name"),
        (b"phone;Nova 8;", "missing value", "version"),
        (b";;", "missing value", "type"),
        (b"phone; \t ;Android 14", "missing value", "full_name"),
        (b'phone;"";Android 14', "missing value", "full_name"),
        (b'phone;Nova 8;"  "', "missing value", "version"),
        (b"phone;Nova \0 8;Android 14", "NUL byte", "at position 12"),
        (b"\0", "NUL byte", "at position 1"),
        (b"phone;Nov\xe9;Android 14", "not UTF-8", "byte 0xe9 at position 10"),
        (b"\xff\xfe", "not UTF-8", "byte 0xff at position 1"),
        (b"phone;\xed\xa0\x80;1", "not UTF-8", "byte 0xed at position 7"),
        (b"phone;Nova\r8;Android 14", "carriage return", "at position 11"),
        (b"\r;b;1", "carriage return", "at position 1"),
        (b'phone;Nova "8;Android 14', "unclosed quote", "one line is one row"),
        (b'phone;"Nova 8;Android 14', "unclosed quote", "one line is one row"),
        (b'phone;Nova "8";Android 14', "misplaced quote", "one line is one row"),
        (b'phone;"Nova" 8;Android 14', "misplaced quote", "one line is one row"),
        (b'phone; "Nova 8";Android 14', "misplaced quote", "one line is one row"),
        (b"type;full_name;version", "repeated header", "were files joined?"),
        (b'"type";"full_name";"version"', "repeated header", "were files joined?"),
        (b'"type";full_name; version\t', "repeated header", "were files joined?"),
        (b"Type;FULL_NAME;Version", "repeated header", "were files joined?"),
        (b"version;type;full_name", "repeated header", "were files joined?"),
        (b"FULL_NAME;type;version", "repeated header", "were files joined?"),
        (MARK + b"type;full_name;version", "repeated header", "were files joined?"),
        (MARK + MARK + b'"type";full_name;version', "repeated header", "were files joined?"),
        (MARK, "empty line", ""),
        (MARK + b"phone;Nova 8", "missing field", "2 of 3 fields"),
        (MARK + b"phone;Nova\r8;Android 14", "carriage return", "at position 12"),
        (b"phone;" + MARK + b"Nova 8;Android 14", "byte order mark", "at position 7"),
        (b"phone;Nova 8;Android 14" + MARK, "byte order mark", "at position 24"),
        (b'"' + MARK + b'phone";Nova 8;Android 14', "byte order mark", "at position 2"),
        (b'phone;"No' + MARK + b'va 8";Android 14', "byte order mark", "at position 10"),
        (b'phone;"No""' + MARK + b'va 8";Android 14', "byte order mark", "at position 12"),
        (b" " + MARK + b"phone;Nova 8;Android 14", "byte order mark", "at position 2"),
        (MARK + b"phone;Nova" + MARK + b" 8;Android 14", "byte order mark", "at position 12"),
        (b"phone;Nova 8;Android 14" + MARK + b"type;full_name;version", "byte order mark", "at position 24"),
    ],
)
def test_a_line_that_is_no_row_is_set_aside_alone_with_its_reason(raw: bytes, reason: str, detail: str) -> None:
    assert rejection(raw, FORMAT) == Rejection(reason, detail)
    before_and_after = classified(HEADER + b"a;b;1\n" + raw + b"\na;b;2\n")
    assert before_and_after == ({2: "a;b;1", 4: "a;b;2"}, {3: (raw, reason, detail)})


@pytest.mark.parametrize(
    "line",
    ["type;full_name;1", "type;type;type", "type;full_name;versions", "Type;Nova;version", "full_name;version;1"],
)
def test_a_row_that_has_a_word_of_the_header_is_a_row(line: str) -> None:
    assert classified(HEADER + line.encode() + b"\n") == ({2: line}, {})


@pytest.mark.parametrize("marks", [MARK, MARK * 3])
@pytest.mark.parametrize("line", ["a;b;1", '"a;b";c;d', "é;😀;" + "x" * 40])
def test_byte_order_marks_at_the_start_of_a_line_are_taken_off(line: str, marks: bytes) -> None:
    assert rejection(marks + line.encode(), FORMAT) is None
    content = HEADER + b"a;b;0\n" + marks + line.encode() + b"\r\na;b;2\n"
    assert classified(content) == ({2: "a;b;0", 3: line, 4: "a;b;2"}, {})


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", MARK])
def test_of_files_that_were_joined_every_row_is_a_row_and_every_header_is_set_aside(
    mark: bytes, line_end: bytes
) -> None:
    def file(*rows: bytes) -> bytes:
        return mark + line_end.join([HEADER.rstrip(), *rows, b""])

    clean, rejected = classified(file(b"a;b;1", b"a;b;2") + file(b"a;b;3") + file())
    assert clean == {2: "a;b;1", 3: "a;b;2", 5: "a;b;3"}
    again = (mark + HEADER.rstrip(), "repeated header", "were files joined?")
    assert rejected == {4: again, 6: again}


@pytest.mark.parametrize("character", ["x", "é", "漢", "😀", "e\u0301"[1], ";", '"'])
@pytest.mark.parametrize("column", list(MAX_LENGTH))
def test_lengths_are_counted_in_characters(column: str, character: str) -> None:
    def line(length: int) -> bytes:
        value = character * length
        if character in ';"':
            value = f'"{value.replace(chr(34), chr(34) * 2)}"'
        return ";".join(value if name == column else "a" for name in MAX_LENGTH).encode()

    most = MAX_LENGTH[column]
    too_long = Rejection("value too long", f"{column}: {most + 1} characters, {most} fit")
    assert rejection(line(most), FORMAT) is None
    assert rejection(line(most + 1), FORMAT) == too_long
    clean, rejected = classified(HEADER + line(most) + b"\n" + line(most + 1) + b"\n")
    assert clean == {2: line(most).decode()}
    assert rejected == {3: (line(most + 1), *too_long)}


def test_a_quoted_line_break_sets_both_its_lines_aside_and_no_other() -> None:
    clean, rejected = classified(HEADER + b'a;b;1\na;"b\nc";2\na;b;3\n')
    assert clean == {2: "a;b;1", 5: "a;b;3"}
    assert rejected == {
        3: (b'a;"b', "unclosed quote", "one line is one row"),
        4: (b'c";2', "unclosed quote", "one line is one row"),
    }


def test_a_stray_quote_costs_its_own_line_only() -> None:
    clean, rejected = classified(HEADER + b'a;b;1\na;15";2\n' + b'a;"b";3\n' * 3)
    assert clean == {2: "a;b;1", **dict.fromkeys((4, 5, 6), 'a;"b";3')}
    assert list(rejected) == [3]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(HEADER + b"a;b;1\na;b;2\n", id="LF"),
        pytest.param(HEADER + b"a;b;1\na;b;2", id="no last line end"),
        pytest.param((HEADER + b"a;b;1\na;b;2\n").replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param((HEADER + b"a;b;1\na;b;2").replace(b"\n", b"\r\n"), id="CRLF and no last line end"),
        pytest.param(HEADER + b"a;b;1\r\na;b;2\n", id="mixed line ends"),
        pytest.param(MARK + HEADER + b"a;b;1\na;b;2\n", id="byte order mark"),
        pytest.param(MARK * 2 + HEADER + b"a;b;1\na;b;2\n", id="two byte order marks"),
        pytest.param(b'"type";"full_name";"version"\na;b;1\na;b;2\n', id="quoted header"),
    ],
)
def test_every_line_end_a_byte_order_mark_and_a_quoted_header_are_accepted(content: bytes) -> None:
    assert classified(content) == ({2: "a;b;1", 3: "a;b;2"}, {})


def test_line_ends_are_no_part_of_what_is_set_aside() -> None:
    _, rejected = classified(HEADER + b"one\r\n\xff\r\ntwo\n\r\n\nthree")
    assert [raw for raw, *_ in rejected.values()] == [b"one", b"\xff", b"two", b"", b"", b"three"]
    assert list(rejected) == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("block_bytes", [32, 33, 50, 97, 1 << 10])
def test_it_makes_no_difference_where_blocks_end(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    content = HEADER + "".join(f"a;é{i};😀{i}\r\n{'x' * (i % 70)}\nb;{i}\xff\n" for i in range(60)).encode(
        "latin-1", "replace"
    )
    whole = classified(content)
    monkeypatch.setattr(lines, "BLOCK_BYTES", block_bytes)
    assert classified(content) == whole


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("length", [3 << 20, (1 << 20) + lines.BLOCK_BYTES + 1, 1 << 22])
def test_an_overlong_line_is_set_aside_with_its_length_and_the_lines_after_it_are_read(
    length: int, line_end: bytes
) -> None:
    clean, rejected = classified(HEADER + b"a;b;1\n" + b"x" * length + line_end + b"a;b;2\n\na;b;3")
    assert clean == {2: "a;b;1", 4: "a;b;2", 6: "a;b;3"}
    assert list(rejected) == [3, 5]
    raw, reason, detail = rejected[3]
    assert (raw, reason) == (b"x" * lines.MAX_LINE_BYTES, "line too long")
    assert detail == f"{length + len(line_end) - 1:,} bytes, of which the first 1,048,576 are kept here"


def test_an_overlong_line_may_be_the_last_and_have_no_end() -> None:
    clean, rejected = classified(HEADER + b"a;b;1\n" + b"x" * (3 << 20))
    assert clean == {2: "a;b;1"}
    assert rejected[3][2] == "3,145,728 bytes, of which the first 1,048,576 are kept here"


def test_two_overlong_lines_in_a_row_are_two_lines() -> None:
    clean, rejected = classified(HEADER + (b"x" * (2 << 20) + b"\n") * 2 + b"a;b;1\n")
    assert (clean, list(rejected)) == ({4: "a;b;1"}, [2, 3])


def test_lines_before_an_overlong_one_are_lines_of_their_own() -> None:
    clean, rejected = classified(HEADER + b"a;b;1\n" * 50_000 + b"x" * (2 << 20) + b"\n" + b"a;b;2\n" * 50_000)
    assert list(rejected) == [50_002]
    assert list(clean) == [*range(2, 50_002), *range(50_003, 100_003)]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(HEADER, "has a header and no lines", id="header only"),
        pytest.param(HEADER.rstrip(), "has a header and no lines", id="header without a line end"),
        pytest.param(b"\xef\xbb\xbf" + HEADER, "has a header and no lines", id="byte order mark and header"),
        pytest.param(b"a;b;1\na;b;2\n", "has the first line 'a;b;1'", id="no header"),
        pytest.param(b"type;name;version\na;b;1\n", "has the first line 'type;name;version'", id="a column renamed"),
        pytest.param(b"full_name;type;version\na;b;1\n", "has the first line 'full_name;type;", id="columns swapped"),
        pytest.param(b"type;full_name\na;b\n", "has the first line 'type;full_name'", id="a column less"),
        pytest.param(b"type;full_name;version;x\na;b;1;2\n", "'type;full_name;version;x'", id="a column more"),
        pytest.param(b"\n" + HEADER + b"a;b;1\n", "has the first line ''", id="a blank line first"),
        pytest.param(b"type,full_name,version\na,b,1\n", "is delimited by ',', not by ';'", id="commas"),
        pytest.param(b'"type","full_name","version"\na,b,1\n', "is delimited by ',', not by ';'", id="quoted commas"),
        pytest.param(b"type\tfull_name\tversion\na\tb\t1\n", "is delimited by '\\t', not by ';'", id="tabs"),
        pytest.param(b"type;full\xe9;version\na;b;1\n", r"has the first line 'type;full\\xe9;version'", id="Latin-1"),
        pytest.param(HEADER.replace(b"\n", b"\r") + b"a;b;1\r", "end in a carriage return alone", id="an old Mac's"),
        pytest.param(b"x" * (3 << 20), "has the first line 'xxxx", id="one endless line"),
    ],
)
def test_an_unusable_file_is_told_by_what_was_found_and_what_was_expected(content: bytes, found: str) -> None:
    with pytest.raises(UnusableFile) as raised:
        list(classify(io.BytesIO(content), FORMAT))
    message = str(raised.value)
    assert found in message
    assert len(message) < 2000
    if "first line" in found or "delimited" in found:
        assert "expected the header type;full_name;version" in message


TEXT = "type;full_name;version\nphone;é漢😀;1\n"


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return stream.getvalue()


def as_parquet() -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pa.table({"type": ["phone"]}), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "what_to_do"),
    [
        pytest.param(TEXT.encode("utf-16"), "text in UTF-16", "write it in UTF-8", id="UTF-16"),
        pytest.param(b"\xfe\xff" + TEXT.encode("utf-16-be"), "text in UTF-16", "write it in UTF-8", id="UTF-16 BE"),
        pytest.param(TEXT.encode("utf-16-le"), "text in UTF-16", "write it in UTF-8", id="UTF-16 LE, no mark"),
        pytest.param(TEXT.encode("utf-16-be"), "text in UTF-16", "write it in UTF-8", id="UTF-16 BE, no mark"),
        pytest.param(TEXT.encode("utf-32"), "text in UTF-32", "write it in UTF-8", id="UTF-32"),
        pytest.param(TEXT.encode("utf-32-be"), "text in UTF-32", "write it in UTF-8", id="UTF-32 BE, no mark"),
        pytest.param(gzip.compress(TEXT.encode()), "a gzip file", "unpack it", id="gzip"),
        pytest.param(zipped("dataset.csv"), "a zip archive", "unpack it", id="zip"),
        pytest.param(zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook", "as CSV", id="xlsx"),
        pytest.param(bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 504, "an old Excel", "as CSV", id="xls"),
        pytest.param(as_parquet(), "a Parquet file", "export it as CSV", id="parquet"),
        pytest.param(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document", "CSV", id="PDF"),
        pytest.param(b"\r\n <!DOCTYPE html>\n<html>", "an HTML page", "error page of a download", id="HTML"),
        pytest.param(MARK + b"<HTML lang=en>", "an HTML page", "error page of a download", id="HTML, no doctype"),
        pytest.param(b'<?xml version="1.0"?>\n<Error/>', "an XML document", "export it as CSV", id="XML"),
        pytest.param(b'{"type": "phone"}\n', "JSON", "export it as CSV", id="JSON lines"),
        pytest.param(b'[\n  {"type": "phone"}\n]\n', "JSON", "export it as CSV", id="JSON"),
        pytest.param(b"\0" * 5000, "nothing but NUL bytes", "written again", id="NUL bytes"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name_with_what_to_do(
    content: bytes, kind: str, what_to_do: str
) -> None:
    with pytest.raises(UnusableFile) as raised:
        list(classify(io.BytesIO(content), FORMAT))
    message = str(raised.value)
    assert message.startswith(f"is {kind}")
    assert what_to_do in message
    assert "expected the header type;full_name;version" in message
    assert message.isprintable()
    assert "\\x" not in message


@pytest.mark.parametrize(
    ("header", "difference"),
    [
        ("Type;Full_Name;VERSION", "the header in another case"),
        ("version;full_name;type", "the header in another order"),
        ("Version;Type;Full_Name", "the header in another order"),
        ("type;full_name;version;loaded at;x", "the header with more columns: loaded at, x"),
        ("id;type;full_name;version", "the header with more columns: id"),
        ("type;version", "the header without full_name"),
        ("type", "the header without full_name and version"),
        ("type;type;full_name;version", "the header with a column twice"),
        ("type; full_name; version", "the header with blanks around its names"),
        ("Type,Full_Name,Version", "the header in another case, delimited by ','"),
        ("full_name\ttype\tversion", "the header in another order, delimited by '\\t'"),
    ],
)
def test_a_header_that_differs_is_told_in_what(header: str, difference: str) -> None:
    with pytest.raises(UnusableFile) as raised:
        list(classify(io.BytesIO(f"{header}\na;b;1\n".encode()), FORMAT))
    assert str(raised.value) == (
        f"has the first line {header!r}, {difference}; expected the header type;full_name;version"
    )


def test_a_file_whose_only_line_is_blank_is_a_file_with_one_rejected_line() -> None:
    assert list(classify(io.BytesIO(HEADER + b"\n"), FORMAT)) == [RejectedLine(2, b"", Rejection("empty line", ""))]
