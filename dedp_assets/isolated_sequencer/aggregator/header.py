"""Tells from its beginning whether a file is a devices file, and if not, what it is instead."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dedp_assets.isolated_sequencer.aggregator.values import split_values
from dedp_assets.isolated_sequencer.contract import DELIMITER, HEADER

_EXPECTED = f"expected the header {DELIMITER.join(HEADER)}"
_SHOWN_BYTES = 200


class RefusedLine(NamedTuple):
    """A line of a file of which none could be loaded. `line` is its beginning, to read."""

    line_number: int
    reason: str
    detail: str
    line: str


class UnusableFile(ValueError):
    """Not one line of the file can be loaded. The message says what was found and what was expected.

    It begins with a verb, for the file's name to stand before it. If all lines were read and rejected,
    `lines_read` is how many, `reasons` how many for which reason, and `first_lines` the first of them.
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


class _Kind(NamedTuple):
    name: str
    what_to_do: str


_UNPACK = "unpack it"
_SAVE_AS_CSV = f"save its sheet as CSV, in UTF-8 and delimited by {DELIMITER!r}"
_EXPORT_AS_CSV = f"export it as CSV, in UTF-8 and delimited by {DELIMITER!r}"
_WRITE_AS_UTF_8 = "write it in UTF-8"

_UTF_32 = _Kind("text in UTF-32", _WRITE_AS_UTF_8)
_UTF_16 = _Kind("text in UTF-16", _WRITE_AS_UTF_8)
_EXCEL = _Kind("an Excel workbook (.xlsx)", _SAVE_AS_CSV)
_HTML = _Kind("an HTML page", "is it the error page of a download?")

# The longer of two that begin alike comes first.
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

# At the first visible character, in any case.
_TEXTS = {
    re.compile(r"<!doctype html|<html"): _HTML,
    re.compile(r"<\?xml"): _Kind("an XML document", _EXPORT_AS_CSV),
    re.compile(r"""[\[{]\s*["\[{]|\[\s*\]|\{\s*\}"""): _Kind("JSON", _EXPORT_AS_CSV),
}


def check_header(first: bytes, beginning: bytes) -> None:
    """Raise UnusableFile unless `first`, a file's first line without marks and line end, is the header.

    `beginning` is the file's first block as it came, the first line in it.
    """
    found = _readable(first)
    if split_values(found) == list(HEADER):
        return
    kind = _kind(beginning)
    if kind is not None:
        raise UnusableFile(f"is {kind.name}, not CSV text in UTF-8: {kind.what_to_do}; {_EXPECTED} in its first line")
    if "\r" in found and split_values(found[: found.index("\r")]) == list(HEADER):
        raise UnusableFile("has lines that end in a carriage return alone; expected line feeds, or both")
    for delimiter in ",\t|:":
        if _names(found, delimiter) == list(HEADER):
            raise UnusableFile(f"is delimited by {delimiter!r}, not by {DELIMITER!r}: found {found!r}; {_EXPECTED}")
    for delimiter in (DELIMITER, *",\t|:"):
        difference = _difference(_names(found, delimiter))
        if difference:
            if delimiter != DELIMITER:
                difference = f"{difference}, delimited by {delimiter!r}"
            raise UnusableFile(f"has the first line {found!r}, the header {difference}; {_EXPECTED}")
    if not first.strip():
        raise UnusableFile(f"has the first line {found!r}, which is blank; {_EXPECTED} there")
    raise UnusableFile(f"has the first line {found!r}; {_EXPECTED}")


def is_header(values: Sequence[str]) -> bool:
    """Whether these are the header's names, in whatever order, case and blanks."""
    return sorted(value.strip(" \t").lower() for value in values) == sorted(HEADER)


def _names(line: str, delimiter: str) -> list[str]:
    return [value.strip('" ') for value in line.split(delimiter)]


def _difference(names: list[str]) -> str | None:
    """In what these names differ from the header, or None if they are no header of ours at all."""
    lower = [name.strip().lower() for name in names]
    missing = [name for name in HEADER if name not in lower]
    extra = [name for name in names if name.strip().lower() not in HEADER]
    # One of three may be a coincidence, and a column that has another name is both missing and extra.
    if len(missing) == len(HEADER) or (missing and extra):
        return None
    if len(set(lower)) < len(lower):
        return "with a column twice"
    if missing:
        return f"without {' and '.join(missing)}"
    if extra:
        return f"with more columns: {', '.join(extra)}"
    if lower != list(HEADER):
        return "in another order"
    if names != list(HEADER) and [name.strip() for name in names] != list(HEADER):
        return "in another case"
    return "with blanks around its names"


def _kind(beginning: bytes) -> _Kind | None:
    """What a file is that begins like this, or None if it may be text in UTF-8."""
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
    # Letters in UTF-16 and UTF-32 without a mark: every other byte is zero, or three out of four.
    zeros = [not any(start[at:40:4]) for at in range(4)]
    if zeros in ([False, True, True, True], [True, True, True, False]):
        return _UTF_32
    if zeros in ([False, True, False, True], [True, False, True, False]):
        return _UTF_16
    text = start.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n").lower()
    return next((kind for pattern, kind in _TEXTS.items() if pattern.match(text)), None)


def _readable(raw: bytes) -> str:
    return raw[:_SHOWN_BYTES].decode("utf-8", errors="backslashreplace").replace("\0", "\\x00")
