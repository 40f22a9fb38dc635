"""How many wrong passwords are taken, and how soon again.

Each attempt fills leaky buckets: that of the user's name, and that of the address it comes from. Time empties them.
So after an attack, of any length, its victim waits some seconds at most. During an attack a user can sign in with a
browser that the user has used before: it has a bucket of its own. Sessions and API tokens never wait.
"""

import hashlib
import ipaddress
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bucket:
    """What an attempt fills.

    Attributes:
        name: Its name in the table.
        size: How many attempts in a row are taken.
        seconds: After how long another one is.
    """

    name: str
    size: int
    seconds: float


def buckets(user: str, address: str, known_browser: bytes | None) -> list[Bucket]:
    """The buckets of an attempt to sign in.

    Args:
        user: The name that was entered. There need not be such a user.
        address: Where it comes from.
        known_browser: The token of a browser that this user has signed in with, hashed; `None` if it is another one.
    """
    if known_browser is not None:
        return [Bucket(f"browser {known_browser.hex()}", 10, 5)]
    # More than one user may share an address: a company, or a proxy that does not tell the address of its client.
    return [
        Bucket(f"address {network(address)}", 30, 3),
        # A name may be of any length, and have any characters.
        Bucket(f"user {hashlib.sha256(user.encode()).hexdigest()}", 10, 10),
    ]


def network(address: str) -> str:
    """The network that one customer has: an IPv4 address, or 64 bits of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)


class Sample:
    """Which of many like entries the log gets, so that nobody fills the disk with it.

    So many in a row, then one each so many seconds. That one says how many were left out before it.
    """

    def __init__(self, size: int, seconds: float) -> None:
        """Take all at first.

        Args:
            size: How many in a row are taken.
            seconds: After how long another one is.
        """
        self._size, self._seconds = size, seconds
        # Of each kind: how full it is, since when, and how many were left out.
        self._kinds: dict[Hashable, tuple[float, float, int]] = {}

    def take(self, kind: Hashable, at: float) -> int | None:
        """Whether one more is taken.

        Args:
            kind: What it is like. There should not be many kinds.
            at: When it comes, in s, on a clock that does not go back.

        Returns:
            How many of its kind were left out since the one before; `None`: this one is left out, too.
        """
        level, before, left_out = self._kinds.get(kind, (0.0, at, 0))
        drained = max(0.0, level - (at - before) / self._seconds)
        if drained + 1 > self._size:
            self._kinds[kind] = drained, at, left_out + 1
            return None
        self._kinds[kind] = drained + 1, at, 0
        return left_out
