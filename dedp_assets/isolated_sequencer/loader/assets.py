"""`devices_file`: each day's file, in internal storage, whole and under our own roof."""

import time

import dagster as dg

from dedp_assets import partition_runs, settings
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader import landing
from dedp_assets.isolated_sequencer.loader.copying import NotCopied, StillBeingWritten, copy_when_settled


@dg.asset(
    key=contract.DEVICES_FILE,
    partitions_def=contract.LOADS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="devices_loader",
    owners=["team:devices-loading"],
    kinds={"csv", "file"},
    metadata={"dagster/column_schema": dg.TableSchema([dg.TableColumn(name, "string") for name in contract.HEADER])},
    retry_policy=dg.RetryPolicy(max_retries=3, delay=20),
)
def devices_file(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """One day's devices file, copied from the landing folder to internal storage.

    The file that came for the day (`devices/2024-01-03/dataset.csv`) wins over the undated one
    (`devices/dataset.csv`). The copy is replaced as a whole or not at all.
    """
    return partition_runs.materialize_each(context, _take_in, failures=(NotCopied,), retryable=(StillBeingWritten,))


def _take_in(partition_key: str) -> partition_runs.Materialized:
    began = time.monotonic()
    destination = contract.internal_file(partition_key)
    copied = copy_when_settled(landing.file_of(partition_key), destination, settle_seconds=settings.settle_seconds())
    return partition_runs.Materialized(
        data_version=copied.sha256,
        metadata={
            "source": dg.MetadataValue.path(str(copied.source)),
            "path": dg.MetadataValue.path(str(destination)),
            "size_bytes": copied.size_bytes,
            # Lines without the header, which is what will be read; a broken file may have none.
            "dagster/partition_row_count": max(0, copied.line_count - 1),
            "sha256": copied.sha256,
            "seconds": round(time.monotonic() - began, 3),
        },
    )
