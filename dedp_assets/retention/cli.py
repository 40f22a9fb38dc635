"""`dedp purge`: deletes old runs, events and ticks of Dagster."""

import os
import re
from contextlib import closing
from datetime import timedelta
from typing import Any

import click
import psycopg2

from dedp_assets import local_stack
from dedp_assets.errors import SettingError

_UNITS = {"d": timedelta(days=1), "w": timedelta(weeks=1)}


def _age(context: click.Context, option: click.Parameter, value: str) -> timedelta:
    """An age, such as 90d or 12w. At least a day: sensors may not have seen yet what is younger."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([dw])", value)
    if not found:
        raise click.BadParameter(f"{value!r} is not an age; expected a number of days or weeks, such as 90d or 12w")
    return int(found[1]) * _UNITS[found[2]]


@click.command()
@click.option("--older-than", callback=_age, required=True, metavar="AGE", help="Such as 90d (days) or 12w (weeks).")
@click.option("--dry-run", is_flag=True, help="Delete nothing; say what would be deleted.")
def purge(older_than: timedelta, dry_run: bool) -> None:
    """Delete runs, events, ticks and outputs of Dagster that are older than AGE.

    The latest events of each partition stay, and so do run keys: nothing runs again because of this. The system may be
    up meanwhile. What was interrupted continues the next time. The data in the schema dedp and the files stay.
    """
    # Not at the top: the other commands need not wait for it.
    import dagster as dg

    from dedp_assets.retention import purging

    with local_stack.environment() as shared:
        local_stack.create_instance_schema(shared)
        local_stack.refuse_later_tables(shared)
        os.environ.update({name: shared[name] for name in ("DEDP_DAGSTER_STORAGE", "DAGSTER_HOME")})
        with dg.DagsterInstance.get() as instance, closing(psycopg2.connect(_database_of(instance))) as connection:
            counted = purging.purge(connection, older_than, instance.compute_log_manager, dry_run=dry_run)
    click.echo("Would be deleted:" if dry_run else "Deleted:")
    for line in purging.table(counted):
        click.echo(line)


def _database_of(instance: Any) -> str:
    url = getattr(instance.event_log_storage, "postgres_url", None)
    if url is None:
        raise SettingError(
            "Dagster's storage is not PostgreSQL, and `dedp purge` knows no other; see `storage` in "
            f"{os.environ.get('DAGSTER_HOME')}/dagster.yaml"
        )
    return str(url)
