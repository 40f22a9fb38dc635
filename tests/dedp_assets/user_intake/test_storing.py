"""The upsert by email: what it changes, what it says, and that no older fetch overwrites a newer one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.user_intake.parsing import parse_users
from dedp_assets.user_intake.raw_copies import Header
from dedp_assets.user_intake.storing import Changes, ensure_tables, store, stored_versions
from tests.user_api import user

MONDAY, TUESDAY = "2024-01-01", "2024-01-02"
NOON = datetime(2024, 1, 2, 12, tzinfo=timezone.utc)


def take_in(tables: Connection, *users: Any, day: str = MONDAY, at: datetime = NOON, version: str = "a") -> Changes:
    parsed = parse_users(users)
    return store(tables, day, Header(at, 1, len(users), version * 64), parsed)


def rows(tables: Connection, sql: str) -> list[tuple[Any, ...]]:
    with tables, tables.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def countries(tables: Connection) -> dict[str, str]:
    return dict(rows(tables, "SELECT username, country FROM dedp.users"))


def moved(number: int, country: str) -> dict[str, Any]:
    return user(number, location={"country": country})


def test_the_table_has_the_columns_that_others_rely_on_and_its_key_is_the_email(tables: Connection) -> None:
    columns = rows(
        tables,
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = 'dedp' AND table_name = 'users' ORDER BY ordinal_position",
    )
    assert [name for (name,) in columns] == ["firstname", "lastname", "country", "username", "email"]
    take_in(tables, user(1))
    with pytest.raises(psycopg2.errors.UniqueViolation), tables, tables.cursor() as cursor:
        cursor.execute("INSERT INTO dedp.users SELECT * FROM dedp.users")


def test_storing_says_what_has_changed(tables: Connection) -> None:
    assert take_in(tables, user(1), user(2)) == Changes(2, 0, 0, 0, {})
    changes = take_in(tables, user(1, email="ANN1@example.org"), moved(2, "Denmark"), user(3), day=TUESDAY)
    assert changes == Changes(1, 1, 1, 0, {"country": 1})
    assert countries(tables) == {"ann1": "Norway", "ann2": "Denmark", "ann3": "Norway"}


def test_storing_the_same_copy_again_changes_nothing(tables: Connection) -> None:
    take_in(tables, user(1), user(2, email=7))
    before = rows(tables, "SELECT users.*, users.ctid, users.xmin::text FROM dedp.users")
    assert take_in(tables, user(1), user(2, email=7)) == Changes(0, 0, 1, 0, {})
    assert rows(tables, "SELECT users.*, users.ctid, users.xmin::text FROM dedp.users") == before
    assert len(rows(tables, "SELECT * FROM dedp.users_quarantine")) == 1


def test_a_day_replaces_its_own_quarantine_and_no_other(tables: Connection) -> None:
    take_in(tables, user(1, email=7), user(2))
    take_in(tables, user(3, email=7), day=TUESDAY)
    take_in(tables, user(1), user(2))
    assert rows(tables, "SELECT day::text, reason FROM dedp.users_quarantine") == [(TUESDAY, "wrong type")]


def test_an_older_day_that_comes_later_does_not_overwrite_a_newer_one(tables: Connection) -> None:
    take_in(tables, moved(1, "Denmark"), day=TUESDAY)
    changes = take_in(tables, moved(1, "Sweden"), user(2), day=MONDAY, at=NOON + timedelta(days=9))
    assert changes == Changes(1, 0, 0, 1, {})
    assert countries(tables) == {"ann1": "Denmark", "ann2": "Norway"}


def test_of_two_fetches_of_a_day_the_later_one_counts_in_whatever_order_they_are_stored(tables: Connection) -> None:
    take_in(tables, moved(1, "Denmark"), at=NOON)
    assert take_in(tables, moved(1, "Sweden"), at=NOON - timedelta(hours=1)).superseded == 1
    assert take_in(tables, moved(1, "Iceland"), at=NOON + timedelta(hours=1)).updated == 1
    assert countries(tables) == {"ann1": "Iceland"}


def test_an_unchanged_user_is_still_one_that_the_later_day_has_told_of(tables: Connection) -> None:
    take_in(tables, user(1), day=MONDAY)
    take_in(tables, user(1), day=TUESDAY)
    assert take_in(tables, moved(1, "Sweden"), day=MONDAY, at=NOON + timedelta(days=1)).superseded == 1
    assert countries(tables) == {"ann1": "Norway"}


def test_a_user_who_is_not_in_the_api_any_more_stays(tables: Connection) -> None:
    take_in(tables, user(1), user(2), day=MONDAY)
    take_in(tables, user(2), day=TUESDAY)
    assert set(countries(tables)) == {"ann1", "ann2"}


def test_a_user_whom_somebody_has_deleted_or_put_in_by_hand_is_taken_in_like_any_other(tables: Connection) -> None:
    take_in(tables, user(1), day=TUESDAY)
    rows(tables, "DELETE FROM dedp.users RETURNING 1")
    assert take_in(tables, user(1), day=MONDAY).inserted == 1
    rows(tables, "INSERT INTO dedp.users VALUES ('by', 'hand', 'x', 'ann2', 'ann2@example.org') RETURNING 1")
    assert take_in(tables, user(2), day=MONDAY).updated == 1


def test_what_is_stored_of_each_day_is_known_by_its_version(tables: Connection) -> None:
    take_in(tables, user(1), day=MONDAY, version="a")
    take_in(tables, user(1), day=TUESDAY, version="b")
    take_in(tables, user(1), day=MONDAY, version="c")
    assert stored_versions(tables) == {MONDAY: "c" * 64, TUESDAY: "b" * 64}


def test_days_that_are_stored_at_once_take_turns_and_the_newest_one_is_what_stays(tables: Connection, dsn: str) -> None:
    days = [f"2024-01-{day:02}" for day in range(1, 9)]

    def one(day: str) -> None:
        with closing(psycopg2.connect(dsn)) as connection:
            ensure_tables(connection)
            # In another order for each day: without turns, this would be a deadlock.
            users = [moved(number, day) for number in range(300)]
            take_in(connection, *(users if int(day[-1]) % 2 else reversed(users)), day=day)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, days))
    assert set(countries(tables).values()) == {days[-1]}
    assert len(countries(tables)) == 300
    assert len(stored_versions(tables)) == 8


@contextmanager
def failing_at_the_end(tables: Connection) -> Iterator[None]:
    rows(tables, "ALTER TABLE dedp.users_intakes ADD CONSTRAINT none CHECK (false) NOT VALID; SELECT 1")
    yield
    rows(tables, "ALTER TABLE dedp.users_intakes DROP CONSTRAINT none; SELECT 1")


def test_a_day_is_stored_as_a_whole_or_not_at_all(tables: Connection) -> None:
    take_in(tables, user(1), user(2, email=7))
    with failing_at_the_end(tables), pytest.raises(psycopg2.errors.CheckViolation):
        take_in(tables, moved(1, "Sweden"), user(3), version="b")
    assert countries(tables) == {"ann1": "Norway"}
    assert len(rows(tables, "SELECT * FROM dedp.users_quarantine")) == 1
    assert stored_versions(tables) == {MONDAY: "a" * 64}


def test_a_thousand_users_more_than_one_statement_takes_are_all_stored(tables: Connection) -> None:
    assert take_in(tables, *(user(number) for number in range(2500))).inserted == 2500
