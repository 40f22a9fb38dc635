"""`promotions/differences`, `promotions/dashboard` and `promotions/notification`: what follows a delivery."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import dagster as dg
from psycopg2.extensions import connection as Connection
from pydantic import Field

from dedp_assets.errors import DedpError
from dedp_assets.failures import named_failures
from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.partition_runs import named_partitions
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.reports.announcing import announce
from dedp_assets.promotions.reports.comparing import Comparison, compare
from dedp_assets.promotions.reports.dashboard import build, numbers, verdict
from dedp_assets.promotions.reports.tables import NoSuchDelivery, delivery_of, ensure_tables, has_deliveries
from dedp_assets.resources.postgres import PostgresResource

STEP = "promotion_reports"

_DIFFERENCES_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("supplier", "text", "Whose delivery it is."),
        dg.TableColumn("day", "date", "The day that the delivery is for."),
        dg.TableColumn(
            "previous_day", "date", "The day of the supplier's delivery before it, which it is compared with."
        ),
        dg.TableColumn("product_id", "text", "The product, as the supplier identifies it."),
        dg.TableColumn("change", "text", "added, removed, or changed, which means that its price differs."),
        dg.TableColumn("price_before", "numeric", "The price in the delivery before; NULL if the product was added."),
        dg.TableColumn("price_after", "numeric", "The price in this delivery; NULL if the product was removed."),
    ]
)
_NOTIFICATIONS_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn("supplier", "text", "Whose delivery it is."),
        dg.TableColumn("day", "date", "The day that the delivery is for."),
        dg.TableColumn("version", "char(64)", "The SHA-256 of the delivery: a message for each version."),
        dg.TableColumn("sent_at", "timestamptz", "When the message had been sent."),
    ]
)


class ChangedDeliveries(dg.Config):
    """What a run of several deliveries is for. A run of one delivery has its partition instead."""

    deliveries: list[str] = Field(default=[], description="Partition keys, such as supermarket1|2024-01-05.")


@dg.multi_asset(
    name=STEP,
    specs=[
        dg.AssetSpec(
            contract.DIFFERENCES,
            deps=[contract.CLEANED, contract.METRICS],
            partitions_def=contract.DELIVERIES,
            skippable=True,
            description="What has changed from a supplier's previous delivery, the previous one there is, to each one.",
            kinds={"postgres", "table"},
            owners=["team:promotions"],
            metadata={
                "dagster/table_name": "dedp.promotion_differences",
                "dagster/column_schema": _DIFFERENCES_COLUMNS,
            },
        ),
        dg.AssetSpec(
            contract.DASHBOARD,
            deps=[contract.METRICS, contract.DIFFERENCES],
            skippable=True,
            description="An HTML page: discounts and products of each supplier, what has changed, and who is late.",
            kinds={"html"},
            owners=["team:promotions"],
        ),
        dg.AssetSpec(
            contract.NOTIFICATION,
            deps=[contract.METRICS, contract.DIFFERENCES, contract.DASHBOARD],
            partitions_def=contract.DELIVERIES,
            skippable=True,
            description="A message to people for each version of each delivery, sent at least once, with a key.",
            kinds={"postgres"},
            owners=["team:promotions"],
            metadata={
                "dagster/table_name": "dedp.promotion_notifications",
                "dagster/column_schema": _NOTIFICATIONS_COLUMNS,
            },
        ),
    ],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="promotion_reports",
    retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL),
)
def promotion_reports(
    context: dg.AssetExecutionContext,
    config: ChangedDeliveries,
    postgres: PostgresResource,
    notifier: NotifierResource,
) -> Iterable[dg.Output[None]]:
    """Report on the deliveries of the run: those of its configuration, or those of its partitions.

    One step does it all, since a run's time is mostly its start. Deliveries that have changed at one time share a run,
    which has no partition then. So the step records the materializations of each partition itself.
    """
    selected = context.selected_asset_keys
    problems: list[DedpError] = []
    with named_failures(context.log), postgres.connect() as connection:
        deliveries = _deliveries(context, config)
        ensure_tables(connection)
        _check(connection, deliveries)
        if contract.DIFFERENCES in selected:
            _compare(context, connection, deliveries)
        if contract.DASHBOARD in selected:
            try:
                _draw(context, connection)
            except DedpError as error:
                # People are told of a delivery also if the page can't be written.
                problems.append(error)
        if contract.NOTIFICATION in selected:
            problems += _announce(context, connection, notifier, deliveries)
    for problem in problems:
        context.log.error(str(problem))
    if problems:
        raise dg.Failure("\n".join(map(str, problems)), allow_retries=any(problem.may_pass for problem in problems))
    yield from ()


def _deliveries(context: dg.AssetExecutionContext, config: ChangedDeliveries) -> list[Delivery]:
    if config.deliveries:
        return [delivery_of(key) for key in config.deliveries]
    has_partitions = context.has_partition_key or context.has_partition_key_range
    keys = named_partitions(context.run, contract.DELIVERIES) if has_partitions else []
    return [Delivery.of_key(key) for key in keys]


def _check(connection: Connection, deliveries: Sequence[Delivery]) -> None:
    with connection, connection.cursor() as cursor:
        if deliveries and not has_deliveries(cursor):
            raise NoSuchDelivery(
                f"no delivery is loaded yet, so that there is nothing to report on {deliveries[0].key}; "
                "materialize promotions/raw, promotions/cleaned and promotions/metrics first"
            )


def _compare(context: dg.AssetExecutionContext, connection: Connection, deliveries: Sequence[Delivery]) -> None:
    days: dict[str, list[date]] = {}
    for delivery in deliveries:
        days.setdefault(delivery.supplier, []).append(date.fromisoformat(delivery.day))
    found = 0
    for supplier, of_supplier in days.items():
        for comparison in compare(connection, supplier, of_supplier):
            found += 1
            context.log_event(_differences(supplier, comparison))
    if deliveries and not found:
        context.log.warning(f"none of these deliveries is loaded: {', '.join(each.key for each in deliveries[:20])}")


def _differences(supplier: str, comparison: Comparison) -> dg.AssetMaterialization:
    loads = comparison.loads
    metadata: dict[str, Any] = {
        "added": comparison.added,
        "removed": comparison.removed,
        "changed": comparison.changed,
        "dagster/partition_row_count": comparison.added + comparison.removed + comparison.changed,
        "previous_day": loads.previous_day.isoformat() if loads.previous_day else "none: the first delivery",
        "load_number": loads.load_number,
    }
    return dg.AssetMaterialization(
        contract.DIFFERENCES,
        partition=Delivery(supplier, comparison.day.isoformat()).key,
        metadata=metadata,
        tags={"dagster/data_version": comparison.version},
    )


def _draw(context: dg.AssetExecutionContext, connection: Connection) -> None:
    figures = build(connection)
    metadata: dict[str, Any] = {
        "file": dg.MetadataValue.path(str(contract.dashboard_file())),
        "verdict": verdict(figures)[1],
        **numbers(figures),
    }
    tags = {"dagster/data_version": figures.version} if figures.version else None
    context.log_event(dg.AssetMaterialization(contract.DASHBOARD, metadata=metadata, tags=tags))


def _announce(
    context: dg.AssetExecutionContext,
    connection: Connection,
    notifier: NotifierResource,
    deliveries: Sequence[Delivery],
) -> list[DedpError]:
    announced = announce(connection, deliveries, notifier.send, contract.dashboard_file().as_uri())
    for news in announced.sent:
        context.log_event(
            dg.AssetMaterialization(
                contract.NOTIFICATION,
                partition=news.delivery.key,
                metadata={"version": news.version, "late": news.is_late, "products": news.products},
                tags={"dagster/data_version": news.version},
            )
        )
    return announced.problems
