"""Loads one devices file as one load of `dedp.devices_raw`: idempotent, atomic, in flat memory.

Everything happens in one transaction, so a reader sees the old load or the new one, and a process that is
killed leaves the old one. The row in `devices_loads` is the lock: two runs of the same load take turns, two
different loads don't meet.

A load that is new is copied into a table of its own, gets its primary key there and becomes a partition: as
fast as PostgreSQL goes, and no reader waits. A load that exists is compared with what came, and only the
difference is written.
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

# Equal rows are interchangeable, so any may stay. A table that one COPY has just filled is in the file's order,
# and the ordinal leads back to the line.
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
    """What a load did. `lines_read` (without the header) = `rows_loaded` + `rows_quarantined`."""

    load_id: str
    sha256: str
    size_bytes: int
    lines_read: int
    rows_loaded: int
    rows_quarantined: int
    reasons: dict[str, int]


class LoadState(NamedTuple):
    """A load that is there: the SHA-256 of the file that it reflects, and whether its totals are refreshed."""

    sha256: str
    is_folded: bool


def load_states(connection: Connection) -> dict[str, LoadState]:
    """Every load by its id."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_LOAD_STATES)
        return {load_id: LoadState(sha256, is_folded) for load_id, sha256, is_folded in cursor.fetchall()}


def load_file(connection: Connection, load_id: str, path: Path) -> LoadReport:
    """Make `load_id` in `dedp.devices_raw` exactly what the file holds, and commit.

    Raises UnusableFile, which says what is wrong and leaves naming the file to the caller, when nothing of it
    can be loaded. Then, as after any other error, the earlier load and its quarantine stay as they are: the
    quarantine tells of the file that is loaded, the error of the one that is not.
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
            # Somebody dropped its table, so what it had added to the totals can't be taken back row by row.
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
    """Wait for other runs of this load, keep them waiting until we commit, and tell whether it is folded."""
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
    """Build the key in one sort, which is also the test for duplicates; set these aside and build it again."""
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
