"""A pipeline that starts another one (TriggerDagRunOperator), and one that waits for another one (ExternalTaskSensor).

Assets need neither: `billing` names what it follows by its key, and runs for each day whose orders are new. When the
orders of an old day are made again, so is its billing, which is what ExternalTaskMarker is for.
"""

from typing import Any

import dagster as dg

DAYS = dg.DailyPartitionsDefinition("2024-01-01")

# Made by another code location, which does not know this one.
orders = dg.AssetSpec("cookbook_orders", partitions_def=DAYS)


@dg.asset(deps=[orders], partitions_def=DAYS)
def billing(context: dg.AssetExecutionContext) -> None:
    """`jobs.cookbook` gives it the condition `on_input_change()`."""


class Shop(dg.Config):
    shop: str = "lyon"


@dg.op
def count_stock(config: Shop) -> None: ...


@dg.job
def stocktaking() -> None:
    count_stock()


@dg.op
def order_goods(context: dg.OpExecutionContext, config: Shop) -> None:
    context.log.info(f"orders what is missing in {config.shop}")


@dg.job
def replenishment() -> None:
    order_goods()


@dg.run_status_sensor(run_status=dg.DagsterRunStatus.SUCCESS, monitored_jobs=[stocktaking], request_job=replenishment)
def replenish_after_stocktaking(context: dg.RunStatusSensorContext) -> dg.RunRequest:
    """TriggerDagRunOperator with its `conf`: the next job gets the shop of the first one."""
    config: Any = context.dagster_run.run_config
    shop = config.get("ops", {}).get("count_stock", {}).get("config", {})
    return dg.RunRequest(run_key=context.dagster_run.run_id, run_config={"ops": {"order_goods": {"config": shop}}})


defs = dg.Definitions(
    assets=[orders, billing], jobs=[stocktaking, replenishment], sensors=[replenish_after_stocktaking]
)
