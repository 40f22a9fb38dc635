"""`devices_file`: our own copy of each day's file, in internal storage."""

import time

import dagster as dg

from dedp_assets import partition_runs, settings
from dedp_assets.failures import named_failures
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.loader.landing import landing_folder
from dedp_assets.landing.taking_in import LandedFiles, TakingIn


@dg.asset(
    key=contract.DEVICES_FILE,
    partitions_def=contract.LOADS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="devices_loader",
    owners=["team:devices-loading"],
    kinds={"csv", "file"},
    metadata={
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, "string", description) for name, _, description in contract.DEVICES_FORMAT.columns]
        )
    },
    retry_policy=dg.RetryPolicy(max_retries=3, delay=20),
)
def devices_file(context: dg.AssetExecutionContext, config: LandedFiles) -> partition_runs.AssetResult:
    """One day's devices file, copied from the landing folder to internal storage.

    The file that came for the day (`devices/2024-01-03/dataset.csv`) wins over the undated one
    (`devices/dataset.csv`). The copy is replaced as a whole or not at all.
    """

    def take_in(day: str) -> partition_runs.Materialized:
        began = time.monotonic()
        taken = taking_in.take_in(day)
        if taken.kept_because:
            context.log.info(f"{day}: {taken.kept_because}; the day keeps what it has")
        return partition_runs.Materialized(
            data_version=taken.sha256, metadata={**taken.metadata, "seconds": round(time.monotonic() - began, 3)}
        )

    with named_failures(context.log):
        taking_in = TakingIn(landing_folder(), contract.internal_file, config, settings.settle_seconds())
        taking_in.observe_files(context.partition_keys)
        return partition_runs.materialize_each(context, take_in)
