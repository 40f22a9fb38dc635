"""Schedules: the interval that has to pass, catch-up, the logical date in a query, a schedule that changes."""

import dagster as dg

# 10:00 is the start_date. As in Airflow the first run is at 10:10, when the first interval has passed.
TEN_MINUTES = dg.TimeWindowPartitionsDefinition(
    start="2021-01-01 10:00", cron_schedule="*/10 * * * *", fmt="%Y-%m-%d %H:%M"
)
DAYS = dg.DailyPartitionsDefinition("2024-01-01")

QUERY = """
SELECT count(*)
FROM searches
WHERE searched_at >= '{start}' AND searched_at < '{end}'
"""


@dg.asset(partitions_def=TEN_MINUTES)
def measured(context: dg.AssetExecutionContext) -> None: ...


# catchup=False: a tick requests the interval that has just ended. Nobody asks for those before.
measure = dg.build_schedule_from_partitioned_job(dg.define_asset_job("measure", [measured]))


# catchup=True: every interval since the start_date that has passed and was not run yet, also after a pause.
@dg.asset(
    partitions_def=DAYS,
    automation_condition=dg.AutomationCondition.missing()
    & ~dg.AutomationCondition.in_progress()
    & ~dg.AutomationCondition.execution_failed(),
)
def caught_up() -> None: ...


@dg.asset(partitions_def=DAYS)
def searches_of_the_day(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The template with the logical date: `{{ data_interval_start }}` and `{{ data_interval_end }}` are arguments."""
    window = context.partition_time_window
    return dg.MaterializeResult(metadata={"sql": dg.MetadataValue.md(QUERY.format(start=window.start, end=window.end))})


defs = dg.Definitions(
    assets=[measured, caught_up, searches_of_the_day],
    schedules=[measure],
    sensors=[dg.AutomationConditionSensorDefinition("catch_up", target=[caught_up])],
)
