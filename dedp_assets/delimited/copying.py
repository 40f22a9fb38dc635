"""Copies the clean lines of a file into any table, and keeps the others for the quarantine."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from dedp_assets.delimited.format import Format
from dedp_assets.delimited.header import UnreadableFile, UnusableFile
from dedp_assets.delimited.lines import CleanLines, Readable, RejectedLine, classify, single_lines
from dedp_assets.delimited.quarantine import Quarantine

_COPY_BYTES = 1 << 20
_SHOWN_IN_MESSAGE = 60


class Copied(NamedTuple):
    """What went through a copy. `lines` became rows; with those of the quarantine they are all of the file's.

    `sha256` (hexadecimal) and `size_bytes` are of the whole file, header included.
    """

    lines: int
    sha256: str
    size_bytes: int


def opened(path: Path, when_missing: str) -> BinaryIO:
    """Open a file to load.

    Args:
        path: The file.
        when_missing: What to do if it is not there, for people.

    Returns:
        The file as a stream of bytes. The caller closes it.

    Raises:
        UnreadableFile: It does not exist, or can't be read.
    """
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise UnreadableFile(f"does not exist; {when_missing}") from None
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise UnreadableFile(f"can't be read: {error.strerror}") from None


def copy_lines(
    cursor: Cursor,
    stream: Readable,
    format: Format,
    table: sql.Identifier,
    quarantine: Quarantine,
    *,
    key: Mapping[str, str] | None = None,
    line_number: str | None = None,
) -> Copied:
    """Copy the clean lines of a file into a table, and add the others to the quarantine.

    It only adds rows: what the table had before for this file is the caller's to delete, in the same transaction,
    and so is `quarantine.replace`. Columns of the table that are named neither by the format nor here get their
    defaults.

    Args:
        cursor: Copies. What it does is not committed here.
        stream: The file from its first byte on.
        format: What it should look like.
        table: Where clean lines go. It has a column for each column of the format.
        quarantine: Where the others go.
        key: Columns that are the same in every row of this file, with their values.
        line_number: A column for the line's number in the file (1 is the header), if there is one.

    Returns:
        How many lines were copied, and the file's SHA-256 and size.

    Raises:
        UnusableFile: Not one line of the file can be loaded. The caller rolls back.
        psycopg2.Error: The table does not take a row, or the database failed.
        AssertionError: There are not as many new rows as clean lines, as with a trigger that drops some.
    """
    hashed = _HashedStream(stream)
    clean = _CleanStream(classify(hashed, format), quarantine, _as_rows(format, key or {}, line_number is not None))
    columns = [*(key or {}), *([] if line_number is None else [line_number]), *format.names]
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, DELIMITER {}, ENCODING 'UTF8')").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Literal(format.delimiter)
    )
    cursor.copy_expert(copy, clean, size=_COPY_BYTES)  # type: ignore[arg-type]  # it never calls readline
    if not clean.lines:
        raise _no_usable_line(quarantine)
    if cursor.rowcount != clean.lines:
        raise AssertionError(f"{table.as_string(cursor)} took {cursor.rowcount:,} rows of {clean.lines:,} lines")
    return Copied(clean.lines, hashed.sha256.hexdigest(), hashed.size)


def _as_rows(format: Format, key: Mapping[str, str], numbered: bool) -> Callable[[CleanLines], str]:
    """A function that puts the values of the key, and each line's number if it is asked for, before the lines."""
    before = "".join('"' + value.replace('"', '""') + '"' + format.delimiter for value in key.values())
    if numbered:
        return lambda clean: "".join(
            f"{before}{number}{format.delimiter}{line}\n" for number, line, _ in single_lines([clean])
        )
    if before:
        return lambda clean: "".join(f"{before}{line}\n" for _, line, _ in single_lines([clean]))
    return lambda clean: clean.text


def _no_usable_line(quarantine: Quarantine) -> UnusableFile:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in quarantine.reasons.most_common())
    first = quarantine.first_lines[0]
    detail = f", {first.detail}" if first.detail else ""
    hint = (
        "; is a carriage return alone the end of its lines?" if set(quarantine.reasons) == {"carriage return"} else ""
    )
    return UnusableFile(
        f"has a header and no usable line; of {quarantine.lines:,} read ({reasons}), the first is "
        f"line {first.line_number}, {first.line[:_SHOWN_IN_MESSAGE]!r}: {first.reason}{detail}{hint}",
        lines_read=quarantine.lines,
        reasons=quarantine.reasons,
        first_lines=quarantine.first_lines,
    )


class _HashedStream:
    """A binary stream that knows the SHA-256 and the size in bytes of what has been read from it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int, /) -> bytes:
        chunk = self._stream.read(size)
        self.sha256.update(chunk)
        self.size += len(chunk)
        return chunk


class _CleanStream:
    """What COPY reads: the clean lines. Rejected ones go to the quarantine on the way."""

    def __init__(
        self,
        items: Iterator[CleanLines | RejectedLine],
        quarantine: Quarantine,
        as_rows: Callable[[CleanLines], str],
    ) -> None:
        # The first item now: what makes a file unusable must not be raised inside COPY, which would hide it.
        self._items = chain([next(items)], items)
        self._quarantine = quarantine
        self._as_rows = as_rows
        self.lines = 0

    def read(self, size: int = -1, /) -> bytes:
        """Consecutive clean lines, one block or less; empty at the end. The size that is asked for is a hint."""
        for item in self._items:
            if isinstance(item, CleanLines):
                self.lines += item.text.count("\n")
                return self._as_rows(item).encode()
            self._quarantine.add(item)
        return b""
