"""JSON lines: each line is a row, or is set aside with its reason."""

import io

import pytest

from dedp_assets.delimited.format import Column, Format
from dedp_assets.delimited.header import UnusableFile
from dedp_assets.delimited.json_lines import classify_json
from dedp_assets.delimited.lines import CleanLines, RejectedLine

FORMAT = Format(",", (Column("id"), Column("name", 10), Column("value")))


def classified(text: bytes) -> list[tuple[int, str]]:
    """The number of each line with what is loaded of it, or with the reason why it is not."""
    return [
        (item.first_line_number, item.text)
        if isinstance(item, CleanLines)
        else (item.line_number, f"{item.rejection.reason}: {item.rejection.detail}")
        for item in classify_json(io.BytesIO(text), FORMAT)
    ]


def test_plain_values_become_text_as_they_stand_in_the_file() -> None:
    text = '{"id": 1, "name": "a \\"b\\", c", "value": 1e400}\r\n{"value": true, "id": "ü", "name": "x"}'.encode()
    assert classified(text) == [(1, '"1","a ""b"", c","1e400"\n'), (2, '"ü","x","true"\n')]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "empty line: "),
        (b"{", "not JSON: "),
        (b"[1]", "not an object: found list"),
        (b'"x"', "not an object: found str"),
        (b'{"id": 1, "name": "a"}', "missing field: value"),
        (b'{"id": 1, "name": "a", "value": 2, "more": 3}', "extra field: more"),
        (b'{"id": 1, "id": 2, "name": "a", "value": 2}', "not JSON: a name stands twice"),
        (b'{"id": null, "name": "a", "value": 2}', "missing value: id"),
        (b'{"id": " ", "name": "a", "value": 2}', "missing value: id"),
        (b'{"id": {"a": 1}, "name": "a", "value": 2}', "not a plain value: id"),
        (b'{"id": NaN, "name": "a", "value": 2}', "not JSON: NaN is no value of JSON"),
        (b'{"id": "a\\u0000b", "name": "a", "value": 2}', "NUL byte: id"),
        (b'{"id": "a\\nb", "name": "a", "value": 2}', "line break: id"),
        (b'{"id": "\\ud800", "name": "a", "value": 2}', "not UTF-8: id"),
        (b'{"id": "\xff", "name": "a", "value": 2}', "not UTF-8: byte 0xff"),
        (b'{"id": 1, "name": "longer than ten", "value": 2}', "value too long: name: 15 characters, 10 fit"),
        (b"[" * 100_000, "not JSON: it is nested too deeply"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_reason_and_stops_no_other(line: bytes, reason: str) -> None:
    good = b'{"id": 1, "name": "a", "value": 2}'
    first, second, third = classified(good + b"\n" + line + b"\n" + good + b"\n")
    assert (first, third) == ((1, '"1","a","2"\n'), (3, '"1","a","2"\n'))
    assert second[0] == 2
    assert second[1].startswith(reason)


@pytest.mark.parametrize(
    ("text", "problem"), [(b"", "is empty"), (b' [{"id": 1}]', "is a JSON array; expected JSON lines")]
)
def test_a_file_that_is_no_json_lines_is_named(text: bytes, problem: str) -> None:
    with pytest.raises(UnusableFile, match=problem):
        list(classify_json(io.BytesIO(text), FORMAT))


def test_an_endless_line_is_set_aside_in_flat_memory() -> None:
    rejected = [item for item in classify_json(io.BytesIO(b"x" * (3 << 20)), FORMAT) if isinstance(item, RejectedLine)]
    assert [item.rejection.reason for item in rejected] == ["line too long"]
