"""Whatever a file is made of and delimited by, every line of it is clean or rejected, once, and as it came."""

import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedp_assets.delimited import lines
from dedp_assets.delimited.format import Column, Format
from dedp_assets.delimited.lines import CleanLines, RejectedLine, classify
from dedp_assets.delimited.values import split_values
from tests.dedp_assets.delimited.dirty_files import dirty_files, physical_lines, values_of
from tests.dedp_assets.delimited.dirty_files import lines as dirty_lines

LINE_BYTES = 500  # what a test lets a line be; more than any clean one of bounded columns

# Some of these characters mean something in a regular expression.
_formats = st.builds(
    lambda delimiter, lengths: Format(delimiter, tuple(map(Column, ("type", "full_name", "version"), lengths))),
    st.sampled_from(";;;,\t|^]- "),
    st.sampled_from([(15, 50, 40), (15, 50, 40), (None, None, None), (1, None, 40)]),
)


def header_of(format: Format) -> bytes:
    return format.header.encode() + b"\n"


def expected_values(raw: bytes, format: Format) -> tuple[str, ...] | None:
    return values_of(raw, format.delimiter, [math.inf if most is None else most for _, most, _ in format.columns])


@settings(deadline=None, max_examples=300)
@given(body=dirty_files(), block_bytes=st.integers(32, 200), format=_formats)
def test_every_line_is_clean_or_rejected_once_and_under_its_own_number(
    body: bytes, block_bytes: int, format: Format
) -> None:
    body = body.replace(b";", format.delimiter.encode())
    clean: dict[int, tuple[str, ...]] = {}
    rejected: dict[int, tuple[bytes, str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block_bytes)
        patch.setattr(lines, "MAX_LINE_BYTES", LINE_BYTES)
        next_number = 2
        for item in classify(io.BytesIO(header_of(format) + body), format):
            if isinstance(item, CleanLines):
                assert item.first_line_number == next_number
                for line in item.text.removesuffix("\n").split("\n"):
                    clean[next_number] = tuple(split_values(line, format) or ())
                    next_number += 1
            else:
                assert item.line_number == next_number
                rejected[next_number] = (item.raw, item.rejection.reason)
                next_number += 1

    expected = physical_lines(body)
    assert clean.keys() | rejected.keys() == expected.keys()
    assert clean == {number: values for number, raw in expected.items() if (values := expected_values(raw, format))}
    for number, (raw, reason) in rejected.items():
        if reason == "line too long":
            assert len(expected[number]) > LINE_BYTES - 1
            assert raw == (expected[number] + b"\r\n")[:LINE_BYTES]
        else:
            assert raw == expected[number]


@settings(deadline=None, max_examples=200)
@given(line=dirty_lines, format=_formats)
def test_the_fast_path_takes_no_line_that_the_slow_path_rejects(line: bytes, format: Format) -> None:
    if b"\n" in line:
        return
    line = line.replace(b";", format.delimiter.encode())
    raw = line.rstrip(b"\r")  # one at its end would be a part of the line's end
    rejected = lines.rejection(raw, format)
    fast = lines._clean_lines(format).fullmatch(raw.decode("utf-8", "replace") + "\n")
    assert not (fast and rejected)
    assert list(classify(io.BytesIO(header_of(format) + raw + b"\n"), format)) == [
        RejectedLine(2, raw, rejected)
        if rejected
        else CleanLines(2, raw.decode().lstrip("\ufeff") + "\n", "\ufeff" * raw.decode().count("\ufeff"))
    ]
