"""Decides by its beginning whether a file has the expected format, and if not, what kind of file it is."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dedp_assets.delimited.format import Format
from dedp_assets.delimited.values import split_values
from dedp_assets.errors import PermanentError

_SHOWN_BYTES = 200

# Other delimiters that files may have.
_DELIMITERS = ",;\t|:"


class RefusedLine(NamedTuple):
    """A line of a file without usable lines. `line` is its beginning, for people."""

    line_number: int
    reason: str
    detail: str
    line: str


class UnusableFile(PermanentError):
    """Not one line of the file can be loaded. The message says what was found and what was expected.

    The message begins with a verb, so that callers can put the name of the file before it.

    Attributes:
        lines_read: The number of lines, if all of them were read and rejected; else 0.
        reasons: The number of lines for each reason.
        first_lines: The first of these lines.
    """

    def __init__(
        self,
        message: str,
        *,
        lines_read: int = 0,
        reasons: Mapping[str, int] | None = None,
        first_lines: Sequence[RefusedLine] = (),
    ) -> None:
        super().__init__(message)
        self.lines_read = lines_read
        self.reasons = dict(reasons or {})
        self.first_lines = tuple(first_lines)


class UnreadableFile(UnusableFile):
    """The file does not exist, or can't be opened. That says nothing about its content."""


class _Kind(NamedTuple):
    """A kind of file that is not the expected one. `{delimiter}` in `what_to_do` becomes the expected delimiter."""

    name: str
    what_to_do: str


_UNPACK = "unpack it"
_SAVE_AS_CSV = "save its sheet as CSV, in UTF-8 and delimited by {delimiter!r}"
_EXPORT_AS_CSV = "export it as CSV, in UTF-8 and delimited by {delimiter!r}"
_WRITE_AS_UTF_8 = "write it in UTF-8"

_UTF_32 = _Kind("text in UTF-32", _WRITE_AS_UTF_8)
_UTF_16 = _Kind("text in UTF-16", _WRITE_AS_UTF_8)
_EXCEL = _Kind("an Excel workbook (.xlsx)", _SAVE_AS_CSV)
_HTML = _Kind("an HTML page", "is it the error page of a download?")

# If one signature begins with another, the longer one comes first.
_SIGNATURES = {
    b"\xff\xfe\x00\x00": _UTF_32,
    b"\x00\x00\xfe\xff": _UTF_32,
    b"\xff\xfe": _UTF_16,
    b"\xfe\xff": _UTF_16,
    b"\x1f\x8b": _Kind("a gzip file", _UNPACK),
    b"PK\x03\x04": _Kind("a zip archive", _UNPACK),
    b"PK\x05\x06": _Kind("an empty zip archive", "have it written again"),
    b"BZh": _Kind("a bzip2 file", _UNPACK),
    b"\xfd7zXZ\x00": _Kind("an xz file", _UNPACK),
    b"\x28\xb5\x2f\xfd": _Kind("a zstd file", _UNPACK),
    b"\x04\x22\x4d\x18": _Kind("an lz4 file", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": _Kind("a 7-zip archive", _UNPACK),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": _Kind("an old Excel workbook (.xls) or other Office document", _SAVE_AS_CSV),
    b"PAR1": _Kind("a Parquet file", _EXPORT_AS_CSV),
    b"Obj\x01": _Kind("an Avro file", _EXPORT_AS_CSV),
    b"ORC": _Kind("an ORC file", _EXPORT_AS_CSV),
    b"SQLite format 3\x00": _Kind("an SQLite database", _EXPORT_AS_CSV),
    b"%PDF-": _Kind("a PDF document", "ask its sender for CSV"),
}

# Matched from the first visible character on, in lower case.
_TEXTS = {
    re.compile(r"<!doctype html|<html"): _HTML,
    re.compile(r"<\?xml"): _Kind("an XML document", _EXPORT_AS_CSV),
    re.compile(r"""[\[{]\s*["\[{]|\[\s*\]|\{\s*\}"""): _Kind("JSON", _EXPORT_AS_CSV),
}


def check_header(first: bytes, beginning: bytes, format: Format) -> None:
    """Make sure that a file begins with the header.

    Args:
        first: The first line of the file, without byte order marks and line end.
        beginning: The first block of the file, unchanged. It includes the first line.
        format: The expected format.

    Raises:
        UnusableFile: The first line is not the header.
    """
    # The line may be endless. This much of it is enough for the header in any form of quoting.
    found = _readable(first[: max(_SHOWN_BYTES, 3 * len(format.header.encode()))])
    header, delimiter = list(format.names), format.delimiter
    if split_values(found, format) == header:
        return
    expected = f"expected the header {format.header}"
    kind = _kind(beginning)
    if kind is not None:
        what_to_do = kind.what_to_do.format(delimiter=delimiter)
        raise UnusableFile(f"is {kind.name}, not CSV text in UTF-8: {what_to_do}; {expected} in its first line")
    if "\r" in found and split_values(found[: found.index("\r")], format) == header:
        raise UnusableFile("has lines that end in a carriage return alone; expected line feeds, or both")
    others = _DELIMITERS.replace(delimiter, "")
    for other in others:
        if _names(found, other) == header:
            raise UnusableFile(f"is delimited by {other!r}, not by {delimiter!r}: found {found!r}; {expected}")
    for other in (delimiter, *others):
        difference = _difference(_names(found, other), format)
        if difference:
            if other != delimiter:
                difference = f"{difference}, delimited by {other!r}"
            raise UnusableFile(f"has the first line {found!r}, the header {difference}; {expected}")
    if not first.strip():
        raise UnusableFile(f"has the first line {found!r}, which is blank; {expected} there")
    raise UnusableFile(f"has the first line {found!r}; {expected}")


def is_header(values: Sequence[str], format: Format) -> bool:
    """Whether these values of a line are the names of the header, in any order, in any case, with or without blanks."""
    return sorted(value.strip(" \t").lower() for value in values) == sorted(name.lower() for name in format.names)


def _names(line: str, delimiter: str) -> list[str]:
    return [value.strip('" ') for value in line.split(delimiter)]


def _difference(names: list[str], format: Format) -> str | None:
    """How these names differ from the header, or None if they have too little in common with it."""
    header = list(format.names)
    header_lower = [name.lower() for name in header]
    lower = [name.strip().lower() for name in names]
    missing = [name for name in header if name.lower() not in lower]
    extra = [name for name in names if name.strip().lower() not in header_lower]
    # A single common name may be a coincidence. A column with another name is both missing and extra.
    if len(missing) == len(header) or (missing and extra):
        return None
    if len(set(lower)) < len(lower):
        return "with a column twice"
    if missing:
        return f"without {' and '.join(missing)}"
    if extra:
        return f"with more columns: {', '.join(extra)}"
    if lower != header_lower:
        return "in another order"
    if names != header and [name.strip() for name in names] != header:
        return "in another case"
    return "with blanks around its names"


def _kind(beginning: bytes) -> _Kind | None:
    """The kind of a file with this beginning, or None if it may be text in UTF-8."""
    if not beginning.strip(b"\0"):
        return _Kind(
            "nothing but NUL bytes",
            "its writer made room and wrote nothing, or the disk was full; have it written again",
        )
    for signature, kind in _SIGNATURES.items():
        if beginning.startswith(signature):
            is_excel = signature == b"PK\x03\x04" and (b"xl/" in beginning or b"[Content_Types].xml" in beginning)
            return _EXCEL if is_excel else kind
    if beginning[257:262] == b"ustar":
        return _Kind("a tar archive", _UNPACK)
    start = beginning[:_SHOWN_BYTES]
    # UTF-16 and UTF-32 without a byte order mark: of Latin letters every second byte is zero, or three out of four.
    zeros = [not any(start[at:40:4]) for at in range(4)]
    if zeros in ([False, True, True, True], [True, True, True, False]):
        return _UTF_32
    if zeros in ([False, True, False, True], [True, False, True, False]):
        return _UTF_16
    text = start.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n").lower()
    return next((kind for pattern, kind in _TEXTS.items() if pattern.match(text)), None)


def _readable(raw: bytes) -> str:
    return raw.decode("utf-8", errors="backslashreplace").replace("\0", "\\x00")
