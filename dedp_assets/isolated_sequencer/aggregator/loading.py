"""Loads one devices file as one load of `dedp.devices_raw`: idempotent, atomic, in constant memory.

Everything happens in one transaction. Readers see the old load or the new one, and a killed process leaves the old
one. The row in `devices_loads` is the lock: two runs of the same load take turns, and different loads run at once.

A new load is copied into a table of its own, which gets its primary key and becomes a partition. That is the fastest
way, and no reader waits. For a load that exists, the file is compared with it, and only the difference is written.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from psycopg2 import errors, sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.delimited.copying import copy_lines, opened
from dedp_assets.delimited.lines import RejectedLine, Rejection, classify, single_lines
from dedp_assets.delimited.quarantine import Quarantine, setting_aside
from dedp_assets.delimited.values import split_values
from dedp_assets.isolated_sequencer.contract import DEVICES_FORMAT

_MISSING = "materialize devices_file for this partition first"

_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, DEVICES_FORMAT.names))
_ARRIVED = sql.Identifier("pg_temp", "arrived")
_QUARANTINE = sql.Identifier("dedp", "devices_quarantine")

# Equal rows are interchangeable, so any of them may stay. A table that one COPY has just filled has the order of the
# file, so the ordinal of a row leads back to its line.
_TAKE_OUT_DUPLICATES = """
    CREATE TEMP TABLE duplicates ON COMMIT DROP AS
    SELECT ordinal, row_id, type, full_name, version
    FROM (
        SELECT *, row_number() OVER (PARTITION BY type, full_name, version ORDER BY ordinal) AS occurrence
        FROM (
            SELECT ctid AS row_id, type, full_name, version, row_number() OVER (ORDER BY ctid) AS ordinal
            FROM {target}
        ) AS numbered
    ) AS occurrences
    WHERE occurrence > 1;
    DELETE FROM {target} AS target USING duplicates WHERE target.ctid = duplicates.row_id;
"""

_LOAD_STATES = """
    SELECT load_id, sha256, folded AND NOT EXISTS (
        SELECT FROM dedp.devices_changes WHERE devices_changes.load_id = devices_loads.load_id
    )
    FROM dedp.devices_loads
    WHERE sha256 IS NOT NULL
"""

_WRITE_DIFFERENCE = """
    ANALYZE {arrived};
    DELETE FROM dedp.devices_raw AS present
    WHERE load_id = {load_id} AND NOT EXISTS (
        SELECT FROM {arrived} AS arrived
        WHERE (arrived.type, arrived.full_name, arrived.version) = (present.type, present.full_name, present.version)
    );
    INSERT INTO dedp.devices_raw (type, full_name, version, load_id)
    SELECT type, full_name, version, load_id
    FROM {arrived} AS arrived
    WHERE NOT EXISTS (
        SELECT FROM dedp.devices_raw AS present
        WHERE present.load_id = {load_id}
        AND (arrived.type, arrived.full_name, arrived.version) = (present.type, present.full_name, present.version)
    );
"""


@dataclass(frozen=True)
class LoadReport:
    """The result of a load.

    Attributes:
        load_id: The load.
        sha256: Of the file, in hexadecimal digits.
        size_bytes: Of the file.
        lines_read: Without the header. It is the sum of the next two.
        rows_loaded: The number of rows in the load.
        rows_quarantined: The number of lines that were set aside.
        reasons: The number of lines that were set aside, by reason.
    """

    load_id: str
    sha256: str
    size_bytes: int
    lines_read: int
    rows_loaded: int
    rows_quarantined: int
    reasons: dict[str, int]


class LoadState(NamedTuple):
    """A load in the database: the SHA-256 of its file, and whether it is folded into the totals completely."""

    sha256: str
    is_folded: bool


def load_states(connection: Connection) -> dict[str, LoadState]:
    """The state of every load, by load id."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_LOAD_STATES)
        return {load_id: LoadState(sha256, is_folded) for load_id, sha256, is_folded in cursor.fetchall()}


def load_file(connection: Connection, load_id: str, path: Path) -> LoadReport:
    """Replace a load in `dedp.devices_raw` and its quarantine by the content of a file, and commit.

    After any error, the earlier load and its quarantine stay as they are.

    Args:
        connection: To the database, outside of a transaction.
        load_id: The load, in 8 digits.
        path: The file.

    Returns:
        What was loaded and set aside.

    Raises:
        UnusableFile: Nothing of the file can be loaded. The message does not name the file.
    """
    with opened(path, _MISSING) as stream, connection, connection.cursor() as cursor:
        return _load(cursor, load_id, stream)


def _load(cursor: Cursor, load_id: str, stream: BinaryIO) -> LoadReport:
    folded = _lock_load(cursor, load_id)
    partition = sql.Identifier("dedp_loads", f"devices_raw_{load_id}")
    is_new = not _exists(cursor, partition)
    target = partition if is_new else _ARRIVED
    _create_target(cursor, target, load_id)
    with setting_aside(_QUARANTINE, {"load_id": load_id}) as quarantine:
        copied = copy_lines(cursor, stream, DEVICES_FORMAT, target, quarantine)
        lines_read = copied.lines + quarantine.lines
        _add_primary_key(cursor, target, stream, quarantine)
        quarantine.replace(cursor)
    if is_new:
        _attach(cursor, partition, load_id)
        if folded:
            # Somebody dropped the table of the load, so its rows can't be subtracted from the totals one by one.
            cursor.execute("SELECT dedp.unfold_all()")
    else:
        cursor.execute(sql.SQL(_WRITE_DIFFERENCE).format(arrived=_ARRIVED, load_id=sql.Literal(load_id)))
    report = LoadReport(
        load_id=load_id,
        sha256=copied.sha256,
        size_bytes=copied.size_bytes,
        lines_read=lines_read,
        rows_loaded=lines_read - quarantine.lines,
        rows_quarantined=quarantine.lines,
        reasons=dict(quarantine.reasons),
    )
    cursor.execute(
        "UPDATE dedp.devices_loads SET sha256 = %s, lines_read = %s, rows_loaded = %s, rows_quarantined = %s, "
        "loaded_at = now() WHERE load_id = %s",
        [report.sha256, report.lines_read, report.rows_loaded, report.rows_quarantined, load_id],
    )
    return report


def _lock_load(cursor: Cursor, load_id: str) -> bool:
    """Lock the load until the transaction ends. Returns whether the load is folded."""
    cursor.execute("INSERT INTO dedp.devices_loads (load_id) VALUES (%s) ON CONFLICT DO NOTHING", [load_id])
    cursor.execute("SELECT folded FROM dedp.devices_loads WHERE load_id = %s FOR UPDATE", [load_id])
    (folded,) = cursor.fetchone()  # type: ignore[misc]
    return bool(folded)


def _exists(cursor: Cursor, table: sql.Identifier) -> bool:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [table.as_string(cursor)])
    return cursor.fetchone() == (True,)


def _create_target(cursor: Cursor, target: sql.Identifier, load_id: str) -> None:
    create = sql.SQL(
        """
        CREATE TABLE {target} (LIKE dedp.devices_raw, CHECK (load_id = {load_id})) {lifetime};
        ALTER TABLE {target} ALTER COLUMN load_id SET DEFAULT {load_id};
        """
    )
    lifetime = sql.SQL("ON COMMIT DROP" if target is _ARRIVED else "")
    cursor.execute(create.format(target=target, load_id=sql.Literal(load_id), lifetime=lifetime))


def _add_primary_key(cursor: Cursor, target: sql.Identifier, stream: BinaryIO, quarantine: Quarantine) -> None:
    """Build the primary key, which also finds duplicates. If there are any, set them aside and build it again."""
    add = sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({}, load_id)").format(target, _COLUMNS)
    cursor.execute("SAVEPOINT without_key")
    try:
        cursor.execute(add)
    except errors.UniqueViolation:
        cursor.execute("ROLLBACK TO SAVEPOINT without_key")
        cursor.execute(sql.SQL(_TAKE_OUT_DUPLICATES).format(target=target))
        _quarantine_duplicates(cursor, stream, quarantine)
        cursor.execute(add)


def _quarantine_duplicates(cursor: Cursor, stream: BinaryIO, quarantine: Quarantine) -> None:
    stream.seek(0)
    clean_lines = single_lines(classify(stream, DEVICES_FORMAT))
    with cursor.connection.cursor(name="duplicates_in_order") as duplicates:
        duplicates.execute("SELECT ordinal, type, full_name, version FROM duplicates ORDER BY ordinal")
        passed = 0
        for ordinal, *values in duplicates:
            line_number, line, marks = next(islice(clean_lines, ordinal - passed - 1, None))
            passed = ordinal
            if split_values(line, DEVICES_FORMAT) != values:
                raise AssertionError(f"line {line_number} should be the duplicate {values}, but is {line!r}")
            raw = (marks + line).encode()
            quarantine.add(RejectedLine(line_number, raw, Rejection("duplicate", "of an earlier line")))


def _attach(cursor: Cursor, partition: sql.Identifier, load_id: str) -> None:
    attach = sql.SQL("ALTER TABLE dedp.devices_raw ATTACH PARTITION {} FOR VALUES IN ({})")
    cursor.execute(attach.format(partition, sql.Literal(load_id)))
