"""The integrator's tables, where the settings say that they are."""

import dagster as dg

from dedp_assets.late_data_integrator import contract, state
from dedp_assets.late_data_integrator.delta_log import DeltaLog
from dedp_assets.late_data_integrator.device_counts import DeviceCounts
from dedp_assets.resources.object_store import storage_options


def devices_log() -> DeltaLog:
    """The log of the input table."""
    uri = contract.uri(contract.DEVICES)
    return DeltaLog(uri, storage_options(uri), contract.PARTITION_COLUMN)


def open_counts() -> DeviceCounts:
    """The table of counts as it is now."""
    uri = contract.uri(contract.DEVICE_COUNTS)
    return DeviceCounts.open(uri, storage_options(uri))


def look(instance: dg.DagsterInstance, without_run: str | None = None) -> state.Progress:
    """How far every day is; `without_run` is a run that is taken as over."""
    return state.look(devices_log(), open_counts(), state.days_in_progress(instance, without_run))


def publish_state(progress: state.Progress) -> bool:
    """Make the state table say so; returns whether it had to be written."""
    uri = contract.uri(contract.PARTITIONS_STATE)
    rows = state.state_rows(progress.recorded, progress.in_progress)
    return state.write_state(uri, rows, storage_options(uri))
