"""The users in PostgreSQL. Each function takes a cursor; the caller commits."""

import re
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor

from dedp_assets.sign_in import passwords
from dedp_assets.sign_in.errors import UserError
from dedp_assets.sign_in.roles import Role

# A name stands in logs, tags and tables.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,62}")

# The user of `dedp up`. Everybody knows the password, so it is taken on the same machine only.
LOCAL_NAME = LOCAL_PASSWORD = "dedp"
ADMIN = "admin"

# Ada and ada look the same to who reads a log.
_ADD = """
    INSERT INTO dedp_sign_in.users (name, password_hash, role, is_local)
    SELECT %(name)s, %(hash)s, %(role)s, %(is_local)s
    WHERE NOT EXISTS (SELECT FROM dedp_sign_in.users WHERE lower(name) = lower(%(name)s))
    ON CONFLICT (name) DO NOTHING
"""
_FIND = "SELECT name, role, is_local, password_hash FROM dedp_sign_in.users WHERE name = %s"
_ALL = """
    SELECT name, role, is_local, created_at::timestamp(0),
           (SELECT max(used_at)::timestamp(0) FROM dedp_sign_in.sessions WHERE user_name = name),
           (SELECT count(*) FROM dedp_sign_in.api_tokens
            WHERE user_name = name AND coalesce(expires_at > now(), true))
    FROM dedp_sign_in.users ORDER BY name
"""
# Whoever knows the old password is out, also with a session that is under way.
_SET_PASSWORD = """
    WITH ended AS (DELETE FROM dedp_sign_in.sessions WHERE user_name = %(name)s),
         forgotten AS (DELETE FROM dedp_sign_in.known_browsers WHERE user_name = %(name)s)
    UPDATE dedp_sign_in.users SET password_hash = %(hash)s, is_local = false WHERE name = %(name)s
"""
_REHASH = "UPDATE dedp_sign_in.users SET password_hash = %s WHERE name = %s AND password_hash = %s"


class User(NamedTuple):
    """Who sends a request.

    Attributes:
        name: The name.
        role: What the user may do.
        is_local: Whether it is the one of `dedp up`, with the password that everybody knows.
    """

    name: str
    role: Role
    is_local: bool = False


def add(cursor: Cursor, name: str, password: str, role: Role) -> None:
    """Make a user. Raises UserError if the name is taken, or the name or the password can't be used."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} can't be the name of a user; expected up to 63 letters without accents, digits, `_`, `.`, `@`, "
            "`+` and `-`, and first a letter or a digit"
        )
    if not _added(cursor, name, passwords.checked(password, name), role):
        raise UserError(
            f"there is a user {name} already, perhaps with other capitals; `dedp users list` shows all, and "
            f"`dedp users password {name}` sets another password"
        )


def add_first(cursor: Cursor, admin_password: str | None) -> bool:
    """Make the user `admin` with a password from the settings, if nobody but the user of `dedp up` is there."""
    cursor.execute("SELECT FROM dedp_sign_in.users WHERE NOT is_local LIMIT 1")
    if admin_password is None or cursor.rowcount:
        return False
    return _added(cursor, ADMIN, passwords.checked(admin_password, ADMIN), Role.admin)


def add_local(cursor: Cursor) -> bool:
    """Make the user of `dedp up`, if there is no user. Returns whether the known password is taken."""
    cursor.execute("SELECT FROM dedp_sign_in.users LIMIT 1")
    if not cursor.rowcount:
        _added(cursor, LOCAL_NAME, LOCAL_PASSWORD, Role.admin, is_local=True)
    cursor.execute("SELECT FROM dedp_sign_in.users WHERE is_local")
    return bool(cursor.rowcount)


def _added(cursor: Cursor, name: str, password: str, role: Role, is_local: bool = False) -> bool:
    values = {"name": name, "hash": passwords.hashed(password), "role": role.name, "is_local": is_local}
    cursor.execute(_ADD, values)
    return bool(cursor.rowcount)


def names(cursor: Cursor) -> list[str]:
    """The names of all users."""
    cursor.execute("SELECT name FROM dedp_sign_in.users ORDER BY name")
    return [name for (name,) in cursor.fetchall()]


def find(cursor: Cursor, name: str) -> tuple[User, str] | None:
    """The user of a name, and the hash of the password; `None` if there is no such user."""
    if "\0" in name:  # PostgreSQL has no such text
        return None
    cursor.execute(_FIND, [name])
    found = cursor.fetchone()
    return (User(found[0], Role[found[1]], found[2]), found[3]) if found else None


def set_password(cursor: Cursor, name: str, password: str) -> None:
    """Set another password, and end the sessions of the user. Raises UserError if there is no such user."""
    new_hash = passwords.hashed(passwords.checked(password, name))
    cursor.execute(_SET_PASSWORD, {"name": name, "hash": new_hash})
    _check_found(cursor, name)


def renew_hash(cursor: Cursor, name: str, password: str, stored: str) -> None:
    """Replace a hash with parameters of an earlier time, unless the password was changed meanwhile."""
    cursor.execute(_REHASH, [passwords.hashed(password), name, stored])


def set_role(cursor: Cursor, name: str, role: Role) -> None:
    """Give a user another role, from the next request on. Raises UserError if there is no such user."""
    cursor.execute("UPDATE dedp_sign_in.users SET role = %s WHERE name = %s", [role.name, name])
    _check_found(cursor, name)


def remove(cursor: Cursor, name: str) -> None:
    """Remove a user, with sessions and API tokens. Raises UserError if there is no such user."""
    cursor.execute("DELETE FROM dedp_sign_in.users WHERE name = %s", [name])
    _check_found(cursor, name)


def rows(cursor: Cursor) -> list[tuple[str, ...]]:
    """Of each user: name, role, what else there is to know, when made, when last seen in a browser, API tokens."""
    cursor.execute(_ALL)
    return [
        (name, role, "this machine only" if is_local else "", str(made), str(seen or "never"), str(tokens))
        for name, role, is_local, made, seen, tokens in cursor.fetchall()
    ]


def _check_found(cursor: Cursor, name: str) -> None:
    if not cursor.rowcount:
        raise UserError(f"there is no user {name}; `dedp users list` shows all")
