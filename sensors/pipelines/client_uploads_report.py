"""When the report of the client uploads is made: at most once a minute, and only if it would say something new."""

from datetime import datetime, timezone

import dagster as dg

from dedp_assets.client_uploads import contract
from dedp_assets.client_uploads.figures import read_version
from dedp_assets.client_uploads.workflow import WORKFLOW
from dedp_assets.errors import TICK_ERROR, DedpError
from dedp_assets.origin import origin_tag
from dedp_assets.partition_runs import runs_in_progress
from dedp_assets.resources.postgres import PostgresResource


@dg.schedule(
    name="uploads_report",
    cron_schedule="* * * * *",
    target=WORKFLOW,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Makes the report again if files were dealt with, or if the state of a directory has changed.",
)
def uploads_report(context: dg.ScheduleEvaluationContext, postgres: PostgresResource) -> dg.RunRequest | dg.SkipReason:
    """Compare the version of the figures now with the version that the last report was made from.

    An automation condition on `uploads/records` would make a report for each run of a burst, would never see that a
    directory has become silent, and would wait for ever for a client whose files are only received.
    """
    try:
        with postgres.connect() as connection:
            version = read_version(connection)
    except DedpError as error:
        return dg.SkipReason(f"{TICK_ERROR}{error}")
    if not version:
        return dg.SkipReason("no client has uploaded anything yet")
    if version == reported_version(context.instance):
        return dg.SkipReason("nothing has changed since the last report")
    if runs_in_progress(context.instance, contract.REPORT):
        return dg.SkipReason("a report is being made")
    now = context.scheduled_execution_time or datetime.now(timezone.utc)
    # A report that fails is not asked for again each minute, but once an hour, or when there is something new.
    return dg.RunRequest(
        run_key=f"{version}:{now:%Y-%m-%dT%H}", asset_selection=[contract.REPORT], tags=origin_tag("schedule")
    )


def reported_version(instance: dg.DagsterInstance) -> str:
    """The version of the figures that the last report was made from. "" if there is no report."""
    event = instance.get_latest_materialization_event(contract.REPORT)
    materialization = event.asset_materialization if event else None
    return (materialization.tags or {}).get("dagster/data_version", "") if materialization else ""
