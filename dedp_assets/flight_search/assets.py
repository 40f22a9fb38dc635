"""The assets of the flight searches: the ingestion, and two aggregations after it."""

from datetime import datetime, timezone
from typing import Any

import dagster as dg

from dedp_assets import settings
from dedp_assets.delta.columns import column_metadata
from dedp_assets.errors import SettingError
from dedp_assets.failures import named_failures
from dedp_assets.flight_search import aggregations, contract, events
from dedp_assets.flight_search.aggregations import Aggregation, Refreshed, refresh
from dedp_assets.flight_search.ingestion import Ingested, Ingestion, ingest
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources.lake import LakeResource
from dedp_assets.resources.spark import SparkConnectResource
from dedp_assets.resources.spark_limits import LimitedSpark, SparkLimits

GROUP = "flight_search"

# For errors that may pass: a server that has gone or is starting, somebody else who commits. Others are not retried.
_RETRIES = dg.RetryPolicy(max_retries=3, delay=1, backoff=dg.Backoff.EXPONENTIAL)

# The UI shows at most so many files of a run.
_FILES_SHOWN = 50


@dg.asset(
    key=contract.SEARCHES,
    partitions_def=contract.DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name=GROUP,
    kinds={"spark", "deltalake"},
    metadata=column_metadata(events.SCHEMA, events.DESCRIPTIONS),
    pool=contract.POOL,
    retry_policy=_RETRIES,
)
def searches(
    context: dg.AssetExecutionContext, config: Ingestion, spark: SparkConnectResource, lake: LakeResource
) -> dg.MaterializeResult[None]:
    """The searches of a day: the events of all files that have landed, each once.

    A run takes in every file that waits, whatever days its events have. It reports the other days that it has changed,
    too. Lines that are no events go to the table `searches_quarantine`.
    """
    with named_failures(context.log):
        done = ingest(
            lake,
            lambda: _limited(context, spark, config),
            complete={name: _version(name, text) for name, text in config.complete.items()},
            settle_seconds=settings.settle_seconds(),
            now=datetime.now(timezone.utc),
        )
    for line in describe_ingested(done):
        context.log.info(line)
    for note in done.notes:
        context.log.warning(note)
    for day in sorted(done.days.keys() - set(context.partition_keys)):
        # Not as an event of this run: a run that also aggregates would seem to have aggregated this day, too.
        context.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                contract.SEARCHES,
                partition=day,
                metadata=metadata_of(done, day),
                tags={"dagster/data_version": str(done.version)},
            )
        )
    for day in context.partition_keys:
        context.add_asset_metadata(metadata_of(done, day), partition_key=day)
    return dg.MaterializeResult(data_version=dg.DataVersion(str(done.version)))


def _aggregating(aggregation: Aggregation, what: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=aggregation.key,
        deps=[searches],
        partitions_def=contract.DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=GROUP,
        kinds={"spark", "deltalake"},
        metadata=column_metadata(aggregation.schema, aggregation.descriptions),
        pool=contract.POOL,
        retry_policy=_RETRIES,
        description=f"{what}, from exactly one version of the table of searches. The same commit records which files "
        "of it. Nothing is written for a day that is up to date.",
    )
    def aggregated(
        context: dg.AssetExecutionContext, config: SparkLimits, spark: SparkConnectResource, lake: LakeResource
    ) -> dg.MaterializeResult[None]:
        with named_failures(context.log):
            done = refresh(aggregation, context.partition_keys, lake, lambda: _limited(context, spark, config))
        for refreshed in done:
            context.log.info(describe_refreshed(refreshed))
            context.add_asset_metadata(
                {"outcome": describe_refreshed(refreshed), "input_version": refreshed.version},
                partition_key=refreshed.day,
            )
        return dg.MaterializeResult(data_version=dg.DataVersion(str(max(refreshed.version for refreshed in done))))

    return aggregated


per_route = _aggregating(
    aggregations.PER_ROUTE, "How many searches a day has of each route, and for how many passengers"
)
per_hour = _aggregating(aggregations.PER_HOUR, "How many searches a day has in each hour, and for how many passengers")


def _version(name: str, text: str) -> FileVersion:
    try:
        return FileVersion.from_text(text)
    except ValueError:
        raise SettingError(
            f"the configuration of the run has {text!r} in `complete` for {name}; expected four whole numbers with "
            "colons between them, as the sensor writes them, or no entry"
        ) from None


def _limited(context: dg.AssetExecutionContext, spark: SparkConnectResource, limits: SparkLimits) -> LimitedSpark:
    limited = LimitedSpark(spark.session, limits)
    context.log.info(describe_limits(limited))
    return limited


def describe_limits(spark: LimitedSpark) -> str:
    """What Spark has, and what this run may use of it, as a sentence."""
    cores = "unknown" if spark.given.cores is None else spark.given.cores
    tasks = "any number of tasks" if spark.limits.cores is None else f"{spark.limits.cores} tasks"
    return (
        f"Spark on {spark.given.master}: cores: {cores}, memory of an executor: {spark.given.memory}. This run uses "
        f"{tasks} at once, and at most {spark.limits.timeout_seconds:g} s"
    )


def describe_ingested(done: Ingested) -> list[str]:
    """What a run has taken in, in sentences."""
    if not done.files and not done.same:
        return [f"nothing to take in: the table has every complete file (version {done.version})"]
    appended, known = sum(done.days.values()), sum(account.known for account in done.files)
    bad = sum(sum(account.bad.values()) for account in done.files)
    lines = [
        f"files: {len(done.files)} taken in, {len(done.same)} with content that was there; events: {appended} "
        f"appended, {known} that were there; lines set aside: {bad}"
    ]
    if done.days:
        lines.append(f"events by day: {', '.join(f'{day}: {number}' for day, number in done.days.items())}")
    lines += [
        f"set aside of {account.name}: {', '.join(f'{number} x {reason}' for reason, number in account.bad.items())}"
        for account in done.files
        if account.bad
    ]
    return lines


def metadata_of(done: Ingested, day: str) -> dict[str, dg.MetadataValue[Any]]:
    """What the UI shows with the materialization of a day."""
    files = [
        dg.TableRecord(
            {
                "file": account.name,
                "events": account.events,
                "known": account.known,
                "set aside": sum(account.bad.values()),
                "reasons": ", ".join(account.bad),
            }
        )
        for account in done.files[:_FILES_SHOWN]
    ]
    shown: dict[str, dg.MetadataValue[Any]] = {
        "events_of_this_day": dg.MetadataValue.int(done.days.get(day, 0)),
        "lines_set_aside": dg.MetadataValue.int(sum(sum(account.bad.values()) for account in done.files)),
        "table_version": dg.MetadataValue.int(done.version),
    }
    if files:
        shown["files"] = dg.MetadataValue.table(files)
    return shown


def describe_refreshed(refreshed: Refreshed) -> str:
    """What was done for a day, as a sentence."""
    if not refreshed.written:
        return f"{refreshed.day}: nothing to do, it reflects version {refreshed.version} already"
    return f"{refreshed.day}: aggregated {refreshed.searches} searches as of version {refreshed.version}"
