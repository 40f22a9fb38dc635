"""The code location `buying`: quotes of the market, and the prices that are made of them."""

from collections.abc import Iterator

import dagster as dg

from orchard.crates import Crates
from orchard.partitions import BERLIN, fruits, fruits_by_day, market_days

MARGIN = 1.2


def fetch_quotes(day: str) -> dict[str, float]:
    """What the market asks on a day, per kilogram; here made up of the day."""
    season = int(day[-2:]) / 100
    return {fruit: round(base + season, 2) for fruit, base in (("apple", 1.0), ("cherry", 6.0), ("pear", 1.5))}


@dg.asset(partitions_def=market_days, retry_policy=dg.RetryPolicy(max_retries=2, delay=60))
def quotes(context: dg.AssetExecutionContext) -> dict[str, float]:
    """What the market asked. Its server is busy in the morning, hence the retries."""
    return fetch_quotes(context.partition_key)


@dg.asset(
    partitions_def=market_days,
    automation_condition=dg.AutomationCondition.eager(),
    check_specs=[dg.AssetCheckSpec("no_price_is_negative", asset="prices")],
)
def prices(quotes: dict[str, float]) -> Iterator[dg.Output[dict[str, float]] | dg.AssetCheckResult]:
    """What we ask."""
    asked = {fruit: round(quote * MARGIN, 2) for fruit, quote in quotes.items()}
    yield dg.Output(asked)
    yield dg.AssetCheckResult(passed=min(asked.values()) >= 0)


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            name, deps=[prices], partitions_def=market_days, automation_condition=dg.AutomationCondition.eager()
        )
        for name in ("sales", "returns")
    ]
)
def ledger():
    """Both sides of the ledger come from one query."""
    yield dg.MaterializeResult("sales")
    yield dg.MaterializeResult("returns")


@dg.asset(partitions_def=fruits_by_day, deps=[prices], automation_condition=dg.AutomationCondition.eager())
def offers(context: dg.AssetExecutionContext) -> str:
    """A text for every fruit and day."""
    keys = context.partition_key.keys_by_dimension
    return f"{keys['fruit']} of {keys['day']}"


@dg.asset
def tariffs() -> dict[str, float]:
    """What customs takes; imported by hand when it changes."""
    return {"apple": 0.1, "cherry": 0.2, "pear": 0.1}


@dg.asset(partitions_def=fruits, automation_condition=dg.AutomationCondition.eager())
def landed_costs(context: dg.AssetExecutionContext, tariffs: dict[str, float]) -> float:
    """What a kilogram of a fruit costs at our gate."""
    return tariffs[context.partition_key] + 0.05


@dg.asset(deps=[tariffs], automation_condition=dg.AutomationCondition.on_cron("0 7 * * *", BERLIN))
def customs_report() -> str:
    """Every morning at 7, once the tariffs of that morning are there."""
    return "as of this morning"


buy = dg.define_asset_job("buy", selection=[quotes])
buy_every_day = dg.build_schedule_from_partitioned_job(
    buy, name="buy_every_day", hour_of_day=6, default_status=dg.DefaultScheduleStatus.RUNNING
)

# Without an executor: on a developer's machine and in production every step has a process of its own.
defs = dg.Definitions(
    assets=[quotes, prices, ledger, offers, tariffs, landed_costs, customs_report],
    jobs=[buy],
    schedules=[buy_every_day],
    sensors=[
        dg.AutomationConditionSensorDefinition(
            "buying_automation", target=dg.AssetSelection.all(), default_status=dg.DefaultSensorStatus.RUNNING
        )
    ],
    resources={"io_manager": Crates(folder=dg.EnvVar("ORCHARD_HOME"))},
)
