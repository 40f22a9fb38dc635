"""`promotions/raw`, `promotions/cleaned` and `promotions/metrics`: a delivery copied, loaded and measured."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from psycopg2.extensions import connection as Connection

from dedp_assets import settings
from dedp_assets.errors import DedpError
from dedp_assets.failures import named_failures
from dedp_assets.landing.copies import Refusal, write_refusal
from dedp_assets.landing.deliveries import directory_of
from dedp_assets.landing.delivery_copies import Copy, NotDelivered, Seen, copy_delivery, read_copy, record_file
from dedp_assets.markdown import markdown_table
from dedp_assets.partition_runs import named_partitions
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries import audits
from dedp_assets.promotions.deliveries.config import Deliveries, ToTake
from dedp_assets.promotions.deliveries.lines import FORMAT
from dedp_assets.promotions.deliveries.loading import Load, RefusedDelivery, load_delivery
from dedp_assets.promotions.deliveries.measuring import Metrics, measure_delivery
from dedp_assets.promotions.deliveries.tables import ensure_tables, loaded_versions
from dedp_assets.resources.postgres import PostgresResource

RETRIES = dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL)
_OWNERS = ["team:promotions"]

_SUPPLIER = dg.TableColumn("supplier", "text", "Whose delivery it is, one of DEDP_SUPPLIERS. Never empty.")
_DAY = dg.TableColumn("day", "date", "The day that the delivery is for. Never empty.")
_TYPES = ("text", "text", "numeric", "numeric", "date", "date")
_CLEANED_COLUMNS = dg.TableSchema(
    [
        _SUPPLIER,
        _DAY,
        *(
            dg.TableColumn(column.name, type, column.description)
            for column, type in zip(FORMAT.columns, _TYPES, strict=True)
        ),
    ]
)
_METRICS_COLUMNS = dg.TableSchema(
    [
        _SUPPLIER,
        _DAY,
        dg.TableColumn("products", "bigint", "How many products have a promotion in the delivery: 1 or more."),
        dg.TableColumn("mean_discount", "numeric(6,2)", "Over all products, in percent of the price. Never empty."),
        dg.TableColumn("max_discount", "numeric(6,2)", "The largest one, in percent of the price. Never empty."),
        dg.TableColumn("load_number", "bigint", "Of the load that these figures reflect (promotion_deliveries)."),
    ]
)

_PREVIEW = """
    SELECT product_id, product, price, promotion_price, starts_on, ends_on
    FROM dedp.promotions
    WHERE supplier = %s AND day = %s
    ORDER BY product_id
    LIMIT 5
"""

_QUARANTINE_PREVIEW = """
    SELECT file, line_number, reason, detail, left(line, 200)
    FROM dedp.promotion_quarantine
    WHERE supplier = %s AND day = %s
    ORDER BY file, line_number
    LIMIT 5
"""


@dg.multi_asset(
    name="promotion_deliveries",
    specs=[
        dg.AssetSpec(
            contract.RAW,
            skippable=True,
            description="Our own copy of a supplier's delivery: all of its data files, in one version.",
            kinds={"csv", "file"},
            owners=_OWNERS,
        ),
        dg.AssetSpec(
            contract.CLEANED,
            deps=[contract.RAW],
            skippable=True,
            description="The promotions of a delivery. All other lines are in dedp.promotion_quarantine.",
            kinds={"postgres", "table"},
            owners=_OWNERS,
            metadata={"dagster/table_name": "dedp.promotions", "dagster/column_schema": _CLEANED_COLUMNS},
        ),
        dg.AssetSpec(
            contract.METRICS,
            deps=[contract.CLEANED],
            skippable=True,
            description="How many products a delivery has, and their discounts.",
            kinds={"postgres", "table"},
            owners=_OWNERS,
            metadata={"dagster/table_name": "dedp.promotion_metrics", "dagster/column_schema": _METRICS_COLUMNS},
        ),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "lines_accounted_for",
            asset=contract.CLEANED,
            description="Every line of this run's deliveries is either in promotions or in promotion_quarantine.",
        )
    ],
    can_subset=True,
    partitions_def=contract.DELIVERIES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="promotions",
    retry_policy=RETRIES,
)
def promotion_deliveries(
    context: dg.AssetExecutionContext, config: Deliveries, postgres: PostgresResource
) -> Iterable[dg.AssetCheckEvaluation]:
    """Take the deliveries that the sensor has found complete, or by hand those of the run's partitions.

    One step does it all, since a run's time is mostly its start. A burst of deliveries shares a run, which no range of
    partitions describes. So the step records the materializations of each delivery itself.
    """
    with named_failures(context.log):
        asked = config.deliveries or [_of_key(key) for key in named_partitions(context.run, contract.DELIVERIES)]
    yield from take_deliveries(
        context.op_execution_context,
        postgres,
        asked,
        again=config.again,
        selected=context.selected_asset_keys,
        is_checked=any(key.asset_key == contract.CLEANED for key in context.selected_asset_check_keys),
    )


def take_deliveries(
    context: dg.OpExecutionContext,
    postgres: PostgresResource,
    asked: Sequence[ToTake],
    *,
    again: bool,
    selected: Collection[dg.AssetKey],
    is_checked: bool,
) -> Iterator[dg.AssetCheckEvaluation]:
    """Copy, load and measure deliveries, and record the materializations of each. One that fails stops no other.

    Args:
        context: Of the step.
        postgres: The database.
        asked: The deliveries.
        again: Load also versions that are loaded.
        selected: Which of the three assets.
        is_checked: Whether to check the lines of what was loaded.

    Yields:
        The result of the check.

    Raises:
        dg.Failure: Some could not be taken. It is raised at the end.
    """
    problems: list[DedpError] = []
    with named_failures(context.log), postgres.connect() as connection:
        ensure_tables(connection)
        done = []
        for each in asked:
            try:
                _take(context, connection, each, again, selected)
                done.append(each.delivery)
            except DedpError as error:
                problems.append(error)
                context.log.error(f"{'/'.join(each.delivery)}: {error}")
        if is_checked:
            yield audits.lines_accounted_for(connection, done)
    if problems:
        raise _failure(problems, len(done))


def _of_key(key: str) -> ToTake:
    delivery = Delivery.of_key(key)
    return ToTake(supplier=delivery.supplier, day=delivery.day, look="", ready_at="")


def _take(
    context: dg.OpExecutionContext,
    connection: Connection,
    asked: ToTake,
    again: bool,
    selected: Collection[dg.AssetKey],
) -> None:
    """Copy, load and measure one delivery, as far as these assets are selected, and record what was made."""
    delivery = asked.delivery

    def record(key: dg.AssetKey, version: str, metadata: dict[str, Any]) -> None:
        tags = {"dagster/data_version": version}
        context.log_event(dg.AssetMaterialization(key, partition=delivery.key, metadata=metadata, tags=tags))

    if contract.RAW in selected:
        copy = _copy(context, asked)
        record(contract.RAW, copy.version, _metadata_of_copy(copy))
    refused: RefusedDelivery | None = None
    if contract.CLEANED in selected:
        try:
            load = _load(connection, delivery, context.run.run_id, again)
        except RefusedDelivery as error:
            refused = error
        else:
            context.log.info(f"{'/'.join(delivery)}: {_summary(load)}")
            record(contract.CLEANED, load.version, _metadata_of_load(connection, delivery, load))
    # The version that stays when another one is refused may lack its figures, too: its run may have been killed.
    if contract.METRICS in selected and (refused is None or loaded_versions(connection, [delivery])):
        metrics = measure_delivery(connection, delivery)
        record(contract.METRICS, metrics.version, _metadata_of_metrics(metrics))
    if refused is not None:
        raise refused


def _copy(context: dg.OpExecutionContext, asked: ToTake) -> Copy:
    delivery = asked.delivery
    folder = contract.internal_folder(delivery)
    try:
        return copy_delivery(
            directory_of(contract.landing_folder(), delivery),
            folder,
            Seen(asked.look, asked.ready),
            window_closes=contract.window_closes(delivery.day).replace(tzinfo=timezone.utc),
            settle_seconds=settings.settle_seconds(),
        )
    except NotDelivered as error:
        # The landing folder was cleared, or is being written to again: what was taken stays.
        copy = read_copy(folder)
        if copy is None:
            raise
        context.log.info(f"{error}; the copy stays as it is")
        return copy


def _load(connection: Connection, delivery: Delivery, run_id: str, again: bool) -> Load:
    folder = contract.internal_folder(delivery)
    try:
        load = load_delivery(connection, delivery, folder, run_id=run_id, again=again)
    except RefusedDelivery as error:
        write_refusal(record_file(folder), Refusal(error.version, str(error)))
        raise
    write_refusal(record_file(folder), None)
    return load


def _summary(load: Load) -> str:
    by_reason = ", ".join(f"{reason} {count:,}" for reason, count in sorted(load.reasons.items()))
    return (
        ("" if load.is_new else "this version was loaded before: ")
        + f"{load.lines_read:,} lines read, {load.rows_loaded:,} loaded, {load.rows_quarantined:,} quarantined"
        + (f" ({by_reason})" if by_reason else "")
    )


def _metadata_of_copy(copy: Copy) -> dict[str, Any]:
    return {
        "folder": dg.MetadataValue.path(copy.folder),
        "version": copy.version,
        "files": len(copy.files),
        "size_bytes": sum(file.size_bytes for file in copy.files),
        "ready_at": dg.MetadataValue.timestamp(copy.ready_at),
        "is_late": copy.is_late,
        "file_names": [file.name for file in copy.files[:100]],
    }


def _metadata_of_load(connection: Connection, delivery: Delivery, load: Load) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "version": load.version,
        "load_number": load.load_number,
        "files": load.files,
        "lines_read": load.lines_read,
        "rows_loaded": load.rows_loaded,
        "rows_quarantined": load.rows_quarantined,
        "dagster/partition_row_count": load.rows_loaded,
        "was_loaded_before": not load.is_new,
        "preview": _preview(connection, _PREVIEW, delivery, FORMAT.names),
    }
    if load.reasons:
        metadata["quarantine_reasons"] = load.reasons
    if load.rows_quarantined:
        header = ("file", "line_number", "reason", "detail", "line")
        metadata["quarantine_preview"] = _preview(connection, _QUARANTINE_PREVIEW, delivery, header)
    return metadata


def _preview(
    connection: Connection, query: str, delivery: Delivery, header: tuple[str, ...]
) -> dg.MarkdownMetadataValue:
    with connection, connection.cursor() as cursor:
        cursor.execute(query, list(delivery))
        return dg.MetadataValue.md(markdown_table(header, cursor.fetchall()))


def _metadata_of_metrics(metrics: Metrics) -> dict[str, Any]:
    return {
        "version": metrics.version,
        "load_number": metrics.load_number,
        "products": metrics.products,
        "mean_discount": float(metrics.mean_discount),
        "max_discount": float(metrics.max_discount),
    }


def _failure(problems: Sequence[DedpError], done: int) -> dg.Failure:
    others = f"\nThe other {done} of this run are done." if done else ""
    refused: list[dict[str, Any]] = [
        {
            "lines_read": problem.lines_read,
            "reasons": problem.reasons,
            "first_lines": [line._asdict() for line in problem.first_lines],
        }
        for problem in problems
        if isinstance(problem, RefusedDelivery)
    ]
    return dg.Failure(
        "\n".join(map(str, problems)) + others,
        metadata={"refused": refused} if refused else {},
        allow_retries=any(problem.may_pass for problem in problems),
    )


@dg.asset_check(asset=contract.RAW)
def every_supplier_delivered(postgres: PostgresResource) -> dg.AssetCheckResult:
    """Every supplier has delivered for each of the last closed windows. The sensor reports it when one closes."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    with postgres.connect() as connection:
        ensure_tables(connection)
        missing = audits.missing_deliveries(connection, contract.SUPPLIERS.get_partition_keys(), now)
    return dg.AssetCheckResult(
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"missing": ["/".join(delivery) for delivery in missing]},
    )
