"""What the aggregating team reconciles: loads that do not reflect the copied files, and totals that are out of date."""

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import NamedTuple

import dagster as dg

from dedp_assets.isolated_sequencer import contract
from dedp_assets.isolated_sequencer.aggregator.loading import LoadState, load_states
from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from dedp_assets.landing.copies import is_refused, read_record
from dedp_assets.partition_runs import partitions_in_progress
from sensors.reconciliation import Observation, reconciling_sensor

TARGETS = [contract.DEVICES_RAW, contract.DEVICES_AGGREGATES]

# A retry repeats all days of its run. This keeps that bounded.
MAX_DAYS_PER_RUN = 100
# Of many files at once so many share a run: it costs as much as a dozen small loads. Of big ones, four runs work at a
# time.
DAYS_FOLLOWED_PER_RUN = 10


class Copy(NamedTuple):
    """A day's copy in internal storage.

    Attributes:
        sha256: the SHA-256 of its content. None if no record says what it was copied from.
        is_refused: whether this content could not be loaded.
    """

    sha256: str | None
    is_refused: bool = False


def loads_behind(
    copies: Mapping[str, Copy], loads: Mapping[str, LoadState], reported: Mapping[str, str]
) -> dict[str, str]:
    """The days whose load does not reflect the copy, or whose totals do not reflect the load.

    Args:
        copies: the copy of each day that has one.
        loads: the load of each day that has one.
        reported: for days without a load, the SHA-256 of the content that Dagster knows as loaded. Somebody has deleted
            these loads. Such a day is loaded again when another file arrives, or when somebody materializes it.

    Returns:
        For each of these days what is wrong, with the SHA-256 that it should reflect.
    """
    behind = {}
    for day, copy in copies.items():
        load = loads.get(day)
        if copy.is_refused:
            continue
        if load is None:
            if day not in reported or (copy.sha256 is not None and reported[day] != copy.sha256):
                behind[day] = f"not loaded: {copy.sha256}"
        elif copy.sha256 is not None and load.sha256 != copy.sha256:
            behind[day] = f"loaded from another file: {copy.sha256}"
        elif not load.is_folded:
            behind[day] = f"totals not refreshed: {load.sha256}"
    return behind


def _observe(context: dg.SensorEvaluationContext, notes: list[str]) -> Observation:
    # Read the runs before the copies and the loads. Otherwise a run that ends in between would be requested again.
    in_progress = partitions_in_progress(context.instance, contract.DEVICES_RAW, contract.LOADS)
    in_progress |= partitions_in_progress(context.instance, contract.DEVICES_AGGREGATES, contract.LOADS)
    due = contract.due_days(datetime.now(timezone.utc))
    copies = {day: copy for day in due if (copy := copy_of(day)) is not None}
    refused = [day for day, copy in copies.items() if copy.is_refused]
    if refused:
        notes.append(f"can't be loaded until another file arrives: {', '.join(refused)}")
    with context.resources.postgres.connect() as connection:
        ensure_tables(connection)
        loads = load_states(connection)
    by_day = {day: loads[contract.load_id(day)] for day in copies if contract.load_id(day) in loads}
    reported = _reported_sha256s(context.instance, copies.keys() - by_day.keys())
    return Observation(loads_behind(copies, by_day, reported), in_progress)


def copy_of(day: str) -> Copy | None:
    """The copy of a day; None if there is none."""
    file = contract.internal_file(day)
    if not os.path.exists(file):
        return None
    copied = read_record(file)
    return Copy(copied.sha256 if copied else None, is_refused(file))


def _reported_sha256s(instance: dg.DagsterInstance, days: set[str]) -> dict[str, str]:
    """The SHA-256 in the latest materialization of each day that has one; "" if the event does not say."""
    materialized = instance.get_materialized_partitions(contract.DEVICES_RAW) if days else set()
    reported = {}
    for day in days & materialized:
        latest = dg.AssetRecordsFilter(contract.DEVICES_RAW, asset_partitions=[day])
        for record in instance.fetch_materializations(latest, limit=1).records:
            metadata = record.asset_materialization.metadata if record.asset_materialization else {}
            reported[day] = str(metadata["file_sha256"].value) if "file_sha256" in metadata else ""
    return reported


devices_raw_reconciled = reconciling_sensor(
    "devices_raw_reconciled",
    TARGETS,
    _observe,
    description="Requests days whose load or totals stay behind the copied file, whatever events say.",
    partitions_per_run=MAX_DAYS_PER_RUN,
    order=lambda: contract.due_days(datetime.now(timezone.utc)),
    required_resource_keys={"postgres"},
)
