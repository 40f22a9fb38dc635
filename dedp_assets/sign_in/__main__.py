"""`python -m dedp_assets.sign_in`: Dagster's web server behind the sign-in, with all options of `dagster-webserver`."""

import sys
from collections.abc import Sequence
from functools import partial

import psycopg2

from dedp_assets import settings
from dedp_assets.errors import DedpError, SettingError
from dedp_assets.sign_in import users
from dedp_assets.sign_in._dagster import serve
from dedp_assets.sign_in.database import Database
from dedp_assets.sign_in.gate import Gate


def main(arguments: Sequence[str]) -> None:
    """Serve until the process is ended. DEDP_DAGSTER_STORAGE says where the users are: beside Dagster's own tables."""
    dsn = settings.dagster_storage()
    if dsn is None:
        raise SettingError("DEDP_DAGSTER_STORAGE is not set; `dedp webserver` sets it, or name the database of Dagster")
    database = Database(dsn)
    with database.cursor() as cursor:
        if users.add_first(cursor, settings.admin_password()):
            print(f"The first user is {users.ADMIN}, with the password of the settings.", flush=True)
        if not users.names(cursor):
            print("Nobody can sign in. Make the first user: dedp users add NAME --role admin", flush=True)
    serve(arguments, database, partial(Gate, database))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DedpError as error:
        sys.exit(f"Error: {error}")
    except psycopg2.OperationalError as error:
        sys.exit(f"Error: PostgreSQL, of DEDP_DAGSTER_STORAGE: {' '.join(str(error).split())}")
