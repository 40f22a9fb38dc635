"""What a browser or a script shows instead of a password: sessions, API tokens, and browsers that a user has used.

All are 256 random bits. The database has their SHA-256 alone: who reads the database can't sign in with it.
Each function takes a cursor; the caller commits.
"""

import hashlib
import secrets
from datetime import timedelta

from psycopg2.extensions import cursor as Cursor

from dedp_assets.sign_in.roles import Role
from dedp_assets.sign_in.users import User

# A session ends after half a day without a request, and in any case after a week.
IDLE = timedelta(hours=12)
LONGEST = timedelta(days=7)
KNOWN_BROWSER = timedelta(days=180)
# How exact the end of an idle session is: each use need not write.
_NOTED = timedelta(minutes=1)

# So that one which was published by mistake can be searched for.
API_TOKEN_PREFIX = "dedp_"

_START = "INSERT INTO dedp_sign_in.sessions (token_sha256, user_name, address) VALUES (%s, %s, %s)"
_SESSION = """
    SELECT name, role, is_local, used_at < now() - %(noted)s
    FROM dedp_sign_in.sessions JOIN dedp_sign_in.users ON name = user_name
    WHERE token_sha256 = %(token)s AND used_at > now() - %(idle)s AND sessions.created_at > now() - %(longest)s
"""
_USED = "UPDATE dedp_sign_in.sessions SET used_at = now() WHERE token_sha256 = %s"
_API_TOKEN = """
    SELECT name, role, is_local
    FROM dedp_sign_in.api_tokens JOIN dedp_sign_in.users ON name = user_name
    WHERE token_sha256 = %s AND coalesce(expires_at > now(), true)
"""
_KNOWN_BROWSER = """
    SELECT FROM dedp_sign_in.known_browsers
    WHERE token_sha256 = %s AND user_name = %s AND created_at > now() - %s
"""
_FORGET = """
    DELETE FROM dedp_sign_in.sessions WHERE used_at < now() - %(idle)s OR created_at < now() - %(longest)s;
    DELETE FROM dedp_sign_in.known_browsers WHERE created_at < now() - %(known)s;
    DELETE FROM dedp_sign_in.api_tokens WHERE expires_at < now();
    DELETE FROM dedp_sign_in.wrong_passwords WHERE at < now() - interval '1 hour'
"""


def start(cursor: Cursor, user: str, address: str) -> str:
    """Start a session. Returns its token."""
    token = secrets.token_urlsafe(32)
    cursor.execute(_START, [sha256(token), user, address])
    return token


def forget(cursor: Cursor) -> None:
    """Delete what is over: sessions, API tokens, browsers of long ago, and wrong passwords that no longer count."""
    cursor.execute(_FORGET, {"idle": IDLE, "longest": LONGEST, "known": KNOWN_BROWSER})


def user_of(cursor: Cursor, token: str) -> User | None:
    """Whose session it is; `None` if there is no such session, or it is over."""
    values = {"token": sha256(token), "noted": _NOTED, "idle": IDLE, "longest": LONGEST}
    cursor.execute(_SESSION, values)
    found = cursor.fetchone()
    if found is None:
        return None
    name, role, is_local, is_to_be_noted = found
    if is_to_be_noted:
        cursor.execute(_USED, [sha256(token)])
    return User(name, Role[role], is_local)


def end(cursor: Cursor, token: str) -> None:
    """End a session."""
    cursor.execute("DELETE FROM dedp_sign_in.sessions WHERE token_sha256 = %s", [sha256(token)])


def new_api_token(cursor: Cursor, user: str, days: int | None) -> str:
    """Make a token for scripts. It has the role that the user has when it is used.

    Args:
        cursor: To the database.
        user: The user. There has to be one.
        days: For how many days; `None`: until it is ended.
    """
    token = API_TOKEN_PREFIX + secrets.token_urlsafe(32)
    cursor.execute(
        "INSERT INTO dedp_sign_in.api_tokens (token_sha256, user_name, expires_at) VALUES (%s, %s, now() + %s)",
        [sha256(token), user, timedelta(days=days) if days else None],
    )
    return token


def end_api_token(cursor: Cursor, token: str) -> None:
    """End an API token."""
    cursor.execute("DELETE FROM dedp_sign_in.api_tokens WHERE token_sha256 = %s", [sha256(token)])


def end_api_tokens(cursor: Cursor, user: str) -> int:
    """End all API tokens of a user. Returns how many there were."""
    cursor.execute("DELETE FROM dedp_sign_in.api_tokens WHERE user_name = %s", [user])
    return cursor.rowcount


def user_of_api_token(cursor: Cursor, token: str) -> User | None:
    """Whose API token it is; `None` if there is no such token, or it is over."""
    cursor.execute(_API_TOKEN, [sha256(token)])
    found = cursor.fetchone()
    return User(found[0], Role[found[1]], found[2]) if found else None


def remember_browser(cursor: Cursor, user: str) -> str:
    """Note that a user has signed in with a browser. Returns the token by which it is known."""
    token = secrets.token_urlsafe(32)
    cursor.execute(
        "INSERT INTO dedp_sign_in.known_browsers (token_sha256, user_name) VALUES (%s, %s)", [sha256(token), user]
    )
    return token


def known_browser(cursor: Cursor, user: str, token: str) -> bytes | None:
    """The hash of a browser's token, if this user has signed in with it before."""
    cursor.execute(_KNOWN_BROWSER, [sha256(token), user, KNOWN_BROWSER])
    return sha256(token) if cursor.rowcount else None


def sha256(token: str) -> bytes:
    """The hash of a token. It needs no salt and no slowness: a token can't be guessed."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
