"""Loads one file of a client into `dedp.upload_records`: exactly once, atomic, in flat memory."""

from pathlib import Path

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from dedp_assets.client_uploads.contract import COLUMNS
from dedp_assets.client_uploads.ledger import Outcome
from dedp_assets.delimited.copying import copy_lines, opened
from dedp_assets.delimited.format import Format
from dedp_assets.delimited.header import UnreadableFile, UnusableFile
from dedp_assets.delimited.json_lines import classify_json
from dedp_assets.delimited.lines import classify
from dedp_assets.delimited.quarantine import setting_aside

_RECORDS = sql.Identifier("dedp", "upload_records")
_QUARANTINE = sql.Identifier("dedp", "upload_quarantine")
_JSON_ENDINGS = (".json", ".jsonl", ".ndjson")


def load_copy(cursor: Cursor, client: str, file: str, copy: Path, format: Format, sha256: str) -> Outcome:
    """Make the rows of a file in `dedp.upload_records` exactly what its copy holds, in the transaction of the cursor.

    Args:
        cursor: Writes. What it does is not committed here.
        client: Whose file it is.
        file: Its name. `.json`, `.jsonl` and `.ndjson` are JSON lines, all else is delimited text with a header.
        copy: Our own copy of it.
        format: The columns of the file that fill `id`, `name` and `value`.
        sha256: Of the copy.

    Returns:
        What became of it. Of a file that is refused not one line can be loaded: the rows of the version before stay.

    Raises:
        UnreadableFile: The copy is not there, or can't be read.
    """
    key = {"client": client, "file": file}
    cursor.execute("SAVEPOINT before_load")
    try:
        with opened(copy, "materialize uploads/received first") as stream:
            cursor.execute("DELETE FROM dedp.upload_records WHERE client = %(client)s AND file = %(file)s", key)
            with setting_aside(_QUARANTINE, key) as quarantine:
                copied = copy_lines(
                    cursor,
                    stream,
                    format,
                    _RECORDS,
                    quarantine,
                    key=key,
                    line_number="line_number",
                    columns=COLUMNS,
                    classify=classify_json if file.lower().endswith(_JSON_ENDINGS) else classify,
                )
                quarantine.replace(cursor)
    except UnreadableFile:
        raise
    except UnusableFile as error:
        cursor.execute("ROLLBACK TO SAVEPOINT before_load")
        return Outcome("refused", sha256, str(error))
    return Outcome(
        "loaded",
        copied.sha256,
        lines_read=copied.lines + quarantine.lines,
        rows_loaded=copied.lines,
        rows_quarantined=quarantine.lines,
    )
