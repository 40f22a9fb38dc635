"""Tells the clean lines of a file of JSON lines from the lines to set aside. Each line is one object, and one row."""

import json
from collections.abc import Iterator
from typing import Any

from dedp_assets.delimited.format import Format
from dedp_assets.delimited.header import UnusableFile
from dedp_assets.delimited.lines import CleanLines, Readable, RejectedLine, Rejection, blocks_of_lines


def classify_json(stream: Readable, format: Format) -> Iterator[CleanLines | RejectedLine]:
    """Read a file of JSON lines, and tell the clean lines from the others.

    Args:
        stream: The file from its first byte on.
        format: The columns that each object must have. A clean line is given with its delimiter, as CSV.

    Returns:
        Every line in the file's order, clean or rejected. The first has the number 1.

    Raises:
        UnusableFile: The file is empty, or is one JSON array.
    """
    number = 1
    for block in blocks_of_lines(stream):
        if isinstance(block, RejectedLine):
            yield block._replace(line_number=number)
            number += 1
            continue
        if number == 1 and block.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            raise UnusableFile("is a JSON array; expected JSON lines: one object per line, without commas between them")
        for raw in block[:-1].split(b"\n"):
            yield _classify_line(raw.removesuffix(b"\r"), number, format)
            number += 1
    if number == 1:
        raise UnusableFile("is empty")


def _classify_line(raw: bytes, number: int, format: Format) -> CleanLines | RejectedLine:
    values = _values(raw, format)
    if isinstance(values, Rejection):
        return RejectedLine(number, raw, values)
    quoted = ('"' + value.replace('"', '""') + '"' for value in values)
    return CleanLines(number, format.delimiter.join(quoted) + "\n")


def _values(raw: bytes, format: Format) -> list[str] | Rejection:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Rejection("not UTF-8", f"byte {raw[error.start]:#04x} at position {error.start + 1}")
    if not text.strip():
        return Rejection("empty line", "")
    try:
        found = json.loads(
            text, parse_constant=_refuse, parse_float=str, parse_int=str, object_pairs_hook=_without_repeats
        )
    except RecursionError:
        return Rejection("not JSON", "it is nested too deeply")
    except ValueError as error:
        return Rejection("not JSON", str(error))
    if not isinstance(found, dict):
        return Rejection("not an object", f"found {type(found).__name__}")
    missing = [name for name in format.names if name not in found]
    if missing:
        return Rejection("missing field", ", ".join(missing))
    extra = [name for name in found if name not in format.names]
    if extra:
        return Rejection("extra field", ", ".join(extra)[:200])
    return _checked([_text(found[name]) for name in format.names], format)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no value of JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _text(value: Any) -> str | None:
    """A plain value as the text to load; None for what is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else "" if value is None else None


def _checked(values: list[str | None], format: Format) -> list[str] | Rejection:
    checked = []
    for (column, most, _), value in zip(format.columns, values, strict=True):
        if value is None:
            return Rejection("not a plain value", column)
        if not value.strip(" \t"):
            return Rejection("missing value", column)
        if "\0" in value or "\n" in value or "\r" in value:
            # One line is one row, as in CSV; PostgreSQL knows no NUL.
            return Rejection("NUL byte" if "\0" in value else "line break", column)
        if most is not None and len(value) > most:
            return Rejection("value too long", f"{column}: {len(value)} characters, {most} fit")
        try:
            value.encode()
        except UnicodeEncodeError:
            return Rejection("not UTF-8", f"{column} holds half of a surrogate pair")
        checked.append(value)
    return checked
