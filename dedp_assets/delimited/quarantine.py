"""Collects the rejected lines of a file, and writes them to a quarantine table."""

import codecs
import csv
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from dedp_assets.delimited.header import RefusedLine
from dedp_assets.delimited.lines import RejectedLine

_SPOOL_BYTES = 1 << 20

# How many rejected lines an error shows, and how many characters of each.
_FIRST_LINES = 5
_SHOWN_CHARACTERS = 200

_LINE_COLUMNS = ("line_number", "reason", "detail", "line", "raw_line")


@contextmanager
def setting_aside(table: sql.Identifier, key: Mapping[str, str]) -> Iterator["Quarantine"]:
    """Collect the rejected lines of one file until the block ends. More than 1 MiB of them is kept on disk.

    Args:
        table: The quarantine table. Besides the columns of the key it has `line_number bigint` (1 is the header),
            `reason text`, `detail text`, `line text` (for people: NUL, and bytes that are not UTF-8, are shown as
            \\xNN) and `raw_line bytea` (the bytes of the line without its end).
        key: One or more columns, with their values, that identify the file in the table.

    Yields:
        An empty quarantine.
    """
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        yield Quarantine(spool, table, key)


class Quarantine:
    """The rejected lines of one file, until they are written to the table. Made by `setting_aside`.

    Attributes:
        lines: The number of lines.
        reasons: The number of lines for each reason.
        first_lines: The first few lines, for error messages.
    """

    def __init__(self, spool: IO[bytes], table: sql.Identifier, key: Mapping[str, str]) -> None:
        self._spool = spool
        # In Python 3.10 the spool is no IOBase, and io.TextIOWrapper refuses it.
        self._rows = csv.writer(codecs.getwriter("utf-8")(spool))
        self._table = table
        self._key = dict(key)
        self.lines = 0
        self.reasons: Counter[str] = Counter()
        self.first_lines: list[RefusedLine] = []

    def add(self, rejected: RejectedLine) -> None:
        """Add one line."""
        readable = rejected.raw.decode("utf-8", errors="backslashreplace").replace("\0", "\\x00")
        raw = "\\x" + rejected.raw.hex()
        self._rows.writerow([*self._key.values(), rejected.line_number, *rejected.rejection, readable, raw])
        self.lines += 1
        self.reasons[rejected.rejection.reason] += 1
        if len(self.first_lines) < _FIRST_LINES:
            shown = readable[:_SHOWN_CHARACTERS]
            self.first_lines.append(RefusedLine(rejected.line_number, *rejected.rejection, shown))

    def replace(self, cursor: Cursor) -> None:
        """Replace the rows that the table has for this file by these lines.

        Args:
            cursor: Its transaction is used, and not committed.

        Raises:
            psycopg2.Error: The table lacks a column that `setting_aside` names, or the database failed.
            AssertionError: The number of new rows is not that of the lines.
        """
        ours = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in self._key)
        cursor.execute(sql.SQL("DELETE FROM {} WHERE {}").format(self._table, ours), list(self._key.values()))
        self.append(cursor)

    def append(self, cursor: Cursor) -> None:
        """Add these lines to the rows that the table has. Otherwise as `replace`."""
        self._spool.seek(0)
        key = list(map(sql.Identifier, self._key))
        copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, ENCODING 'UTF8', FORCE_NOT_NULL ({}))").format(
            self._table,
            sql.SQL(", ").join([*key, *map(sql.Identifier, _LINE_COLUMNS)]),
            sql.SQL(", ").join([*key, *map(sql.Identifier, ("detail", "line"))]),
        )
        cursor.copy_expert(copy, self._spool)
        if cursor.rowcount != self.lines:
            raise AssertionError(
                f"{self._table.as_string(cursor)} took {cursor.rowcount:,} rows of {self.lines:,} lines"
            )
