"""Checks each user of a fetch, and sorts them: to be stored, to be set aside with a reason, or here already."""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

# In characters. An index of PostgreSQL takes 2,700 bytes, and a character up to four of them.
_LONGEST_TEXT, _LONGEST_EMAIL = 200, 320

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def normal_email(email: str) -> str:
    """The form of an email by which users are told apart: without space around it, in small letters, in Unicode's NFC.

    Small letters by Unicode's rule for each letter (`str.lower`). The part before the @ is not changed otherwise: dots
    and what stands after a + belong to it.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email.strip()).lower())


# JSON may have both; PostgreSQL can store neither.
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


def _storable(text: str) -> str:
    if _NOT_STORABLE.search(text):
        raise PydanticCustomError("not_storable", "has a NUL or half a surrogate pair, which PostgreSQL can't store")
    if not text.strip():
        raise PydanticCustomError("empty", "is empty")
    if len(text) > _LONGEST_TEXT:
        raise PydanticCustomError("too_long", "is longer than {longest} characters", {"longest": _LONGEST_TEXT})
    return text


def _email(text: str) -> str:
    email = normal_email(text)
    if _NOT_STORABLE.search(email) or len(email) > _LONGEST_EMAIL or not _EMAIL.fullmatch(email):
        raise PydanticCustomError("not_an_email", "is not an address such as ann@example.org")
    return email


Text = Annotated[str, AfterValidator(_storable)]


class _Part(BaseModel):
    # Strict: a number is not a name. The values do not stand in errors.
    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


class _Name(_Part):
    first: Text
    last: Text


class _Location(_Part):
    country: Text


class _Login(_Part):
    username: Text


class _User(_Part):
    name: _Name
    location: _Location
    login: _Login
    email: Annotated[str, AfterValidator(_email)]


class User(NamedTuple):
    """A row of `dedp.users`. The email is in its normal form."""

    firstname: str
    lastname: str
    country: str
    username: str
    email: str


class SetAside(NamedTuple):
    """A user that can't be stored.

    Attributes:
        number: its place in the fetch, from 1 on.
        reason: one of a few, to group by.
        detail: for people; does not repeat values.
        user: what the raw copy has of it, as JSON in ASCII.
    """

    number: int
    reason: str
    detail: str
    user: str


class Parsed(NamedTuple):
    """The users of a fetch: received = stored + set aside + repeated.

    Attributes:
        received: how many there were.
        users: to be stored; no two have the same email.
        set_aside: those that can't be, in the order in which they came.
        repeated: how many were the same as another one in all that is kept.
    """

    received: int
    users: list[User]
    set_aside: list[SetAside]
    repeated: int


def parse_users(raw_users: Iterable[Any]) -> Parsed:
    """Check each user.

    Of several users with one email the last one is stored: it is what the API said last. The others are set aside. An
    API whose users move from page to page while we read may tell of a user twice, so this is not always its fault.
    """
    received = 0
    good: dict[str, dict[User, tuple[int, Any]]] = {}  # by email; of equal users the last one, in that order
    bad: dict[str, SetAside] = {}
    for received, raw in enumerate(raw_users, start=1):
        try:
            user = _flat(_User.model_validate(raw))
        except ValidationError as error:
            text = _as_json(raw)
            bad.setdefault(text, SetAside(received, *_explain(error.errors()), text))
        else:
            same_email = good.setdefault(user.email, {})
            same_email.pop(user, None)
            same_email[user] = (received, raw)
    users = []
    superseded = []
    for same_email in good.values():
        *earlier, (user, (number, _)) = same_email.items()
        users.append(user)
        detail = f"user {number} of the same fetch has the same email and came later"
        superseded += [SetAside(place, "duplicate email", detail, _as_json(raw)) for _, (place, raw) in earlier]
    set_aside = sorted([*bad.values(), *superseded])
    return Parsed(received, users, set_aside, received - len(users) - len(set_aside))


def _flat(user: _User) -> User:
    return User(user.name.first, user.name.last, user.location.country, user.login.username, user.email)


def _explain(errors: list[ErrorDetails]) -> tuple[str, str]:
    """The reason and the detail. The reason is that of the first error, the detail names all of them."""
    details = []
    for error in errors:
        field = ".".join(map(str, error["loc"])) or "the user"
        details.append(f"{field}: {error['msg']}")
    return _reason(errors[0]["type"]), "; ".join(details)


def _reason(kind: str) -> str:
    if kind == "missing":
        return "missing field"
    if kind.endswith("_type"):
        return "wrong type"
    return kind.replace("_", " ")


def _as_json(raw: Any) -> str:
    # ASCII, so that PostgreSQL can store every text: a NUL stands as \u0000.
    return json.dumps(raw, sort_keys=True)
