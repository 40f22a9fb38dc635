"""`depends_on_past`: the balance of a day needs the balance of the day before."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
DAY_BEFORE = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)


# One run for each day, and each waits for the day before. A backfill of a year runs in order and stops at a failure.
@dg.asset(
    partitions_def=DAYS,
    deps=[dg.AssetDep("balance", partition_mapping=DAY_BEFORE)],
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
)
def balance(context: dg.AssetExecutionContext) -> None: ...


defs = dg.Definitions(assets=[balance])
