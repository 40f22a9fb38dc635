"""Reads the body of one answer of the API, and keeps the fields that we need. Passwords never leave this module.

The fields are a list of what may stay, not of what has to go. A field that the API adds later stays out by itself, and
so does a password at a place where nobody expects one.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from dedp_assets.errors import TransientError

# What is kept of a user. A name without fields below it is a single value.
_KEPT: Mapping[str, Any] = {
    "name": {"first": None, "last": None},
    "location": {"country": None},
    "login": {"username": None},
    "email": None,
}

_EXPECTED = 'expected JSON such as {"results": [{"name": ..., "email": ...}, ...]}'


class WrongAnswer(TransientError):
    """The answer has no users in it, whatever its status says. The API may be under maintenance; ask again later.

    The message does not quote the answer, which may have passwords in it.
    """


class Page(NamedTuple):
    """The users of one answer.

    Attributes:
        users: what is kept of each. A user that has another form than expected keeps that form, without its values.
        sha256: of the users as they came. Two answers with the same users have the same one.
    """

    users: list[Any]
    sha256: str


def read_page(body: bytes, content_type: str = "") -> Page:
    """Read the body of one answer.

    Args:
        body: the whole body.
        content_type: the header of that name, for the message of an error.

    Raises:
        WrongAnswer: it is not JSON, or has no list of users.
    """
    try:
        answer = json.loads(body)
        users = answer["results"] if isinstance(answer, dict) and "results" in answer else None
        digest = hashlib.sha256(json.dumps(users).encode()).hexdigest()
    except (ValueError, RecursionError):
        raise WrongAnswer(f"the answer is {_looks_like(body, content_type)}; {_EXPECTED}") from None
    if not isinstance(users, list):
        found = f"{_kind(answer)} without `results`" if users is None else f"{_kind(users)} as `results`"
        raise WrongAnswer(f"the answer has {found}; {_EXPECTED}")
    return Page([_only_kept(user, _KEPT) for user in users], digest)


def _only_kept(value: Any, fields: Mapping[str, Any] | None) -> Any:
    if fields is None:
        # The empty value of the same type says enough to tell what is wrong with it.
        return type(value)() if isinstance(value, dict | list) else value
    if not isinstance(value, dict):
        return type(value)()
    return {name: _only_kept(value[name], below) for name, below in fields.items() if name in value}


def _looks_like(body: bytes, content_type: str) -> str:
    if "html" in content_type.lower() or body.lstrip()[:1] == b"<":
        return "a page for a browser (HTML)"
    return f"not JSON, or not all of it ({len(body):,} bytes)" if body else "empty"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
