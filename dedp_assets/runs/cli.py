"""`dedp runs`: the latest runs of all code locations, each with what has started it."""

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

import click

from dedp_assets import local_stack
from dedp_assets.origin import ORIGINS, origin_of
from dedp_assets.text_tables import text_table

if TYPE_CHECKING:
    import dagster as dg

_PAGE = 200


class RunRow(NamedTuple):
    """A run, as the table shows it."""

    requested: str
    origin: str
    status: str
    what: str
    partition: str
    run_id: str


@click.command()
@click.option("--origin", "origins", type=click.Choice(ORIGINS), multiple=True, help="Only runs that this has started.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many runs to show.")
def runs(origins: tuple[str, ...], limit: int) -> None:
    """Show the latest runs of the system, and what has started each of them.

    \b
    schedule    a schedule
    sensor      a sensor; `file` and `rule` are sensors that say more
    automation  an asset has changed that this one follows
    backfill    a backfill
    http        another system, by a call
    by hand     a person, in the UI or by a command

    In Dagster's UI, filter the runs by the tag dedp/origin.
    """
    # Not at the top: the other commands need not wait for it.
    import dagster as dg

    with local_stack.environment() as shared:
        local_stack.create_instance_schema(shared)
        os.environ.update({name: shared[name] for name in ("DEDP_DAGSTER_STORAGE", "DAGSTER_HOME") if name in shared})
        with dg.DagsterInstance.get() as instance:
            rows = list(latest_runs(instance, origins, limit))
    for line in table(rows):
        click.echo(line)
    if not rows:
        click.echo("There are no runs." if not origins else f"There are no runs by {', '.join(origins)}.")


def latest_runs(instance: "dg.DagsterInstance", origins: Sequence[str], limit: int) -> Iterator[RunRow]:
    """The latest runs, the latest one first.

    Args:
        instance: The instance that has the runs.
        origins: Only runs with one of these origins. All runs, if it is empty.
        limit: How many runs at most.
    """
    cursor = None
    while limit:
        records = instance.get_run_records(limit=_PAGE, cursor=cursor)
        for record in records:
            run = record.dagster_run
            if limit and (not origins or origin_of(run.tags) in origins):
                limit -= 1
                yield _row(run, record.create_timestamp)
        if len(records) < _PAGE:
            return
        cursor = records[-1].dagster_run.run_id


def _row(run: "dg.DagsterRun", created: datetime) -> RunRow:
    # Not at the top: the other commands need not wait for it.
    from dedp_assets.partition_runs import PARTITION_TAG

    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    first, last = (run.tags.get(f"dagster/asset_partition_range_{end}", "") for end in ("start", "end"))
    return RunRow(
        created.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S"),
        origin_of(run.tags),
        run.status.value.lower(),
        ", ".join(assets) or run.job_name,
        run.tags.get("dagster/partition") or run.tags.get(PARTITION_TAG) or (f"{first}...{last}" if first else ""),
        run.run_id,
    )


def table(rows: Sequence[RunRow]) -> list[str]:
    """A header and a line for each run; nothing without runs."""
    return text_table(("requested (UTC)", "origin", "status", "what", "partition", "run"), rows)
