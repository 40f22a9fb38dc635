"""Airflow 3's partitioned assets and mappers: days, their week, and shops."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
WEEKS = dg.WeeklyPartitionsDefinition("2024-01-01")
SHOPS = dg.StaticPartitionsDefinition(["ghent", "lyon"])
DAYS_OF_SHOPS = dg.MultiPartitionsDefinition({"day": DAYS, "shop": SHOPS})


@dg.asset(partitions_def=DAYS_OF_SHOPS)
def takings() -> None: ...


# A rollup: a day needs both shops.
@dg.asset(
    partitions_def=DAYS,
    deps=[dg.AssetDep(takings, partition_mapping=dg.MultiToSingleDimensionPartitionMapping("day"))],
)
def takings_of_the_day() -> None: ...


# Another one: a week needs its seven days. This mapping is the default between time windows.
@dg.asset(partitions_def=WEEKS, deps=[takings_of_the_day])
def takings_of_the_week() -> None: ...


# A list of allowed keys, and what each of them needs.
@dg.asset(
    partitions_def=dg.StaticPartitionsDefinition(["belgium", "france"]),
    deps=[dg.AssetDep("managers", partition_mapping=dg.StaticPartitionMapping({"ghent": "belgium", "lyon": "france"}))],
)
def country() -> None: ...


managers = dg.AssetSpec("managers", partitions_def=SHOPS)

defs = dg.Definitions(assets=[takings, takings_of_the_day, takings_of_the_week, country, managers])
