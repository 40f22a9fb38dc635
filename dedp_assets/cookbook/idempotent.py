"""Idempotent tasks, in the three ways of the notes: overwrite the partition, upsert, look for the result first.

Each works in a transaction that the caller commits.
"""

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor

DELETE_DAY = "DELETE FROM sales WHERE day = %s"
INSERT_DAY = "INSERT INTO sales (day, shop, amount) VALUES (%s, %s, %s)"

UPSERT = """
INSERT INTO customers AS old (email, name)
VALUES (%s, %s)
ON CONFLICT (email) DO UPDATE SET name = excluded.name
WHERE old.name IS DISTINCT FROM excluded.name
"""

IS_DONE = "SELECT source FROM loads WHERE day = %s"
DONE = """
INSERT INTO loads (day, source)
VALUES (%s, %s)
ON CONFLICT (day) DO UPDATE SET source = excluded.source
"""


def overwrite(cursor: Cursor, day: str, rows: Sequence[tuple[str, int]]) -> None:
    """Replace the partition of a day. Others see the old rows or the new ones, because it is one transaction."""
    cursor.execute(DELETE_DAY, [day])
    cursor.executemany(INSERT_DAY, [(day, *row) for row in rows])


def upsert(cursor: Cursor, email: str, name: str) -> bool:
    """Insert or update a customer. Returns whether anything has changed."""
    cursor.execute(UPSERT, [email, name])
    return cursor.rowcount > 0


def load_once(cursor: Cursor, day: str, source: str, rows: Sequence[tuple[str, int]]) -> bool:
    """Load a day unless it reflects this version of its source. Returns whether it was loaded.

    Args:
        cursor: in a transaction: the rows and the version are committed together, or neither.
        day: the partition.
        source: the version of the source, such as the SHA-256 of a file.
        rows: shop and amount.
    """
    cursor.execute(IS_DONE, [day])
    if cursor.fetchone() == (source,):
        return False
    overwrite(cursor, day, rows)
    cursor.execute(DONE, [day, source])
    return True
