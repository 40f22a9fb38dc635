"""Three pipelines of three teams, which end at different times. Others know them by key only."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


@dg.asset(partitions_def=DAYS)
def sales() -> None: ...


@dg.asset(partitions_def=DAYS)
def stock() -> None: ...


@dg.asset(partitions_def=DAYS)
def weather() -> None: ...


defs = dg.Definitions(assets=[sales, stock, weather])
