"""Separates the clean lines of a delimited file from the lines to set aside, in one pass and in constant memory.

One line is one row. Therefore a line break inside quotes is an error of both lines, and a stray quote costs its own
line and not the rest of the file. CRLF line ends, byte order marks and a missing end of the last line are accepted.

Files that were joined (`cat a b`) have a header, and perhaps a byte order mark, in the middle. Such a header is set
aside. A mark at the start of a line says that a file began there, and is removed. A mark anywhere else belongs to no
value, and its line is set aside.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple, Protocol

from dedp_assets.delimited.format import Format
from dedp_assets.delimited.header import UnusableFile, check_header, is_header
from dedp_assets.delimited.values import split_values

BLOCK_BYTES = 1 << 18
MAX_LINE_BYTES = 1 << 20

_MARK = "\ufeff"  # the byte order mark


class Readable(Protocol):
    """A stream of bytes. Nothing else of a file is needed here."""

    def read(self, size: int, /) -> bytes: ...


class CleanLines(NamedTuple):
    """Consecutive lines with a value for each column: CSV text for COPY, in which a line feed ends every line.

    Attributes:
        first_line_number: The number of the first of these lines in the file. The header is line 1.
        text: The lines.
        marks: The byte order marks that were removed from the start. If there are any, the text is one line.
    """

    first_line_number: int
    text: str
    marks: str = ""


class Rejection(NamedTuple):
    """Why a line can't be loaded: one of a few reasons, and a detail such as the position."""

    reason: str
    detail: str


class RejectedLine(NamedTuple):
    """A line to set aside. The header is line 1. `raw` is the line without its end."""

    line_number: int
    raw: bytes
    rejection: Rejection


def classify(stream: Readable, format: Format) -> Iterator[CleanLines | RejectedLine]:
    """Read a file and decide for each line whether it is clean.

    Args:
        stream: The file from its first byte on.
        format: The format that the file should have.

    Yields:
        Every line after the header, in the order of the file, as clean or rejected.

    Raises:
        UnusableFile: The file is empty, is a header without lines, or has a wrong header or delimiter.
    """
    lines = _Lines(stream)
    lines.header(format)
    number = 2
    for block in lines.blocks():
        if isinstance(block, RejectedLine):
            yield block._replace(line_number=number)
            number += 1
        else:
            for item in _classify_block(block, number, format):
                yield item
                number += item.text.count("\n") if isinstance(item, CleanLines) else 1
    if number == 2:
        raise UnusableFile("has a header and no lines")


def single_lines(items: Iterable[CleanLines | RejectedLine]) -> Iterator[tuple[int, str, str]]:
    """Take the clean lines one by one.

    Args:
        items: The result of `classify`.

    Yields:
        For each clean line: its number, its text without byte order marks, and the marks that were removed.
    """
    for item in items:
        if isinstance(item, CleanLines):
            for number, line in enumerate(item.text[:-1].split("\n"), start=item.first_line_number):
                yield number, line, item.marks


def rejection(raw: bytes, format: Format) -> Rejection | None:
    """Decide whether a line can be loaded.

    Args:
        raw: The line without its end.
        format: The format that the line should have.

    Returns:
        The first reason against it, or None if the line is clean.
    """
    if b"\0" in raw:
        return Rejection("NUL byte", f"at position {raw.index(0) + 1}")
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Rejection("not UTF-8", f"byte {raw[error.start]:#04x} at position {error.start + 1}")
    marks = len(line) - len(line.lstrip(_MARK))
    line = line[marks:]
    if not line:
        return Rejection("empty line", "")
    if "\r" in line:
        return Rejection("carriage return", f"at position {marks + line.index(chr(13)) + 1}")
    if _MARK in line:
        return Rejection("byte order mark", f"at position {marks + line.index(_MARK) + 1}")
    values = split_values(line, format)
    if values is None:
        unclosed = line.count('"') % 2 == 1
        return Rejection("unclosed quote" if unclosed else "misplaced quote", "one line is one row")
    if len(values) != len(format.columns):
        fewer = len(values) < len(format.columns)
        return Rejection("missing field" if fewer else "extra field", f"{len(values)} of {len(format.columns)} fields")
    if is_header(values, format):
        return Rejection("repeated header", "were files joined?")
    for (name, most, _), value in zip(format.columns, values, strict=True):
        if not value.strip(" \t"):
            return Rejection("missing value", name)
        if most is not None and len(value) > most:
            return Rejection("value too long", f"{name}: {len(value)} characters, {most} fit")
    return None


@cache
def _clean_lines(format: Format) -> re.Pattern[str]:
    """A pattern for most clean lines, which matches many lines at once at the speed of C.

    Every line that it matches is clean. A line that it does not match is checked by `rejection`, and may be clean too.
    """
    delimiter = re.escape(format.delimiter)
    names = "|".join(map(re.escape, format.names))
    may_be_header = rf'[" \t]*(?i:{names})[" \t]*{delimiter}'
    clean_line = delimiter.join(_clean_value(column.max_length, delimiter) for column in format.columns) + "\n"
    return re.compile(f"(?:(?!{may_be_header}){clean_line})+")


def _clean_value(most: int | None, delimiter: str) -> str:
    inner = rf'[^{delimiter}"\r\n\0{_MARK}]'
    plain_rest, fits = f"{inner}*", ""
    if most is not None:
        plain_rest = f"{inner}{{0,{most - 1}}}"
        # A quoted value matches only if it is short enough with its doubled quotes counted twice.
        fits = rf"(?=[^{delimiter}\n]{{2,{most + 1}}}[{delimiter}\n])"
    first = rf'[^ \t{delimiter}"\r\n\0{_MARK}]'
    return rf'(?:{first}{plain_rest}|"{fits}{first}{inner}*(?:""{inner}*)*")'


def _classify_block(block: bytes, number: int, format: Format) -> Iterator[CleanLines | RejectedLine]:
    """Classify the lines of a block. Its first line has the given number."""
    pattern = _clean_lines(format)
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        for raw in block[:-1].split(b"\n"):
            yield _classify_line(raw.removesuffix(b"\r"), number, format)
            number += 1
        return
    text = text.replace("\r\n", "\n")
    position = 0
    while position < len(text):
        match = pattern.match(text, position)
        if match:
            yield CleanLines(number, match[0])
            number += match[0].count("\n")
            position = match.end()
        else:
            end = text.index("\n", position)
            yield _classify_line(text[position:end].encode(), number, format)
            number += 1
            position = end + 1


def _classify_line(raw: bytes, number: int, format: Format) -> CleanLines | RejectedLine:
    rejected = rejection(raw, format)
    if rejected:
        return RejectedLine(number, raw, rejected)
    line = raw.decode()
    text = line.lstrip(_MARK)
    return CleanLines(number, text + "\n", line.removesuffix(text))


def blocks_of_lines(stream: Readable) -> Iterator[bytes | RejectedLine]:
    """Read a file without a header in blocks of whole lines.

    Args:
        stream: The file from its first byte on.

    Returns:
        Blocks that end with a line feed, and each overlong line as a rejected line without its number.
    """
    return _Lines(stream).blocks()


class _Lines:
    """Reads a stream as a header and then blocks of whole lines. A line may have at most MAX_LINE_BYTES."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._rest = b""

    def header(self, format: Format) -> None:
        """Read the header. Raises UnusableFile if the first line is not the header."""
        chunk = self._stream.read(BLOCK_BYTES)
        if not chunk:
            raise UnusableFile("is empty")
        first, _, self._rest = chunk.partition(b"\n")
        mark = _MARK.encode()
        while first.startswith(mark):
            first = first.removeprefix(mark)
        check_header(first.removesuffix(b"\r"), chunk, format)

    def blocks(self) -> Iterator[bytes | RejectedLine]:
        """Blocks that end with a line feed. A line that is too long comes as a rejected line with the number 0."""
        pending = b""
        chunk = self._rest or self._stream.read(BLOCK_BYTES)
        while chunk:
            end = chunk.rfind(b"\n") + 1
            if end:
                yield pending + chunk[:end]
                pending = chunk[end:]
            else:
                pending += chunk
            chunk = b""
            if len(pending) > MAX_LINE_BYTES:
                length, chunk = self._skip_line(len(pending))
                detail = f"{length:,} bytes, of which the first {MAX_LINE_BYTES:,} are kept here"
                yield RejectedLine(0, pending[:MAX_LINE_BYTES], Rejection("line too long", detail))
                pending = b""
            chunk = chunk or self._stream.read(BLOCK_BYTES)
        if pending:
            yield pending + b"\n"

    def _skip_line(self, length: int) -> tuple[int, bytes]:
        """Read to the end of the present line. Returns its length in bytes, and the bytes read after it."""
        while chunk := self._stream.read(BLOCK_BYTES):
            line, found, rest = chunk.partition(b"\n")
            length += len(line)
            if found:
                return length, rest
        return length, b""
