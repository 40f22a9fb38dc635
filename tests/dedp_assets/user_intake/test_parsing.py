"""Which users are stored, and why the others are not."""

from typing import Any

import pytest

from dedp_assets.user_intake.answers import read_page
from dedp_assets.user_intake.parsing import Parsed, User, normal_email, parse_users
from tests.user_api import PASSWORD, user

GOOD = User("Ann 1", "Lee", "Norway", "ann1", "ann1@example.org")


def parsed(*users: Any) -> Parsed:
    """As the intake does it: from the body of an answer, by way of what is kept."""
    import json

    return parse_users(read_page(json.dumps({"results": users}).encode()).users)


def test_a_user_with_all_five_values_is_stored() -> None:
    assert parsed(user(1)) == Parsed(1, [GOOD], [], 0)


BAD = {
    "no email": ({"email": ...}, "missing field", "email: Field required"),
    "no name": ({"name": ...}, "missing field", "name: Field required"),
    "no last name": ({"name": {"first": "Ann"}}, "missing field", "name.last: Field required"),
    "a number as a name": ({"name": {"first": 7, "last": "Lee"}}, "wrong type", "name.first: Input should be a"),
    "a list as a name": ({"name": {"first": [PASSWORD], "last": "Lee"}}, "wrong type", "name.first: Input should"),
    "a text instead of an object": ({"login": PASSWORD}, "wrong type", "login: Input should be a valid dictionary"),
    "null": ({"location": None}, "wrong type", "location: Input should be a valid dictionary"),
    "an empty name": ({"name": {"first": " \t", "last": "Lee"}}, "empty", "name.first: is empty"),
    "a long name": ({"name": {"first": "x" * 201, "last": "Lee"}}, "too long", "is longer than 200 characters"),
    "a NUL": ({"name": {"first": "A\0", "last": "Lee"}}, "not storable", "name.first: has a NUL or half a"),
    "half a pair": ({"name": {"first": "\ud83d", "last": "Lee"}}, "not storable", "name.first: has a NUL or half a"),
    "half a pair in the email": ({"email": "\ud83d@b.c"}, "not an email", "email: is not an address"),
    "no address": ({"email": "ann at example.org"}, "not an email", "email: is not an address"),
    "two addresses": ({"email": "a@b.c, d@e.f"}, "not an email", "email: is not an address"),
    "a NUL in the email": ({"email": "a\0@b.c"}, "not an email", "email: is not an address"),
    "a long email": ({"email": "a" * 320 + "@b.c"}, "not an email", "email: is not an address"),
}


@pytest.mark.parametrize(("changed", "reason", "detail"), BAD.values(), ids=BAD)
def test_a_bad_user_is_set_aside_with_its_reason_and_stops_no_other(
    changed: dict[str, Any], reason: str, detail: str
) -> None:
    bad = {name: value for name, value in user(2, **changed).items() if value is not ...}
    found = parsed(bad, user(1))
    assert found.users == [GOOD]
    (aside,) = found.set_aside
    assert (aside.number, aside.reason) == (1, reason)
    assert detail in aside.detail
    assert PASSWORD not in str(found)
    assert aside.user.isascii()
    assert "\0" not in aside.user


@pytest.mark.parametrize("bad", [None, PASSWORD, 7, True, [PASSWORD], {}, [[]]])
def test_what_is_no_user_at_all_is_set_aside_without_its_values(bad: Any) -> None:
    found = parsed(bad, user(1))
    assert found.users == [GOOD]
    assert found.set_aside[0].reason in ("wrong type", "missing field")
    assert PASSWORD not in str(found)


def test_all_that_is_wrong_with_a_user_is_named() -> None:
    (aside,) = parsed(user(1, name={"first": 7}, email="x")).set_aside
    assert [part.split(":")[0] for part in aside.detail.split("; ")] == ["name.first", "name.last", "email"]


@pytest.mark.parametrize(
    "name", ["Zoë", "Zoe\u0308", "山田", "👩‍👩‍👧", "\u202eright to left", "O'Neil; DROP TABLE", "a\u0301" * 99]
)
def test_odd_names_stay_as_they_are(name: str) -> None:
    assert parsed(user(1, name={"first": name, "last": name})).users[0].firstname == name


def test_an_email_is_one_whatever_its_case_and_its_form_in_unicode() -> None:
    assert normal_email(" Zoe\u0308@Example.ORG\n") == normal_email("ZOË@example.org") == "zoë@example.org"
    assert normal_email("a.b+c@x.org") != normal_email("ab@x.org")
    assert normal_email("straße@x.org") != normal_email("strasse@x.org")


def test_the_same_user_twice_is_stored_once() -> None:
    again = user(1, email="ANN1@Example.org", nat="NO")
    assert parsed(user(1), again, user(1)) == Parsed(3, [GOOD], [], 2)


def test_of_several_users_with_one_email_the_last_one_is_stored_and_the_others_are_set_aside() -> None:
    moved = {"location": {"country": "Denmark"}}
    found = parsed(user(1), user(1, **moved), user(2), user(1, email="Ann1@example.org", **moved))
    assert found.users == [GOOD._replace(country="Denmark"), User("Ann 2", "Lee", "Norway", "ann2", "ann2@example.org")]
    (aside,) = found.set_aside
    assert (aside.number, aside.reason) == (1, "duplicate email")
    assert aside.detail == "user 4 of the same fetch has the same email and came later"
    assert (found.received, found.repeated) == (4, 1)


def test_a_user_that_comes_back_to_what_it_was_is_stored_so() -> None:
    found = parsed(user(1), user(1, location={"country": "Denmark"}), user(1))
    assert found.users == [GOOD]
    assert [aside.number for aside in found.set_aside] == [2]
    assert found.repeated == 1


def test_the_same_bad_user_twice_is_set_aside_once() -> None:
    found = parsed(user(1, email=7), user(1, email=7))
    assert (len(found.set_aside), found.repeated) == (1, 1)
