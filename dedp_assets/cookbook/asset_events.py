"""Airflow 3's AssetWatcher and AssetAlias: events from outside, and assets that a task knows only when it runs."""

import dagster as dg

SHOPS = dg.DynamicPartitionsDefinition(name="cookbook_shops")

# Nobody here makes it. A sensor says that it has changed, and which partition.
price_list = dg.AssetSpec("price_list", partitions_def=SHOPS)


@dg.asset(deps=[price_list], partitions_def=SHOPS, automation_condition=dg.AutomationCondition.eager())
def price_tags() -> None: ...


class Outside(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A queue of others, from which a look takes names of shops."""

    def changed_shops(self) -> list[str]:
        return []


# AssetWatcher. The event has a partition, here a shop, which may be a new one.
@dg.sensor(minimum_interval_seconds=30)
def prices_changed(context: dg.SensorEvaluationContext, outside: Outside) -> dg.SensorResult:
    shops = outside.changed_shops()
    return dg.SensorResult(
        dynamic_partitions_requests=[SHOPS.build_add_request(shops)],
        asset_events=[dg.AssetMaterialization("price_list", partition=shop) for shop in shops],
    )


class Tables(dg.Config):
    tables: list[str]


# AssetAlias: a step reports assets that no code names. Their keys are known when it runs.
@dg.op
def load_tables(context: dg.OpExecutionContext, config: Tables) -> None:
    for table in config.tables:
        context.log_event(dg.AssetMaterialization(["cookbook_tables", table]))


@dg.job
def load_some_tables() -> None:
    load_tables()


defs = dg.Definitions(
    assets=[price_list, price_tags],
    jobs=[load_some_tables],
    sensors=[prices_changed, dg.AutomationConditionSensorDefinition("follow_prices", target=[price_tags])],
    resources={"outside": Outside()},
)
