"""The users of the web server of a system on this machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dedp_assets import settings
from dedp_assets.sign_in import sessions, users
from dedp_assets.sign_in.database import connected


@contextmanager
def users_of(shared: Mapping[str, str]) -> Iterator[tuple[bool, str]]:
    """See to it that somebody can sign in: the user of the settings, or dedp with the password dedp.

    Args:
        shared: the environment variables of the system.

    Yields:
        Whether dedp can sign in with that password, on this machine; and an HTTP header Authorization for the block.
    """
    dsn = shared["DEDP_DAGSTER_STORAGE"]
    with connected(dsn) as cursor:
        users.add_first(cursor, settings.admin_password())
        has_local_user = users.add_local(cursor)
        token = sessions.new_api_token(cursor, users.names(cursor)[0], days=1)
    try:
        yield has_local_user, f"Bearer {token}"
    finally:
        with connected(dsn) as cursor:
            sessions.end_api_token(cursor, token)


def without_passwords(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables without the password of the first user: it is made, and runs need not read it."""
    return {name: value for name, value in environment.items() if not name.startswith("DEDP_ADMIN_PASSWORD")}
