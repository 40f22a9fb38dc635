"""SLAs, deadlines and alerts: a report that should be there at 6 o'clock, and a message when something fails."""

import datetime as dt

import dagster as dg

from dedp_assets.notifications.notification import Notification
from dedp_assets.notifications.resource import NotifierResource

DAYS = dg.DailyPartitionsDefinition("2024-01-01")

# Airflow 2 had `sla`, Airflow 3 has DeadlineAlert. The policy belongs to the asset and not to a run: it fails, too, if
# no run was ever started. Here: made anew between 0 and 6 o'clock, every day.
BY_SIX = dg.FreshnessPolicy.cron(deadline_cron="0 6 * * *", lower_bound_delta=dt.timedelta(hours=6))


@dg.asset(freshness_policy=BY_SIX)
def morning_report() -> None: ...


@dg.asset_check(asset=morning_report, blocking=True)
def report_has_rows() -> dg.AssetCheckResult:
    """What must be true of the data. If it is not, nothing that follows in this run starts."""
    return dg.AssetCheckResult(passed=True)


refresh = dg.define_asset_job("refresh", [morning_report])


# on_failure_callback: one function for every job of the code location, or for those that `monitored_jobs` names.
@dg.run_failure_sensor(monitored_jobs=[refresh])
def tell_of_failures(context: dg.RunFailureSensorContext, notifier: NotifierResource) -> None:
    run = context.dagster_run
    notifier.send(
        Notification(
            key=f"failed/{run.run_id}",
            subject=f"{run.job_name} failed",
            text=context.failure_event.message or "",
            link=None,
            severity="error",
        )
    )


defs = dg.Definitions(
    assets=[morning_report],
    asset_checks=[report_has_rows],
    jobs=[refresh],
    sensors=[tell_of_failures],
    resources={"notifier": NotifierResource(target="log")},
)
