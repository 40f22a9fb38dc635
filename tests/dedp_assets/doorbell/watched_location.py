"""A code location whose sensors the doorbell wakes, for the tests of the daemons."""

import os
from pathlib import Path

import dagster as dg

from dedp_assets.doorbell.folders import Watch
from dedp_assets.doorbell.woken_by import woken_by


def folders() -> list[Watch]:
    return [Watch(Path(os.environ["DEDP_LANDING"]))]


@dg.asset
def orders() -> None: ...


@dg.asset(deps=[orders], automation_condition=dg.AutomationCondition.any_deps_updated())
def bills() -> None: ...


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["north", "south"]))
def shops() -> None: ...


@dg.sensor(
    target="orders",
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    metadata=woken_by(folders="tests.dedp_assets.doorbell.watched_location:folders"),
)
def landed(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    return dg.SkipReason(", ".join(sorted(os.listdir(os.environ["DEDP_LANDING"]))) or "nothing")


@dg.sensor(target="orders", minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def polled(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    return dg.SkipReason("nothing wakes it")


by_dagsters_asset_daemon = dg.AutomationConditionSensorDefinition(
    "by_the_asset_daemon",
    target=["bills"],
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=1,
)

defs = dg.Definitions(assets=[orders, bills, shops], sensors=[landed, polled, by_dagsters_asset_daemon])
