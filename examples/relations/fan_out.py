"""One pipeline starts three others: many times a day, each time for one supplier only, and only if there is news."""

import dagster as dg

from sensors.automation import automation_sensor, on_input_change

SUPPLIERS = dg.StaticPartitionsDefinition(["supermarket1", "supermarket2", "supermarket3", "supermarket4"])


class News(dg.Config):
    has_changed: bool = True


@dg.asset(partitions_def=SUPPLIERS, output_required=False)
def prices(context: dg.AssetExecutionContext, config: News):  # type: ignore[no-untyped-def]
    """A supplier's prices. If nothing has changed, the run yields nothing, and starts nobody."""
    if config.has_changed:
        yield dg.MaterializeResult(metadata={"supplier": context.partition_key})


def follows_prices(name: str) -> dg.AssetsDefinition:
    """A pipeline that runs for a supplier whenever the prices of that supplier have changed."""

    @dg.asset(name=name, partitions_def=SUPPLIERS, deps=["prices"], automation_condition=on_input_change())
    def follower() -> None: ...

    return follower


# Each of them may also stand in a code location of its own. It then knows the prices by key only:
# `dg.AssetSpec("prices", partitions_def=SUPPLIERS)`.
defs = dg.Definitions(
    assets=[prices, follows_prices("statistics"), follows_prices("archive"), follows_prices("price_tags")],
    sensors=[automation_sensor()],
)
