"""Passwords as Argon2id hashes, which carry the parameters they were made with."""

import secrets
from functools import cache
from typing import TYPE_CHECKING

from dedp_assets.sign_in.errors import UserError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST = 8
# The work must not grow with what a stranger sends.
LONGEST = 256

# What OWASP recommends: 19 MiB, two passes, one thread. It takes about 20 ms. RFC 9106 would take 64 MiB each time.
_MEMORY_KIB, _PASSES, _THREADS = 19 * 1024, 2, 1


def checked(password: str, user: str) -> str:
    """Return a new password, or raise UserError if it is too short, too long, or the name of its user."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise UserError(
            f"the password of {user} has {len(password)} characters; expected {SHORTEST} to {LONGEST}, "
            "such as some words that nobody would put together"
        )
    if password.casefold() == user.casefold():
        raise UserError(f"the password of {user} is the name; choose another one")
    return password


def hashed(password: str) -> str:
    """The hash of a password, with its salt and its parameters."""
    return _hasher().hash(password)


def is_right(password: str, stored: str | None) -> bool:
    """Whether a password is the one of a hash. It takes as long if there is no such user, or the password is too long.

    Args:
        password: What somebody has entered.
        stored: The hash of the user's password; `None` if there is no such user.
    """
    from argon2.exceptions import InvalidHashError, VerificationError

    can_match = stored is not None and len(password) <= LONGEST
    try:
        return _hasher().verify(stored if stored and can_match else _nobodys(), password[:LONGEST]) and can_match
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(stored: str) -> bool:
    """Whether a hash was made with other parameters than those of today. It is replaced at the next sign-in."""
    return _hasher().check_needs_rehash(stored)


@cache
def _hasher() -> "PasswordHasher":
    # Not at the top: what only asks for a token need not wait for it.
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_THREADS)


@cache
def _nobodys() -> str:
    """A hash that is compared if there is no user, so that the answer takes as long."""
    return hashed(secrets.token_urlsafe())
