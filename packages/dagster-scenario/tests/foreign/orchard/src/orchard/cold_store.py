"""The code location `cold_store`: readings of the thermometer, on Berlin's clock."""

import dagster as dg

from orchard.partitions import BERLIN


@dg.op
def read_thermometer() -> None:
    """Not an asset: a reading that is late is of no use."""


@dg.job
def read_cold_store():
    read_thermometer()


@dg.schedule(
    job=read_cold_store,
    cron_schedule="15 * * * *",
    execution_timezone=BERLIN,
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def every_hour(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest(tags={"hour": context.scheduled_execution_time.strftime("%H:%M %Z")})


defs = dg.Definitions(jobs=[read_cold_store], schedules=[every_hour])
