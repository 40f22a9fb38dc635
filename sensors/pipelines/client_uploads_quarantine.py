"""When too many lines of the client uploads are in quarantine: the report is made at once, and somebody is told."""

from datetime import datetime, timezone

import dagster as dg
from pydantic import ValidationError

from dedp_assets.client_uploads import contract, ledger
from dedp_assets.client_uploads.quarantine_rule import Incident, judge, last_lines
from dedp_assets.client_uploads.watched import WatchedClients
from dedp_assets.client_uploads.workflow import WORKFLOW
from dedp_assets.notifications.notification import Notification
from dedp_assets.origin import origin_tag
from dedp_assets.wording import duration
from sensors.ticks import TickReport, reporting_tick

# Not "": Dagster would keep the cursor before it.
_NO_INCIDENT = "no incident"

_watched = WatchedClients()


@dg.sensor(
    name="uploads_quarantine_watched",
    description="Makes the report and tells people, once per incident, if many of the last lines are in quarantine.",
    target=WORKFLOW,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    required_resource_keys={"postgres", "notifier"},
)
@reporting_tick
def uploads_quarantine_watched(context: dg.SensorEvaluationContext, report: TickReport) -> None:
    """The rule is in `dedp_assets.client_uploads.quarantine_rule`; the cursor is the incident that goes on."""
    with context.resources.postgres.connect() as connection:
        ledger.ensure_tables(connection)
        limits = _watched.quarantine_limits()
        lines = last_lines(connection, limits.window)
    before = _incident(context.cursor)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    incident = judge(lines, before, now, limits)
    report.cursor = incident.model_dump_json() if incident else _NO_INCIDENT
    window = f"the last {duration(limits.window)}"
    said = f"{lines.quarantined:,} of the {lines.read:,} lines of {window} are in quarantine"
    report.notes.append(said)
    if incident is None or incident.is_told:
        return
    if before is None:
        # Once: a tick that requests runs has no message, and nobody would see that people can't be told.
        report.run_requests.append(
            dg.RunRequest(
                run_key=f"quarantine:{incident.since}", asset_selection=[contract.REPORT], tags=origin_tag("rule")
            )
        )
    context.resources.notifier.send(
        Notification(
            key=f"uploads/quarantine/{incident.since}",
            subject=f"Client uploads: {lines.share:.0%} of the lines of {window} are in quarantine",
            text=f"{said}. {contract.report_file()} says why, and of which client; the lines are in "
            "dedp.upload_quarantine.",
            severity="warning",
        )
    )
    report.cursor = incident.model_copy(update={"is_told": True}).model_dump_json()


def _incident(cursor: str | None) -> Incident | None:
    try:
        return Incident.model_validate_json(cursor) if cursor and cursor != _NO_INCIDENT else None
    except ValidationError:
        return None  # a damaged cursor costs one more message
