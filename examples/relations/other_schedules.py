"""Pipelines whose schedules do not align: 16:00 and 18:00, and a day and every five hours."""

import dagster as dg

from dedp_assets.schedules import LAST_OF_SAME_PERIOD, last_of_longer_period
from sensors.automation import automation_sensor, on_input_change

ZONE = "Europe/Berlin"
AT_16 = dg.DailyPartitionsDefinition("2024-03-20", hour_offset=16, timezone=ZONE)
AT_18 = dg.DailyPartitionsDefinition("2024-03-20", hour_offset=18, timezone=ZONE)
DAYS = dg.DailyPartitionsDefinition("2024-03-01", timezone=ZONE)
# Begins a day later than its input: the first partition must have something to read.
EVERY_5_HOURS = dg.TimeWindowPartitionsDefinition(
    start="2024-03-02-00:00", fmt="%Y-%m-%d-%H:%M", cron_schedule="0 */5 * * *", timezone=ZONE
)


@dg.asset(partitions_def=AT_16)
def supermarkets() -> None:
    """What a schedule or a sensor makes at 16:00, of the 24 hours before."""


@dg.asset(
    partitions_def=AT_18,
    deps=[dg.AssetDep("supermarkets", partition_mapping=LAST_OF_SAME_PERIOD)],
    automation_condition=on_input_change(),
)
def evening_report() -> None:
    """At 18:00, of the supermarkets of 16:00; later if they are late."""


@dg.asset(partitions_def=DAYS)
def takings() -> None:
    """What was taken on a day."""


@dg.asset(
    partitions_def=EVERY_5_HOURS,
    deps=[dg.AssetDep("takings", partition_mapping=last_of_longer_period(windows=5))],
    automation_condition=on_input_change(),
)
def staffing() -> None:
    """Every five hours, by the takings of the last whole day."""


defs = dg.Definitions(assets=[supermarkets, evening_report, takings, staffing], sensors=[automation_sensor()])
