"""Loads our copy of a delivery into `dedp.promotions`: as a whole, exactly once, in flat memory."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.delimited.copying import copy_lines, opened
from dedp_assets.delimited.header import RefusedLine, UnreadableFile, UnusableFile
from dedp_assets.delimited.lines import RejectedLine, Rejection, blocks_of_lines, single_lines
from dedp_assets.delimited.quarantine import Quarantine, setting_aside
from dedp_assets.landing.delivery_copies import CopiedContent, Copy, DamagedCopy, content_file, read_copy
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries.lines import FORMAT, classify_promotions
from dedp_assets.promotions.deliveries.tables import lock_delivery

_ARRIVED = sql.Identifier("pg_temp", "promotions_arrived")
_QUARANTINE = sql.Identifier("dedp", "promotion_quarantine")
_FIRST_LINES = 5

_CREATE_ARRIVED = """
    CREATE TEMPORARY TABLE promotions_arrived (
        file_number     integer,
        line_number     bigint,
        product_id      text COLLATE "C",
        product         text,
        price           numeric,
        promotion_price numeric,
        starts_on       date,
        ends_on         date
    ) ON COMMIT DROP
"""

# Of a product that stands several times, the last line counts.
_INSERT = """
    INSERT INTO dedp.promotions (
        supplier, day, product_id, product, price, promotion_price, starts_on, ends_on
    )
    SELECT DISTINCT ON (product_id)
        %s, %s, product_id, product, price, promotion_price, starts_on, ends_on
    FROM pg_temp.promotions_arrived
    ORDER BY product_id, file_number DESC, line_number DESC
"""

_DUPLICATES = """
    SELECT file_number, line_number
    FROM (
        SELECT
            file_number,
            line_number,
            row_number() OVER (PARTITION BY product_id ORDER BY file_number DESC, line_number DESC) AS place
        FROM pg_temp.promotions_arrived
    ) AS numbered
    WHERE place > 1
    ORDER BY file_number, line_number
"""

# Of the code that makes the rows and the figures of a delivery. Give it another value when the code changes what they
# are. Then a delivery that somebody asks for is loaded again, and one that has this value already is not.
LOGIC = "1"

_CURRENT = """
    SELECT version, load_number, files, lines_read, rows_loaded, rows_quarantined
    FROM dedp.promotion_deliveries
    WHERE supplier = %s AND day = %s AND logic = %s
"""

# Whether a delivery was late is said by its first version.
_RECORD = """
    INSERT INTO dedp.promotion_deliveries (
        supplier, day, version, load_number, ready_at, is_late, files, lines_read, rows_loaded, rows_quarantined,
        run_id, logic
    )
    VALUES (
        %(supplier)s, %(day)s, %(version)s, nextval('dedp.promotion_load_numbers'), %(ready_at)s, %(is_late)s,
        %(files)s, %(lines_read)s, %(rows_loaded)s, %(rows_quarantined)s, %(run_id)s, %(logic)s
    )
    ON CONFLICT (supplier, day) DO UPDATE SET
        version = EXCLUDED.version, load_number = EXCLUDED.load_number, loaded_at = now(),
        ready_at = EXCLUDED.ready_at, files = EXCLUDED.files, lines_read = EXCLUDED.lines_read,
        rows_loaded = EXCLUDED.rows_loaded, rows_quarantined = EXCLUDED.rows_quarantined, run_id = EXCLUDED.run_id,
        logic = EXCLUDED.logic
    RETURNING load_number
"""


class Load(NamedTuple):
    """A delivery that is loaded.

    Attributes:
        version: Of the delivery.
        load_number: Of the load.
        files: How many data files it has.
        lines_read: Without headers. It is the sum of the next two.
        rows_loaded: How many promotions it has.
        rows_quarantined: How many lines were set aside.
        reasons: How many lines were set aside for each reason. Empty if the version had been loaded before.
        is_new: Whether it was loaded now. If not, the version had been loaded before.
    """

    version: str
    load_number: int
    files: int
    lines_read: int
    rows_loaded: int
    rows_quarantined: int
    reasons: dict[str, int]
    is_new: bool


class RefusedDelivery(UnusableFile):
    """Not one line of any file of the delivery can be loaded. `version` is that of the delivery."""

    version: str = ""


def load_delivery(
    connection: Connection, delivery: Delivery, folder: Path, *, run_id: str = "", again: bool = False
) -> Load:
    """Make the rows of a delivery in `dedp.promotions` what our copy of it holds, and commit.

    After any error, the earlier version and its quarantine stay as they are.

    Args:
        connection: To a database with the tables, outside of a transaction.
        delivery: Which one.
        folder: Where our copy is.
        run_id: For the table of deliveries.
        again: Load also a version that is loaded, for example by another rule. That is another load.

    Returns:
        What is loaded now.

    Raises:
        RefusedDelivery: Not one line can be loaded.
        DamagedCopy: There is no copy, or it is damaged.
    """
    while True:
        copy = read_copy(folder)
        if copy is None:
            raise DamagedCopy(f"there is no copy of {'/'.join(delivery)} in {folder}; materialize promotions/raw first")
        try:
            with connection, connection.cursor() as cursor:
                lock_delivery(cursor, delivery)
                if read_copy(folder) != copy:
                    continue
                loaded = None if again else _loaded(cursor, delivery, copy.version)
                return loaded or _load(cursor, delivery, folder, copy, run_id)
        except UnreadableFile as error:
            # Another run may have copied another version meanwhile, and deleted the contents of this one.
            if read_copy(folder) == copy:
                raise DamagedCopy(
                    f"the copy of {'/'.join(delivery)} in {folder} is damaged: a content {error}; delete "
                    "delivery.json there, and materialize promotions/raw"
                ) from None


def _loaded(cursor: Cursor, delivery: Delivery, version: str) -> Load | None:
    """The load of this version by this logic; None if there is none."""
    cursor.execute(_CURRENT, [*delivery, LOGIC])
    row = cursor.fetchone()
    if row is None or row[0] != version:
        return None
    version, load_number, files, lines_read, rows_loaded, rows_quarantined = row
    return Load(version, load_number, files, lines_read, rows_loaded, rows_quarantined, {}, is_new=False)


def _load(cursor: Cursor, delivery: Delivery, folder: Path, copy: Copy, run_id: str) -> Load:
    cursor.execute("DELETE FROM dedp.promotions WHERE supplier = %s AND day = %s", list(delivery))
    cursor.execute("DELETE FROM dedp.promotion_quarantine WHERE supplier = %s AND day = %s", list(delivery))
    cursor.execute(_CREATE_ARRIVED)
    lines, reasons = 0, Counter[str]()
    first_lines: list[RefusedLine] = []
    for number, file in enumerate(copy.files):
        with (
            opened(content_file(folder, file.sha256), "it was copied") as stream,
            _setting_aside(delivery, file) as quarantine,
        ):
            lines += _copy_file(cursor, number, file, stream, quarantine)
            quarantine.append(cursor)
        reasons += quarantine.reasons
        first_lines += quarantine.first_lines[: _FIRST_LINES - len(first_lines)]
    if not lines:
        raise _refused(delivery, copy, reasons, first_lines)
    cursor.execute(_INSERT, list(delivery))
    rows = cursor.rowcount
    if rows < lines:
        _set_duplicates_aside(cursor, delivery, folder, copy.files)
        reasons["duplicate"] = lines - rows
    quarantined = reasons.total()
    report = Load(
        version=copy.version,
        load_number=0,
        files=len(copy.files),
        lines_read=rows + quarantined,
        rows_loaded=rows,
        rows_quarantined=quarantined,
        reasons=dict(reasons),
        is_new=True,
    )
    return report._replace(load_number=_record(cursor, report, delivery, copy, run_id))


def _record(cursor: Cursor, report: Load, delivery: Delivery, copy: Copy, run_id: str) -> int:
    """Write a load into the ledger, as the last thing that its transaction does. Returns its number."""
    # No other load can get a number until this transaction ends.
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('dedp.promotion_load_numbers', 0))")
    recorded = {
        **report._asdict(),
        **delivery._asdict(),
        "ready_at": copy.ready_at,
        "is_late": copy.is_late,
        "run_id": run_id,
        "logic": LOGIC,
    }
    cursor.execute(_RECORD, recorded)
    (load_number,) = cursor.fetchone()  # type: ignore[misc]
    return int(load_number)


def _setting_aside(delivery: Delivery, file: CopiedContent) -> AbstractContextManager[Quarantine]:
    return setting_aside(_QUARANTINE, {**delivery._asdict(), "file": file.name})


def _copy_file(cursor: Cursor, number: int, file: CopiedContent, stream: BinaryIO, quarantine: Quarantine) -> int:
    """Copy the promotions of a file, and set its other lines aside. Returns how many promotions there are."""
    try:
        copied = copy_lines(
            cursor,
            stream,
            FORMAT,
            _ARRIVED,
            quarantine,
            key={"file_number": str(number)},
            line_number="line_number",
            classify=classify_promotions,
        )
    except UnusableFile as error:
        if not quarantine.lines:
            _set_file_aside(stream, quarantine, error)
        return 0
    if copied.sha256 != file.sha256:
        raise DamagedCopy(
            f"the copy of {file.name}, {file.sha256}.csv, has another content than its name says; delete it, and "
            "materialize promotions/raw"
        )
    return copied.lines


def _set_file_aside(stream: BinaryIO, quarantine: Quarantine, error: UnusableFile) -> None:
    """Set every line of a file aside, because it is no file of promotions: its header is wrong, or it is empty."""
    stream.seek(0)
    rejected = Rejection("unusable file", f"it {error}"[:500])
    number = 0
    for block in blocks_of_lines(stream):
        if isinstance(block, RejectedLine):
            number += 1
            quarantine.add(RejectedLine(number, block.raw, rejected))
            continue
        for raw in block[:-1].split(b"\n"):
            number += 1
            quarantine.add(RejectedLine(number, raw.removesuffix(b"\r"), rejected))
    if not number:
        quarantine.add(RejectedLine(1, b"", rejected))


def _set_duplicates_aside(cursor: Cursor, delivery: Delivery, folder: Path, files: Sequence[CopiedContent]) -> None:
    """Set aside the lines of products that stand again later. Their bytes are read from the files once more."""
    with cursor.connection.cursor(name="promotion_duplicates") as duplicates:
        duplicates.execute(_DUPLICATES)
        for number, rows in groupby(duplicates, key=itemgetter(0)):
            file = files[number]
            with (
                opened(content_file(folder, file.sha256), "it was copied") as stream,
                _setting_aside(delivery, file) as quarantine,
            ):
                clean = single_lines(classify_promotions(stream))
                for _, line_number in rows:
                    line, marks = next((line, marks) for at, line, marks in clean if at == line_number)
                    rejected = Rejection("duplicate", "the product stands again later in the delivery")
                    quarantine.add(RejectedLine(line_number, (marks + line).encode(), rejected))
                quarantine.append(cursor)


def _refused(
    delivery: Delivery, copy: Copy, reasons: Counter[str], first_lines: Sequence[RefusedLine]
) -> RefusedDelivery:
    counts = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
    first = first_lines[0]
    error = RefusedDelivery(
        f"{copy.folder} has {len(copy.files)} data file(s), and no usable line; of {reasons.total():,} read "
        f"({counts}), the first is line {first.line_number}, {first.line[:60]!r}: {first.reason}, {first.detail}; what "
        f"was loaded of {'/'.join(delivery)} before stays",
        lines_read=reasons.total(),
        reasons=reasons,
        first_lines=first_lines,
    )
    error.version = copy.version
    return error
