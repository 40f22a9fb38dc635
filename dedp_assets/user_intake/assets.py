"""`users/raw` and `users/users`: what the API answered on a day, and the users that are known."""

from collections import Counter
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from psycopg2.extensions import connection as Connection

from dedp_assets import partition_runs, settings
from dedp_assets.errors import SettingError
from dedp_assets.failures import named_failures
from dedp_assets.resources.postgres import PostgresResource
from dedp_assets.user_intake import contract
from dedp_assets.user_intake.parsing import Parsed, parse_users
from dedp_assets.user_intake.raw_copies import read_copy, write_copy
from dedp_assets.user_intake.storing import Changes, ensure_tables, store

_OWNERS = ["team:user-intake"]
_NEVER_EMPTY = "Never empty. A user without it is not stored; it goes to dedp.users_quarantine."


@dg.asset(
    key=contract.RAW,
    partitions_def=contract.DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="user_intake",
    owners=_OWNERS,
    kinds={"json", "file"},
)
def raw(context: dg.AssetExecutionContext) -> partition_runs.AssetResult:
    """What the API of DEDP_USERS_API answers now, as the copy of the run's day: every page, without passwords.

    A second fetch of a day replaces the day's copy. The API does not tell how users were on an earlier day, so all days
    of a run get the same pages.
    """
    # Not at the top: httpx takes half a second to import, and only runs that fetch need it.
    from dedp_assets.user_intake.fetching import fetch_users

    with named_failures(context.log):
        url = settings.users_api()
        if url is None:
            raise SettingError(
                "DEDP_USERS_API is not set; expected the URL of the endpoint that has the users, such as "
                "http://127.0.0.1:8123/api/ (`dedp serve-users` makes one to try)"
            )
        fetched_at = datetime.now(timezone.utc)
        fetched = fetch_users(url, log=context.log.warning)

        def write(day: str) -> partition_runs.Materialized:
            header = write_copy(contract.raw_copy(day), fetched_at, fetched.pages)
            context.log.info(f"{day}: {header.users:,} users on {header.pages:,} pages")
            return partition_runs.Materialized(
                header.sha256,
                {
                    "users": header.users,
                    "pages": header.pages,
                    "pages_repeated": fetched.repeated,
                    "attempts_failed": fetched.attempts_failed,
                    "size_bytes": fetched.size_bytes,
                    "fetched_at": dg.MetadataValue.timestamp(fetched_at),
                    "path": dg.MetadataValue.path(contract.raw_copy(day)),
                },
            )

        return partition_runs.materialize_each(context, write)


@dg.asset(
    key=contract.USERS,
    deps=[contract.RAW],
    partitions_def=contract.DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="user_intake",
    owners=_OWNERS,
    kinds={"postgres", "table"},
    metadata={
        "dagster/table_name": "dedp.users",
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn("firstname", "text", f"`name.first` of the API. {_NEVER_EMPTY}"),
                dg.TableColumn("lastname", "text", f"`name.last` of the API. {_NEVER_EMPTY}"),
                dg.TableColumn("country", "text", f"`location.country` of the API. {_NEVER_EMPTY}"),
                dg.TableColumn("username", "text", f"`login.username` of the API. {_NEVER_EMPTY}"),
                dg.TableColumn("email", "text", "The key: `email` of the API, in small letters. Never empty."),
            ]
        ),
    },
    # Only errors that may pass are retried: the server restarts, a connection breaks.
    retry_policy=dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL),
)
def users(context: dg.AssetExecutionContext, postgres: PostgresResource) -> partition_runs.AssetResult:
    """All users that any day has told of, as the latest of these days says. A partition is one day's share in it.

    An upsert by email. Users that can't be stored go to `dedp.users_quarantine` with their reason. A user whom the API
    does not have any more stays.
    """
    with named_failures(context.log), postgres.connect() as connection:
        ensure_tables(connection)
        return partition_runs.materialize_each(context, lambda day: _store(context, connection, day))


def _store(context: dg.AssetExecutionContext, connection: Connection, day: str) -> partition_runs.Materialized:
    header, raw_users = read_copy(contract.raw_copy(day))
    parsed = parse_users(raw_users)
    changes = store(connection, day, header, parsed)
    context.log.info(f"{day}: {summary(parsed, changes)}")
    return partition_runs.Materialized(header.sha256, _metadata(parsed, changes))


def summary(parsed: Parsed, changes: Changes) -> str:
    """One line about a day: how many users were received, what has changed, and how many were set aside."""
    return (
        f"{parsed.received:,} users received: {changes.inserted:,} inserted, {changes.updated:,} updated, "
        f"{changes.unchanged:,} unchanged, {changes.superseded:,} superseded by a later day, "
        f"{len(parsed.set_aside):,} quarantined, {parsed.repeated:,} repeated"
    )


def _metadata(parsed: Parsed, changes: Changes) -> dict[str, Any]:
    reasons = Counter(user.reason for user in parsed.set_aside)
    return {
        "users_received": parsed.received,
        "users_inserted": changes.inserted,
        "users_updated": changes.updated,
        "users_unchanged": changes.unchanged,
        "users_superseded": changes.superseded,
        "users_quarantined": len(parsed.set_aside),
        "users_repeated": parsed.repeated,
        "dagster/partition_row_count": len(parsed.users),
        **({"updated_columns": changes.updated_columns} if changes.updated_columns else {}),
        **({"quarantine_reasons": dict(reasons)} if reasons else {}),
    }
