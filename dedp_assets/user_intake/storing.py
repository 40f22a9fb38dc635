"""Stores the users of a day in `dedp.users`, in one transaction: an upsert by email that says what it has changed."""

from pathlib import Path
from typing import NamedTuple

from psycopg2.extensions import connection as Connection
from psycopg2.extras import execute_values

from dedp_assets.migrations import migrate
from dedp_assets.user_intake.parsing import Parsed
from dedp_assets.user_intake.raw_copies import Header

_MIGRATIONS = Path(__file__).with_name("migrations")
_PIPELINE = "user_intake"

# Two intakes take turns, so nobody writes between the comparison and the upsert. Readers do not wait.
_TAKE_TURNS = """
    LOCK TABLE dedp.users IN SHARE ROW EXCLUSIVE MODE;
    CREATE TEMP TABLE arrived (LIKE dedp.users) ON COMMIT DROP;
"""

# What a day has told of a user gives way to a later day, and to a later fetch of the same day.
_COMPARE = """
    CREATE TEMP TABLE compared ON COMMIT DROP AS
    SELECT
        arrived.*,
        CASE
            WHEN users.email IS NULL THEN 'inserted'
            WHEN (as_of.day, as_of.fetched_at) > (%(day)s::date, %(fetched_at)s::timestamptz) THEN 'superseded'
            WHEN (users.firstname, users.lastname, users.country, users.username)
                = (arrived.firstname, arrived.lastname, arrived.country, arrived.username) THEN 'unchanged'
            ELSE 'updated'
        END AS outcome,
        users.firstname <> arrived.firstname AS is_new_firstname,
        users.lastname <> arrived.lastname AS is_new_lastname,
        users.country <> arrived.country AS is_new_country,
        users.username <> arrived.username AS is_new_username
    FROM pg_temp.arrived AS arrived
    LEFT JOIN dedp.users AS users USING (email)
    LEFT JOIN dedp.users_as_of AS as_of USING (email);
"""

_UPSERT = """
    INSERT INTO dedp.users (firstname, lastname, country, username, email)
    SELECT firstname, lastname, country, username, email
    FROM pg_temp.compared
    WHERE outcome IN ('inserted', 'updated')
    ON CONFLICT (email) DO UPDATE SET
        firstname = EXCLUDED.firstname,
        lastname = EXCLUDED.lastname,
        country = EXCLUDED.country,
        username = EXCLUDED.username;

    INSERT INTO dedp.users_as_of (email, day, fetched_at)
    SELECT email, %(day)s, %(fetched_at)s
    FROM pg_temp.compared
    WHERE outcome <> 'superseded'
    ON CONFLICT (email) DO UPDATE SET day = EXCLUDED.day, fetched_at = EXCLUDED.fetched_at;
"""

_CHANGES = """
    SELECT
        count(*) FILTER (WHERE outcome = 'inserted'),
        count(*) FILTER (WHERE outcome = 'updated'),
        count(*) FILTER (WHERE outcome = 'unchanged'),
        count(*) FILTER (WHERE outcome = 'superseded'),
        count(*) FILTER (WHERE outcome = 'updated' AND is_new_firstname),
        count(*) FILTER (WHERE outcome = 'updated' AND is_new_lastname),
        count(*) FILTER (WHERE outcome = 'updated' AND is_new_country),
        count(*) FILTER (WHERE outcome = 'updated' AND is_new_username)
    FROM pg_temp.compared
"""

_RECORD = """
    INSERT INTO dedp.users_intakes (
        day, sha256, fetched_at, received, stored, quarantined, repeated, inserted, updated, unchanged, superseded
    )
    VALUES (
        %(day)s, %(sha256)s, %(fetched_at)s, %(received)s, %(stored)s, %(quarantined)s, %(repeated)s, %(inserted)s,
        %(updated)s, %(unchanged)s, %(superseded)s
    )
    ON CONFLICT (day) DO UPDATE SET
        sha256 = EXCLUDED.sha256, fetched_at = EXCLUDED.fetched_at, stored_at = EXCLUDED.stored_at,
        received = EXCLUDED.received, stored = EXCLUDED.stored, quarantined = EXCLUDED.quarantined,
        repeated = EXCLUDED.repeated, inserted = EXCLUDED.inserted, updated = EXCLUDED.updated,
        unchanged = EXCLUDED.unchanged, superseded = EXCLUDED.superseded
"""


class Changes(NamedTuple):
    """What storing has changed in `dedp.users`: the number of users, and for the updated ones the changed columns."""

    inserted: int
    updated: int
    unchanged: int
    superseded: int
    updated_columns: dict[str, int]


def ensure_tables(connection: Connection) -> None:
    """Apply the migrations that the database lacks. Raises WrongTables for one that is newer than this version."""
    migrate(connection, _PIPELINE, _MIGRATIONS)


def stored_versions(connection: Connection) -> dict[str, str]:
    """The version (SHA-256) of the raw copy that is stored for each day."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT day::text, sha256 FROM dedp.users_intakes")
        return dict(cursor.fetchall())


def store(connection: Connection, day: str, header: Header, parsed: Parsed) -> Changes:
    """Store the users of a day and replace its quarantine, and commit.

    A user that a later day has told of keeps the values of that day. To store the same copy again changes nothing.

    Args:
        connection: to the database, outside of a transaction.
        day: the partition.
        header: of the raw copy that the users come from.
        parsed: its users.
    """
    when = {"day": day, "fetched_at": header.fetched_at}
    with connection, connection.cursor() as cursor:
        cursor.execute(_TAKE_TURNS)
        execute_values(cursor, "INSERT INTO pg_temp.arrived VALUES %s", parsed.users, page_size=1000)
        cursor.execute("ANALYZE pg_temp.arrived")
        cursor.execute(_COMPARE, when)
        cursor.execute(_UPSERT, when)
        cursor.execute(_CHANGES)
        ((inserted, updated, unchanged, superseded, *columns),) = cursor.fetchall()
        cursor.execute("DELETE FROM dedp.users_quarantine WHERE day = %s", [day])
        execute_values(
            cursor,
            "INSERT INTO dedp.users_quarantine (day, number, reason, detail, raw_user) VALUES %s",
            [(day, *user) for user in parsed.set_aside],
            page_size=1000,
        )
        cursor.execute(
            _RECORD,
            {
                **when,
                "sha256": header.sha256,
                "received": parsed.received,
                "stored": len(parsed.users),
                "quarantined": len(parsed.set_aside),
                "repeated": parsed.repeated,
                "inserted": inserted,
                "updated": updated,
                "unchanged": unchanged,
                "superseded": superseded,
            },
        )
    names = ("firstname", "lastname", "country", "username")
    changed = {name: number for name, number in zip(names, columns, strict=True) if number}
    return Changes(inserted, updated, unchanged, superseded, changed)
