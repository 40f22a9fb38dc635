"""`dedp.upload_files`: which version of each file was dealt with, and what became of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from dedp_assets.client_uploads.arrival import Arrival
from dedp_assets.landing.arrivals import Known
from dedp_assets.landing.versions import FileVersion
from dedp_assets.migrations import migrate

_MIGRATIONS = Path(__file__).with_name("migrations")
_PIPELINE = "client_uploads"

_KNOWN = """
    SELECT client, file, version, sha256
    FROM dedp.upload_files
    JOIN unnest(%s, %s) AS asked (client, file) USING (client, file)
    WHERE is_current
"""

_RECORD = """
    INSERT INTO dedp.upload_files (
        client, file, version, is_current, directory, pattern, size_bytes, modified_at, first_seen_at, waited_seconds,
        sha256, state, reason, lines_read, rows_loaded, rows_quarantined, origin, run_id
    )
    VALUES (
        %(client)s, %(file)s, %(version)s, true, %(directory)s, %(pattern)s, %(size_bytes)s, %(modified_at)s,
        %(first_seen_at)s, %(waited_seconds)s, %(sha256)s, %(state)s, %(reason)s, %(lines_read)s, %(rows_loaded)s,
        %(rows_quarantined)s, %(origin)s, %(run_id)s
    )
    ON CONFLICT (client, file, version) DO UPDATE SET
        is_current = true, sha256 = EXCLUDED.sha256, state = EXCLUDED.state, reason = EXCLUDED.reason,
        lines_read = EXCLUDED.lines_read, rows_loaded = EXCLUDED.rows_loaded,
        rows_quarantined = EXCLUDED.rows_quarantined, run_id = EXCLUDED.run_id, dealt_with_at = now()
"""


class Outcome(NamedTuple):
    """What became of a file. `state`: received, loaded or refused; `reason`: why it was refused."""

    state: str
    sha256: str
    reason: str = ""
    lines_read: int = 0
    rows_loaded: int = 0
    rows_quarantined: int = 0


def ensure_tables(connection: Connection) -> None:
    """Apply the migrations that the database lacks. Raises WrongTables for one that is newer than this version."""
    migrate(connection, _PIPELINE, _MIGRATIONS)


def known_files(connection: Connection, asked: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Known]]:
    """What the ledger says of files.

    Args:
        connection: To a database with the tables.
        asked: The files, by client.

    Returns:
        The version that was dealt with last, by client and file. What is not in the ledger is missing.
    """
    pairs = [(client, file) for client, files in asked.items() for file in files]
    found: dict[str, dict[str, Known]] = {}
    if pairs:
        with connection, connection.cursor() as cursor:
            cursor.execute(_KNOWN, [[client for client, _ in pairs], [file for _, file in pairs]])
            for client, file, version, sha256 in cursor.fetchall():
                found.setdefault(client, {})[file] = Known(FileVersion.from_text(version), sha256)
    return found


def lock_file(cursor: Cursor, client: str, file: str) -> None:
    """Wait for other transactions on the same file, and keep them waiting until this one ends."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s || chr(1) || %s, 0))", [client, file])


def current(cursor: Cursor, client: str, file: str) -> tuple[str, str] | None:
    """The version and the state in which a file was dealt with last. Call `lock_file` before."""
    cursor.execute(
        "SELECT version, state FROM dedp.upload_files WHERE client = %s AND file = %s AND is_current", [client, file]
    )
    row = cursor.fetchone()
    return (row[0], row[1]) if row else None


def record(cursor: Cursor, arrival: Arrival, outcome: Outcome, *, origin: str, run_id: str) -> None:
    """Write what became of a file, in the transaction of the cursor. Call `lock_file` before."""
    cursor.execute(
        "UPDATE dedp.upload_files SET is_current = false WHERE client = %s AND file = %s AND is_current",
        [arrival.client, arrival.file],
    )
    values: dict[str, Any] = {**arrival.model_dump(), **outcome._asdict(), "origin": origin, "run_id": run_id}
    cursor.execute(_RECORD, values)


def confirm_versions(connection: Connection, same: Sequence[tuple[str, str, FileVersion]]) -> None:
    """Note that files are now in another version with the same content: they were touched, copied or mounted anew.

    Args:
        connection: To a database with the tables.
        same: Client, file and new version.
    """
    with connection, connection.cursor() as cursor:
        execute_values(
            cursor,
            "UPDATE dedp.upload_files AS ledger SET version = same.version "
            "FROM (VALUES %s) AS same (client, file, version) "
            "WHERE (ledger.client, ledger.file) = (same.client, same.file) AND is_current AND NOT EXISTS ("
            "SELECT FROM dedp.upload_files AS other WHERE (other.client, other.file, other.version) = "
            "(same.client, same.file, same.version))",
            [(client, file, version.to_text()) for client, file, version in same],
        )
