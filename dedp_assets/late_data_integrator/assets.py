"""The assets of the concurrent late-data integrator."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow as pa

from dedp_assets.delta.columns import column_metadata
from dedp_assets.failures import named_failures
from dedp_assets.late_data_integrator import contract, state
from dedp_assets.late_data_integrator import device_counts as counts_table
from dedp_assets.late_data_integrator.counting import count_devices
from dedp_assets.late_data_integrator.processing import Processed, lateness, process
from dedp_assets.late_data_integrator.tables import observe_progress, open_counts, open_devices_log, publish_state
from dedp_assets.resources.lake import LakeResource
from dedp_assets.resources.object_store import write_text
from dedp_assets.resources.spark import SparkConnectResource

devices = dg.AssetSpec(
    contract.DEVICES,
    partitions_def=contract.DAYS,
    group_name="late_data_integrator",
    description="A Delta table that others write. `devices_committed` reports every commit that changes a day.",
    kinds={"deltalake"},
    # Only the columns that are counted. The table may have others, and event_time may be text.
    metadata=column_metadata(
        pa.schema([field for field in counts_table.SCHEMA if field.name != "count"]), counts_table.DESCRIPTIONS
    ),
)


@dg.asset(
    key=contract.DEVICE_COUNTS,
    deps=[devices],
    partitions_def=contract.DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="late_data_integrator",
    kinds={"spark", "deltalake"},
    metadata=column_metadata(counts_table.SCHEMA, counts_table.DESCRIPTIONS),
    pool=contract.POOL,
    # For errors that may pass: a file that was vacuumed while it was read, a Spark server that is starting.
    retry_policy=dg.RetryPolicy(max_retries=3, delay=1, backoff=dg.Backoff.EXPONENTIAL),
)
def device_counts(
    context: dg.AssetExecutionContext, spark: SparkConnectResource, lake: LakeResource
) -> dg.MaterializeResult[None]:
    """How often each device occurs in a day: one row for each type, full_name and version.

    The counts come from exactly one snapshot of the input. The same commit records which one. Nothing is written for a
    day whose counts are up to date.
    """
    with named_failures(context.log), _being_processed(context, lake):
        done = process(
            context.partition_keys,
            open_devices_log(lake),
            lambda: open_counts(lake),
            lambda snapshot, days: count_devices(spark.session, snapshot, days),
        )
    for line in describe_run(done):
        context.log.info(line)
    for processed in done:
        context.add_asset_metadata(metadata_of(processed), partition_key=processed.day)
    tags = run_tags(done)
    if tags:
        context.instance.add_run_tags(context.run.run_id, tags)
    return dg.MaterializeResult(data_version=dg.DataVersion(str(max(processed.version for processed in done))))


@contextmanager
def _being_processed(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[None]:
    """While the block runs, the state table says that the days of this run are being processed."""
    publish_state(lake, context.instance)
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the first error is the one to report
            publish_state(lake, context.instance, without_run=context.run.run_id)
        raise
    publish_state(lake, context.instance, without_run=context.run.run_id)


@dg.asset(
    key=contract.PARTITIONS_STATE,
    deps=[device_counts],
    partitions_def=contract.DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="late_data_integrator",
    kinds={"deltalake"},
    metadata=column_metadata(state.SCHEMA, state.DESCRIPTIONS),
)
def partitions_state(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[None]:
    """How far each day is, for readers and for pipelines that run elsewhere. It follows from device_counts.

    `isProcessed` is true while a day is being processed. `lastProcessedVersion` is the version of the input that the
    day's counts reflect.
    """
    with named_failures(context.log):
        progress, written = publish_state(lake, context.instance, without_run=context.run.run_id)
    rows = state.state_rows(progress.recorded, progress.in_progress)
    return dg.MaterializeResult(
        metadata={
            "table": dg.MetadataValue.path(lake.table_uri(contract.PARTITIONS_STATE)),
            "rewritten": written,
            "rows": dg.MetadataValue.table([dg.TableRecord(row._asdict()) for row in rows[-50:]]),
        }
    )


@dg.asset(
    key=contract.BACKFILLING_CONFIGURATION,
    deps=[partitions_state],
    partitions_def=contract.DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="late_data_integrator",
    kinds={"json"},
)
def backfilling_configuration(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[None]:
    """The earlier days that are late and not being processed, as one JSON file per day, for pipelines elsewhere."""
    with named_failures(context.log):
        in_progress = state.days_in_progress(context.instance, without_run=context.run.run_id)
        progress = observe_progress(lake, in_progress)
        for day in context.partition_keys:
            days = state.to_backfill(progress, day)
            uri = f"{lake.table_uri(contract.BACKFILLING_CONFIGURATION)}_{day}.json"
            write_text(uri, state.backfilling_configuration(days))
            context.add_asset_metadata(
                {"file": dg.MetadataValue.path(uri), "partitions": ", ".join(days) or "none"}, partition_key=day
            )
    return dg.MaterializeResult()


def describe_day(processed: Processed) -> str:
    """What was done for a day, as a sentence."""
    if not processed.written:
        return f"{processed.day}: nothing to do, the counts reflect version {processed.version} already"
    return (
        f"{processed.day}: counted {processed.rows_after} rows (before: {processed.rows_before}) "
        f"as of version {processed.version}"
    )


def describe_run(done: list[Processed]) -> list[str]:
    """What a run did: one sentence for a single day, and at most two sentences for many days."""
    if len(done) == 1:
        return [describe_day(done[0])]
    written = [processed for processed in done if processed.written]
    up_to_date = [processed.day for processed in done if not processed.written]
    lines = []
    if written:
        rows = sum(processed.rows_after for processed in written)
        lines.append(f"{len(written)} days: counted {rows} rows as of version {written[0].version}")
    if up_to_date:
        lines.append(
            f"nothing to do for {len(up_to_date)} days, whose counts reflect their input already: "
            f"{', '.join(up_to_date)}"
        )
    return lines


def metadata_of(processed: Processed) -> dict[str, dg.MetadataValue[Any]]:
    """What the UI shows with the materialization of a day."""
    shown: dict[str, dg.MetadataValue[Any]] = {
        "outcome": dg.MetadataValue.text(describe_day(processed)),
        "input_version": dg.MetadataValue.int(processed.version),
        "input_rows_before": dg.MetadataValue.int(processed.rows_before),
        "input_rows": dg.MetadataValue.int(processed.rows_after),
    }
    if processed.late:
        hours = lateness(processed.day, processed.late.at) / timedelta(hours=1)
        shown |= {
            "late_commits": dg.MetadataValue.text(", ".join(map(str, processed.late.versions))),
            "late_commit_time": dg.MetadataValue.timestamp(processed.late.at),
            "lateness_hours": dg.MetadataValue.float(round(hours, 2)),
        }
    return shown


def run_tags(done: list[Processed]) -> dict[str, str]:
    """Tags that show late data in a list of runs: the versions of the late commits, and the greatest lateness."""
    late = [(processed.day, processed.late) for processed in done if processed.late]
    if not late:
        return {}
    versions = sorted({version for _, commits in late for version in commits.versions})
    return {
        "dedp/late_commits": ", ".join(map(str, versions)),
        "dedp/lateness": str(max(lateness(day, commits.at) for day, commits in late)),
    }
