"""The reconciling sensor of the aggregating team: which loads don't reflect the files that were taken in."""

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import NamedTuple

import dagster as dg

from dedp_assets.errors import DedpError, TransientError
from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.aggregator.loading import LoadState, load_states
from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from dedp_assets.landing.copies import is_refused, read_record
from dedp_assets.partition_runs import partitions_in_progress
from sensors.reconciliation import NotObservable, Observed, reconciling_sensor

TARGETS = [contract.DEVICES_RAW, contract.DEVICES_AGGREGATES]

# As the file sensor: so that a retry does not repeat a year.
MAX_DAYS_PER_RUN = 100


class Copy(NamedTuple):
    """A day's copy in internal storage: its SHA-256, None for one that does not say; whether it can't be loaded."""

    sha256: str | None
    is_refused: bool = False


def loads_behind(copies: Mapping[str, Copy], loads: Mapping[str, LoadState], told: Mapping[str, str]) -> dict[str, str]:
    """The days whose load does not reflect its copy, or whose totals don't reflect the load, with what it should be.

    told: the SHA-256 that Dagster was last told to be loaded, of days without a load. Such a load was there, and
    somebody has deleted it: it comes back with another file, or by hand.
    """
    behind = {}
    for day, copy in copies.items():
        load = loads.get(day)
        if copy.is_refused:
            continue
        if load is None:
            if day not in told or (copy.sha256 is not None and told[day] != copy.sha256):
                behind[day] = f"not loaded: {copy.sha256}"
        elif copy.sha256 is not None and load.sha256 != copy.sha256:
            behind[day] = f"loaded from another file: {copy.sha256}"
        elif not load.is_folded:
            behind[day] = f"totals not refreshed: {load.sha256}"
    return behind


def _observe(context: dg.SensorEvaluationContext) -> Observed:
    # First the runs, then what they have done: a run that ends in between is not taken for one that never was.
    in_progress = partitions_in_progress(context.instance, contract.DEVICES_RAW, contract.LOADS)
    in_progress |= partitions_in_progress(context.instance, contract.DEVICES_AGGREGATES, contract.LOADS)
    due = contract.due_days(datetime.now(timezone.utc))
    copies = {day: copy for day in due if (copy := copy_of(day)) is not None}
    try:
        with context.resources.postgres.connect() as connection:
            ensure_tables(connection)
            loads = load_states(connection)
    except TransientError as error:
        raise NotObservable(f"{error}; loads that are behind are requested when it is back") from error
    except DedpError as error:
        raise NotObservable(str(error)) from error
    by_day = {day: loads[contract.load_id(day)] for day in copies if contract.load_id(day) in loads}
    behind = loads_behind(copies, by_day, _told(context.instance, copies.keys() - by_day.keys()))
    refused = [day for day, copy in copies.items() if copy.is_refused]
    notes = [f"can't be loaded, until another file comes: {', '.join(refused)}"] if refused else []
    return Observed(behind, in_progress, notes)


def copy_of(day: str) -> Copy | None:
    """The day's copy; None if there is none."""
    file = contract.internal_file(day)
    if not os.path.exists(file):
        return None
    copied = read_record(file)
    return Copy(copied.sha256 if copied else None, is_refused(file))


def _told(instance: dg.DagsterInstance, days: set[str]) -> dict[str, str]:
    known = instance.get_materialized_partitions(contract.DEVICES_RAW) if days else set()
    told = {}
    for day in days & known:
        wanted = dg.AssetRecordsFilter(contract.DEVICES_RAW, asset_partitions=[day])
        for record in instance.fetch_materializations(wanted, limit=1).records:
            metadata = record.asset_materialization.metadata if record.asset_materialization else {}
            told[day] = str(metadata["file_sha256"].value) if "file_sha256" in metadata else ""
    return told


devices_raw_reconciled = reconciling_sensor(
    "devices_raw_reconciled",
    TARGETS,
    _observe,
    description="Requests days whose load or totals stay behind the file that was taken in, whatever events say.",
    partitions_per_run=MAX_DAYS_PER_RUN,
    order=lambda: contract.due_days(datetime.now(timezone.utc)),
    required_resource_keys={"postgres"},
)
