"""The assets of the concurrent late-data integrator."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import dagster as dg
import deltalake
import pyarrow as pa

from dedp_assets.late_data_integrator import contract, state
from dedp_assets.late_data_integrator.counting import count_devices
from dedp_assets.late_data_integrator.device_counts import SCHEMA
from dedp_assets.late_data_integrator.lake import devices_log, look, open_counts, publish_state
from dedp_assets.late_data_integrator.processing import Processed, lateness, process
from dedp_assets.resources.object_store import write_text
from dedp_assets.resources.spark import SparkConnectResource


def _columns(schema: pa.Schema) -> dict[str, Any]:
    """Metadata that lets the UI show a table's columns."""
    fields = deltalake.Schema.from_arrow(schema).fields
    return {"dagster/column_schema": dg.TableSchema([dg.TableColumn(field.name, field.type.type) for field in fields])}


devices = dg.AssetSpec(
    contract.DEVICES,
    partitions_def=contract.DAYS,
    group_name="late_data_integrator",
    description="A Delta table that others write. `devices_committed` reports every commit that changes a day.",
    kinds={"deltalake"},
    # What is counted. Whoever writes it may have more, and the days as text.
    metadata=_columns(pa.schema([field for field in SCHEMA if field.name != "count"])),
)


@dg.asset(
    key=contract.DEVICE_COUNTS,
    deps=[devices],
    partitions_def=contract.DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="late_data_integrator",
    kinds={"spark", "deltalake"},
    metadata=_columns(SCHEMA),
    pool=contract.POOL,
    # What may pass: a file that was vacuumed while it was read, an endpoint that is starting.
    retry_policy=dg.RetryPolicy(max_retries=3, delay=1, backoff=dg.Backoff.EXPONENTIAL),
)
def device_counts(context: dg.AssetExecutionContext, spark: SparkConnectResource) -> dg.MaterializeResult:
    """How often each device occurs in a day: one row per type, full_name and version.

    From exactly one snapshot of the input; which one, the same commit records. Nothing is written for a day whose
    counts reflect its input already.
    """
    with _being_processed(context):
        done = process(
            context.partition_keys,
            devices_log(),
            open_counts,
            lambda snapshot, days: count_devices(spark.session, snapshot, days),
        )
    for line in in_short(done):
        context.log.info(line)
    for processed in done:
        context.add_asset_metadata(metadata_of(processed), partition_key=processed.day)
    tags = run_tags(done)
    if tags:
        context.instance.add_run_tags(context.run.run_id, tags)
    return dg.MaterializeResult(data_version=dg.DataVersion(str(max(processed.version for processed in done))))


@contextmanager
def _being_processed(context: dg.AssetExecutionContext) -> Iterator[None]:
    """For as long as the block takes, the state table says that the days of this run are being processed."""
    publish_state(context.instance)
    try:
        yield
    except BaseException:
        with suppress(Exception):  # what went wrong first is what its user has to hear
            publish_state(context.instance, without_run=context.run.run_id)
        raise
    publish_state(context.instance, without_run=context.run.run_id)


@dg.asset(
    key=contract.PARTITIONS_STATE,
    deps=[device_counts],
    partitions_def=contract.DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="late_data_integrator",
    kinds={"deltalake"},
    metadata=_columns(state.SCHEMA),
)
def partitions_state(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """How far each day is, for readers and for pipelines that run elsewhere. It follows from device_counts.

    `isProcessed` is true while a day is being processed; `lastProcessedVersion` is the version of the input that its
    counts reflect.
    """
    progress, written = publish_state(context.instance, without_run=context.run.run_id)
    return dg.MaterializeResult(
        metadata={
            "table": dg.MetadataValue.path(contract.uri(contract.PARTITIONS_STATE)),
            "rewritten": written,
            "rows": dg.MetadataValue.table(
                [
                    dg.TableRecord(row._asdict())
                    for row in state.state_rows(progress.recorded, progress.in_progress)[-50:]
                ]
            ),
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
def backfilling_configuration(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """The earlier days that are late and not being processed, as one JSON file per day, for pipelines elsewhere."""
    progress = look(context.instance, without_run=context.run.run_id)
    for day in context.partition_keys:
        days = state.to_backfill(progress, day)
        uri = f"{contract.uri(contract.BACKFILLING_CONFIGURATION)}_{day}.json"
        write_text(uri, state.backfilling_configuration(days))
        context.add_asset_metadata(
            {"file": dg.MetadataValue.path(uri), "partitions": ", ".join(days) or "none"}, partition_key=day
        )
    return dg.MaterializeResult()


def in_words(processed: Processed) -> str:
    """What was done for a day, as a sentence."""
    if not processed.written:
        return f"{processed.day}: nothing to do, the counts reflect version {processed.version} already"
    return (
        f"{processed.day}: counted {processed.rows_after} rows (before: {processed.rows_before}) "
        f"as of version {processed.version}"
    )


def in_short(done: list[Processed]) -> list[str]:
    """What a run did: a sentence for a day, and no more than two for many."""
    if len(done) == 1:
        return [in_words(done[0])]
    written = [processed for processed in done if processed.written]
    idle = [processed.day for processed in done if not processed.written]
    lines = []
    if written:
        rows = sum(processed.rows_after for processed in written)
        lines.append(f"{len(written)} days: counted {rows} rows as of version {written[0].version}")
    if idle:
        lines.append(f"nothing to do for {len(idle)} days, whose counts reflect their input already: {', '.join(idle)}")
    return lines


def metadata_of(processed: Processed) -> dict[str, dg.MetadataValue]:
    """What the UI shows of a day's materialization."""
    shown: dict[str, dg.MetadataValue] = {
        "outcome": dg.MetadataValue.text(in_words(processed)),
        "input_version": dg.MetadataValue.int(processed.version),
        "input_rows_before": dg.MetadataValue.int(processed.rows_before),
        "input_rows": dg.MetadataValue.int(processed.rows_after),
    }
    if processed.late:
        shown |= {
            "late_commits": dg.MetadataValue.text(", ".join(map(str, processed.late.versions))),
            "late_commit_time": dg.MetadataValue.timestamp(processed.late.at),
            "lateness_hours": dg.MetadataValue.float(
                round(lateness(processed.day, processed.late.at) / timedelta(hours=1), 2)
            ),
        }
    return shown


def run_tags(done: list[Processed]) -> dict[str, str]:
    """What tells a run for late data from others in a list of runs: the commits that caused it, how late they were."""
    late = [(processed.day, processed.late) for processed in done if processed.late]
    if not late:
        return {}
    versions = sorted({version for _, commits in late for version in commits.versions})
    return {
        "dedp/late_commits": ", ".join(map(str, versions)),
        "dedp/lateness": str(max(lateness(day, commits.at) for day, commits in late)),
    }
