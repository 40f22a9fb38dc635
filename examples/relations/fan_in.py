"""Pipelines that follow three others: all of them, any of them, two of three, each of them anew."""

import dagster as dg

from sensors.automation import automation_sensor, on_input_change

DAYS = dg.DailyPartitionsDefinition("2024-01-01")

# What another code location makes is known by its key and its partitions.
INPUTS = [dg.AssetSpec(name, partitions_def=DAYS) for name in ("sales", "stock", "weather")]


@dg.asset(partitions_def=DAYS, deps=INPUTS, automation_condition=on_input_change())
def report() -> None:
    """After all of them, in any order; again when one of them runs again."""


@dg.asset(partitions_def=DAYS, deps=INPUTS, automation_condition=on_input_change(existing="any"))
def overview() -> None:
    """As soon as one of them is there; again with each of the others."""


@dg.asset(partitions_def=DAYS, deps=INPUTS, automation_condition=on_input_change(existing=2))
def forecast() -> None:
    """As soon as two of the three are there; again when the third comes, or when one of them runs again."""


@dg.asset(partitions_def=DAYS, deps=INPUTS, automation_condition=on_input_change(updated="all"))
def settlement() -> None:
    """After all of them; again only when each of the three has run again."""


defs = dg.Definitions(assets=[*INPUTS, report, overview, forecast, settlement], sensors=[automation_sensor()])
