"""Whatever the API answers: what was received is stored or set aside, once, and a second time changes nothing."""

import json
from datetime import datetime, timezone
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection

from dedp_assets.user_intake.answers import read_page
from dedp_assets.user_intake.parsing import User, normal_email, parse_users
from dedp_assets.user_intake.raw_copies import Header
from dedp_assets.user_intake.storing import store
from tests.user_api import PASSWORD

DAY = "2024-01-01"
NOON = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)

# Few different ones, so that they meet; and any text that JSON can hold, with NUL and halves of surrogate pairs.
any_text = st.text(st.characters(exclude_categories=()))
names = st.sampled_from(["Ann", "Bo", "Zoë", "\u202e", "山田", "", " ", "A\0", "\ud83d", "x" * 201]) | any_text
emails = st.sampled_from(
    ["a@x.org", "A@x.org", " a@X.ORG ", "b@x.org", "ö@x.org", "o\u0308@x.org", "\ud83d@x.org", "x"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | any_text
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3)
)


def thing(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object that nearly always has these fields, and sometimes lacks some, or is something else."""
    whole = st.fixed_dictionaries(fields)
    return st.integers(0, 19).flatmap(
        lambda number: (
            json_values if number == 18 else st.fixed_dictionaries({}, optional=fields) if number == 19 else whole
        )
    )


users = thing(
    name=thing(first=names, last=st.just("Lee")),
    location=thing(country=st.sampled_from(["Norway", "Denmark"])),
    login=thing(username=st.just("ann"), password=st.just(PASSWORD)),
    email=emails | any_text,
    password=st.just(PASSWORD),
)


def distinct(kept: list[Any]) -> set[Any]:
    """What was received, each once: users by their five values with the email in its normal form, others as they are.

    Written anew: it knows nothing of the schema.
    """
    found: set[Any] = set()
    for user in kept:
        try:
            values = [user["name"]["first"], user["name"]["last"], user["location"]["country"]]
            values += [user["login"]["username"], user["email"]]
            is_text = all(isinstance(value, str) for value in values)
        except (TypeError, KeyError, IndexError):
            is_text = False
        if is_text:
            email = normal_email(values[4])
            good = all(value.strip() and len(value) <= 200 for value in values[:4])
            good = good and 0 < email.find("@") < len(email) - 1 and email.count("@") == 1 and len(email) <= 320
            good = good and not any(character.isspace() for character in email)
            good = good and not any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in "".join(values))
            if good:
                found.add((*values[:4], email))
                continue
        found.add(json.dumps(user, sort_keys=True))
    return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(users, max_size=12))
def test_stored_and_quarantined_are_what_was_received_and_again_changes_nothing(
    tables: Connection, answered: list[Any]
) -> None:
    with tables, tables.cursor() as cursor:
        cursor.execute("TRUNCATE dedp.users, dedp.users_as_of, dedp.users_quarantine, dedp.users_intakes")
    page = read_page(json.dumps({"results": answered}).encode())
    parsed = parse_users(page.users)
    header = Header(NOON, 1, len(answered), page.sha256)

    first = store(tables, DAY, header, parsed)
    with tables, tables.cursor() as cursor:
        cursor.execute("SELECT * FROM dedp.users")
        stored = {User(*row) for row in cursor.fetchall()}
        cursor.execute("SELECT number, reason, detail, raw_user FROM dedp.users_quarantine ORDER BY number")
        quarantined = cursor.fetchall()
    assert first.inserted == len(stored)
    assert len({user.email for user in stored}) == len(stored)
    assert len(stored) + len(quarantined) == len(distinct(page.users))
    assert parsed.received == len(answered) == len(stored) + len(quarantined) + parsed.repeated
    assert {tuple(user) for user in stored} <= distinct(page.users)
    assert PASSWORD not in str(page) + str(stored) + str(quarantined)

    assert store(tables, DAY, header, parse_users(page.users)) == (0, 0, len(stored), 0, {})
    with tables, tables.cursor() as cursor:
        cursor.execute("SELECT number, reason, detail, raw_user FROM dedp.users_quarantine ORDER BY number")
        assert cursor.fetchall() == quarantined


@given(emails | any_text)
def test_the_normal_form_of_an_email_is_its_own_normal_form(email: str) -> None:
    assert normal_email(normal_email(email)) == normal_email(email)
