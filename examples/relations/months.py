"""A month is summed up from its days, and again when one of them comes late."""

import dagster as dg

from sensors.automation import automation_sensor, on_input_change

ZONE = "Europe/Berlin"
DAYS = dg.DailyPartitionsDefinition("2024-03-01", timezone=ZONE)
# A month has a partition as soon as it is over.
MONTHS = dg.MonthlyPartitionsDefinition("2024-03-01", timezone=ZONE)


@dg.asset(partitions_def=DAYS)
def takings() -> None:
    """What was taken on a day."""


@dg.asset(partitions_def=MONTHS, deps=["takings"], automation_condition=on_input_change(existing="any"))
def monthly_takings() -> None:
    """When a month is over; again when a day of it comes late or changes, also years later."""


defs = dg.Definitions(assets=[takings, monthly_takings], sensors=[automation_sensor()])
