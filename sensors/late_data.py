"""The reconciling sensor of the late-data integrator: which days don't reflect their input, whatever events say."""

from collections.abc import Collection
from datetime import datetime, timezone

import dagster as dg

from dedp_assets.late_data_integrator import contract, lake, state
from dedp_assets.late_data_integrator.delta_log import TableMissing
from sensors import reconciliation
from sensors.automation import closed_partitions

TARGETS = [contract.DEVICE_COUNTS, contract.PARTITIONS_STATE, contract.BACKFILLING_CONFIGURATION]


def days_behind(progress: state.Progress, appeared: Collection[str], known: Collection[str]) -> dict[str, str]:
    """The days that should be processed again, or for the first time, with what identifies their input.

    appeared: days of which the input has ever had data. known: days that there are partitions for.
    """
    new = closed_partitions(progress.snapshot.files.keys() & known - progress.recorded.keys(), appeared)
    late = {day for day in progress.recorded if progress.is_late(day)}
    return {day: str(progress.snapshot.fingerprint(day)) for day in sorted(new | late)}


@dg.sensor(
    target=dg.AssetSelection.assets(*TARGETS),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=reconciliation.INTERVAL_SECONDS,
)
def late_data_reconciled(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Requests days that are still behind their input, and puts the state table right after a crash."""
    try:
        progress = lake.look(context.instance)
    except TableMissing as problem:
        return dg.SkipReason(str(problem))
    now = datetime.now(timezone.utc)
    behind = days_behind(
        progress,
        appeared=context.instance.get_materialized_partitions(contract.DEVICES),
        known=set(contract.DAYS.get_partition_keys(current_time=now)),
    )
    decision = reconciliation.decide(
        behind, reconciliation.from_json(context.cursor), progress.in_progress, now.timestamp()
    )
    repaired = lake.publish_state(progress)
    notes = [f"{len(behind)} behind their input: {', '.join(behind)}" if behind else "every day reflects its input"]
    if repaired:
        notes.append("the state table was put right")
    return dg.SensorResult(
        run_requests=[reconciliation.run_request(day, asked, TARGETS) for day, asked in decision.request.items()],
        skip_reason=None if decision.request else "; ".join(notes),
        cursor=reconciliation.to_json(decision.waiting),
    )
