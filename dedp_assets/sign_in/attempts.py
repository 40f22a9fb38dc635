"""Attempts to sign in with a password: throttled, and as slow for an unknown user as for a known one."""

import hashlib
import secrets
from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor

from dedp_assets.sign_in import passwords, users
from dedp_assets.sign_in.throttling import Bucket
from dedp_assets.sign_in.users import User

# It is filled before the password is compared: attempts at the same time are not more than those in a row. What finds
# no room does not fill: however many come, one is taken each so many seconds.
_FILL = """
    INSERT INTO dedp_sign_in.wrong_passwords AS before (bucket, level) VALUES (%(bucket)s, 1)
    ON CONFLICT (bucket) DO UPDATE SET (at, level, is_taken) = (
        SELECT now(), CASE WHEN drained + 1 <= %(size)s THEN drained + 1 ELSE drained END, drained + 1 <= %(size)s
        FROM greatest(0, before.level - extract(epoch FROM now() - before.at) / %(seconds)s) AS drained
    )
    RETURNING is_taken, level
"""
_GIVE_BACK = "UPDATE dedp_sign_in.wrong_passwords SET level = greatest(0, level - 1) WHERE bucket = ANY(%s)"


# How many right passwords a process remembers.
_REMEMBERED = 1000


class TooManyAttempts(Exception):
    """The password was not even compared.

    Attributes:
        seconds: After how long another attempt is taken.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Attempts:
    """Compares passwords.

    Scripts send the same one each time, and to compare it takes long. So the right ones are remembered, hashed with a
    key of this process. An attempt with one of them fills the buckets like any other: else they could be guessed.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: set[bytes] = set()

    def user_of(self, cursor: Cursor, name: str, password: str, buckets: Sequence[Bucket]) -> User | None:
        """The user with a name and a password; `None` if there is none.

        Args:
            cursor: To the database.
            name: The name that was entered.
            password: The password that was entered.
            buckets: What the attempt fills, if the password is wrong.

        Raises:
            TooManyAttempts: There were too many wrong ones before.
        """
        for bucket in buckets:
            _fill(cursor, bucket)
        found = users.find(cursor, name)
        stored = found[1] if found else None
        digest = self._digest(name, password, stored or "")
        if digest not in self._right and not passwords.is_right(password, stored):
            return None
        assert found
        assert stored
        cursor.execute(_GIVE_BACK, [[bucket.name for bucket in buckets]])
        if passwords.is_outdated(stored):
            users.renew_hash(cursor, name, password, stored)
        if len(self._right) > _REMEMBERED:
            self._right.clear()
        self._right.add(digest)
        return found[0]

    def _digest(self, name: str, password: str, stored: str) -> bytes:
        # With the stored hash: another password makes the old one wrong at once.
        parts = "\0".join((name, stored, password)).encode(errors="surrogateescape")
        return hashlib.blake2b(parts, key=self._key, digest_size=32).digest()


def _fill(cursor: Cursor, bucket: Bucket) -> None:
    cursor.execute(_FILL, {"bucket": bucket.name, "size": bucket.size, "seconds": bucket.seconds})
    ((is_taken, level),) = cursor.fetchall()
    if not is_taken:
        raise TooManyAttempts(bucket.seconds * (level + 1 - bucket.size))
