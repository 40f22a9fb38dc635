"""`devices_raw` and `devices_aggregates` in PostgreSQL, and their checks.

Of the loading team's `devices_file`, only the key and the partitions are known here.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from psycopg2.extensions import connection as Connection

from dedp_assets import partition_runs
from dedp_assets.delimited.header import UnreadableFile, UnusableFile
from dedp_assets.errors import DedpError
from dedp_assets.failures import named_failures
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.aggregator import audits
from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import LoadReport, load_file
from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from dedp_assets.landing.copies import Refusal, read_record, write_refusal
from dedp_assets.markdown import markdown_table
from dedp_assets.resources.postgres import PostgresResource

# Only errors that may pass are retried: the server restarts, a connection breaks, two transactions meet.
_RETRIES = dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL)

# Checks that read whole tables run once a night, and not in every run.
_NIGHTLY: dg.AutomationCondition[dg.AssetCheckKey] = dg.AutomationCondition.cron_tick_passed("0 3 * * *")

_DEVICE_COLUMNS = [
    dg.TableColumn(name, f"varchar({max_length})", description)
    for name, max_length, description in contract.DEVICES_FORMAT.columns
]


@contextmanager
def _tables(postgres: PostgresResource, log: dg.DagsterLogManager) -> Iterator[Connection]:
    """Connect to the database, whose tables are brought up to date before.

    Raises:
        dg.Failure: The database can't be used, or fails while the block uses it. The text is one line.
    """
    with named_failures(log), postgres.connect() as connection:
        ensure_tables(connection)
        yield connection


devices_file = dg.AssetSpec(
    contract.DEVICES_FILE,
    partitions_def=contract.LOADS,
    description="One day's devices file in internal storage; the loading team's.",
)


@dg.asset(
    key=contract.DEVICES_RAW,
    deps=[devices_file],
    partitions_def=contract.LOADS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="devices_aggregator",
    owners=["team:devices-aggregating"],
    kinds={"postgres", "table"},
    metadata={
        "dagster/table_name": "dedp.devices_raw",
        "dagster/column_schema": dg.TableSchema(
            [*_DEVICE_COLUMNS, dg.TableColumn("load_id", "char(8)", contract.LOAD_ID_DESCRIPTION)]
        ),
    },
    check_specs=[
        dg.AssetCheckSpec(
            "lines_accounted_for",
            asset=contract.DEVICES_RAW,
            description="Every line of this run's files is either in devices_raw or in devices_quarantine.",
        )
    ],
    retry_policy=_RETRIES,
)
def devices_raw(context: dg.AssetExecutionContext, postgres: PostgresResource) -> partition_runs.AssetResult:
    """All devices of all loads, one load per daily partition.

    A load is replaced as a whole: readers see the old one or the new one. Lines that can't be loaded go to
    `dedp.devices_quarantine` with their reason; the others are loaded. A file without one line that can be
    loaded fails, with the counts and the first lines in the run's failure, and the earlier load stays.
    """
    with _tables(postgres, context.log) as connection:
        loads = [contract.load_id(key) for key in context.partition_keys]
        return partition_runs.materialize_each(
            context,
            lambda key: _load(context, connection, key),
            explain=_explain,
            checks=lambda: [audits.lines_accounted_for(connection, loads)],
        )


def _load(context: dg.AssetExecutionContext, connection: Connection, partition_key: str) -> partition_runs.Materialized:
    began = time.monotonic()
    copy = contract.internal_file(partition_key)
    copied = read_record(copy)
    try:
        report = load_file(connection, contract.load_id(partition_key), copy)
    except UnusableFile as error:
        # The loading team reads the refusal, and then copies the next version of the undated file for this day.
        is_content = not isinstance(error, UnreadableFile)
        if is_content and copied is not None and copied == read_record(copy):
            write_refusal(copy, Refusal(copied.sha256, str(error)))
        raise
    write_refusal(copy, None)
    seconds = time.monotonic() - began
    context.log.info(f"{partition_key}: {summary(report)}")
    return partition_runs.Materialized(report.sha256, _load_metadata(connection, report, seconds))


def summary(report: LoadReport) -> str:
    """One line about a load: how many lines were read, loaded and quarantined, and the reasons."""
    by_reason = ", ".join(f"{reason} {count:,}" for reason, count in sorted(report.reasons.items()))
    return (
        f"{report.lines_read:,} lines read, {report.rows_loaded:,} loaded, {report.rows_quarantined:,} quarantined"
        + (f" ({by_reason})" if by_reason else "")
    )


def _named(partition_key: str) -> str:
    """The file of a partition, for messages: the landed file if it is known, and our copy."""
    copy = contract.internal_file(partition_key)
    copied = read_record(copy)
    return f"{copied.source} (copied to {copy})" if copied else str(copy)


def _explain(partition_key: str, error: DedpError) -> partition_runs.Problem:
    if not isinstance(error, UnusableFile):
        return partition_runs.Problem(str(error), {})
    metadata: dict[str, Any] = {}
    if error.lines_read:
        metadata = {
            "lines_read": error.lines_read,
            "refused_reasons": error.reasons,
            "refused_lines": [line._asdict() for line in error.first_lines],
        }
    return partition_runs.Problem(f"{_named(partition_key)} {error}", metadata)


def _load_metadata(connection: Connection, report: LoadReport, seconds: float) -> dict[str, Any]:
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT type, full_name, version FROM dedp.devices_raw WHERE load_id = %s LIMIT 5",
            [report.load_id],
        )
        rows = cursor.fetchall()
        cursor.execute(
            "SELECT line_number, reason, detail, left(line, 200) FROM dedp.devices_quarantine "
            "WHERE load_id = %s ORDER BY line_number LIMIT 5",
            [report.load_id],
        )
        quarantined = cursor.fetchall()
    metadata = {
        "rows_loaded": report.rows_loaded,
        "rows_quarantined": report.rows_quarantined,
        "lines_read": report.lines_read,
        "dagster/partition_row_count": report.rows_loaded,
        "file_size_bytes": report.size_bytes,
        "file_sha256": report.sha256,
        "seconds": round(seconds, 3),
        "preview": dg.MetadataValue.md(markdown_table(contract.DEVICES_FORMAT.names, rows)),
    }
    if quarantined:
        metadata["quarantine_reasons"] = report.reasons
        metadata["quarantine_preview"] = dg.MetadataValue.md(
            markdown_table(("line_number", "reason", "detail", "line"), quarantined)
        )
    return metadata


@dg.asset(
    key=contract.DEVICES_AGGREGATES,
    deps=[contract.DEVICES_RAW],
    partitions_def=contract.LOADS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="devices_aggregator",
    owners=["team:devices-aggregating"],
    kinds={"postgres", "view"},
    metadata={
        "dagster/table_name": "dedp.devices_aggregates",
        "dagster/column_schema": dg.TableSchema(
            [*_DEVICE_COLUMNS, dg.TableColumn("all_occurrences", "bigint", contract.ALL_OCCURRENCES_DESCRIPTION)]
        ),
    },
    check_specs=[
        dg.AssetCheckSpec(
            "totals_balance",
            asset=contract.DEVICES_AGGREGATES,
            description="All occurrences together are as many as the rows of all loads.",
        )
    ],
    retry_policy=_RETRIES,
)
def devices_aggregates(context: dg.AssetExecutionContext, postgres: PostgresResource) -> partition_runs.AssetResult:
    """In how many loads each device occurs, all time. A partition is one load's share in it.

    Exact in every snapshot, also before this has run: reading adds what is not folded in yet. Materializing a
    partition folds that load in, which makes reading cheap and changes no total.
    """
    with _tables(postgres, context.log) as connection:
        return partition_runs.materialize_each(
            context,
            lambda key: _fold(connection, key),
            checks=lambda: [audits.totals_balance(connection)],
        )


def _fold(connection: Connection, partition_key: str) -> partition_runs.Materialized:
    began = time.monotonic()
    report = fold(connection, contract.load_id(partition_key))
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT * FROM dedp.devices_aggregates ORDER BY all_occurrences DESC, type, full_name, version LIMIT 5"
        )
        rows = cursor.fetchall()
    return partition_runs.Materialized(
        data_version=report.version,
        metadata={
            "devices_changed": report.devices_changed,
            "seconds": round(time.monotonic() - began, 3),
            "preview": dg.MetadataValue.md(markdown_table((*contract.DEVICES_FORMAT.names, "all_occurrences"), rows)),
        },
    )


@dg.asset_check(asset=contract.DEVICES_RAW, automation_condition=_NIGHTLY)
def all_loads_accounted_for(context: dg.AssetCheckExecutionContext, postgres: PostgresResource) -> dg.AssetCheckResult:
    """Every line of every load there is: in devices_raw or in devices_quarantine. Reads the whole table."""
    with _tables(postgres, context.log) as connection:
        return audits.lines_accounted_for(connection)


@dg.asset_check(asset=contract.DEVICES_AGGREGATES, automation_condition=_NIGHTLY)
def totals_equal_recount(context: dg.AssetCheckExecutionContext, postgres: PostgresResource) -> dg.AssetCheckResult:
    """The totals are what counting devices_raw from the start gives. Reads the whole table."""
    with _tables(postgres, context.log) as connection:
        return audits.totals_equal_recount(connection)
