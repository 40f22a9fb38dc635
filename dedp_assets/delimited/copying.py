"""Copies the clean lines of a file into any table, and sets the other lines aside for the quarantine."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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


# Tells the clean lines of a file from the others, in the file's order.
Classify = Callable[[Readable, Format], Iterator[CleanLines | RejectedLine]]


class CopyReport(NamedTuple):
    """What a copy has read and written.

    Attributes:
        lines: How many lines became rows. All other lines below the header are in the quarantine.
        sha256: Of the whole file with its header, in hexadecimal digits.
        size_bytes: Of the whole file with its header.
    """

    lines: int
    sha256: str
    size_bytes: int


def opened(path: Path, when_missing: str) -> BinaryIO:
    """Open a file to load.

    Args:
        path: The file.
        when_missing: What people can do if the file does not exist, for the error message.

    Returns:
        The file as a stream of bytes. The caller closes it.

    Raises:
        UnreadableFile: The file does not exist, or can't be opened.
    """
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise UnreadableFile(f"does not exist; {when_missing}") from None
    except OSError as error:
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
    columns: Sequence[str] | None = None,
    classify: Classify = classify,
) -> CopyReport:
    """Copy the clean lines of a file into a table, and add the other lines to the quarantine.

    This only adds rows. The caller deletes the rows that the table had for this file, and calls `quarantine.replace`,
    both in the same transaction. All other columns of the table get their default values.

    Args:
        cursor: Its transaction is used, and not committed.
        stream: The file from its first byte on.
        format: The format that the file should have.
        table: The table for clean lines. It has a column for each column of the format.
        quarantine: The place for all other lines.
        key: Columns that have the same value in every row of this file, with these values.
        line_number: The column for the number of the line in the file, if the table has one. The header is line 1.
        columns: The columns of the table for those of the format, if they have other names in the table.
        classify: Tells the clean lines from the others. By default those of delimited text with a header.

    Returns:
        How many lines were copied, and the file's SHA-256 and size.

    Raises:
        UnusableFile: Not one line of the file can be loaded. The caller rolls back.
        psycopg2.Error: The table refuses a row, or the database failed.
        AssertionError: The number of new rows is not that of clean lines, for example because a trigger drops rows.
    """
    hashed = _HashedStream(stream)
    clean = _CleanStream(classify(hashed, format), quarantine, _as_rows(format, key or {}, line_number is not None))
    into = [*(key or {}), *([] if line_number is None else [line_number]), *(columns or format.names)]
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, DELIMITER {}, ENCODING 'UTF8')").format(
        table, sql.SQL(", ").join(map(sql.Identifier, into)), sql.Literal(format.delimiter)
    )
    cursor.copy_expert(copy, clean, size=_COPY_BYTES)  # type: ignore[arg-type]  # it never calls readline
    if not clean.lines:
        raise _no_usable_line(quarantine)
    if cursor.rowcount != clean.lines:
        raise AssertionError(f"{table.as_string(cursor)} took {cursor.rowcount:,} rows of {clean.lines:,} lines")
    return CopyReport(clean.lines, hashed.sha256.hexdigest(), hashed.size)


def _as_rows(format: Format, key: Mapping[str, str], numbered: bool) -> Callable[[CleanLines], str]:
    """A function that puts the values of the key, and with `numbered` the number of the line, before each line."""
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
    """A binary stream that computes the SHA-256 and the size in bytes of all that is read from it."""

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
    """The stream that COPY reads: the clean lines. On the way, rejected lines go to the quarantine."""

    def __init__(
        self,
        items: Iterator[CleanLines | RejectedLine],
        quarantine: Quarantine,
        as_rows: Callable[[CleanLines], str],
    ) -> None:
        # Read the first item now, because an error of the header would be hidden if it were raised inside COPY.
        self._items = chain([next(items)], items)
        self._quarantine = quarantine
        self._as_rows = as_rows
        self.lines = 0

    def read(self, size: int = -1, /) -> bytes:
        """Consecutive clean lines, at most one block; empty at the end. `size` is ignored, which COPY allows."""
        for item in self._items:
            if isinstance(item, CleanLines):
                self.lines += item.text.count("\n")
                return self._as_rows(item).encode()
            self._quarantine.add(item)
        return b""
