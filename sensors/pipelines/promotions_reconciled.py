"""Requests deliveries whose load or metrics stay behind our copy, whatever events say.

The rule of the pauses is that of `sensors.reconciliation`. With thousands of deliveries, a tick compares those that are
recent or new, and a share of the others.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import dagster as dg

from dedp_assets.landing.deliveries import MAX_DELIVERIES_PER_RUN, RECENT_DAYS, is_day
from dedp_assets.origin import origin_tag
from dedp_assets.partition_runs import runs_in_progress
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries.config import ToTake
from dedp_assets.promotions.deliveries.refresh_request import JOB
from dedp_assets.promotions.deliveries.tables import LoadState, ensure_tables, loaded_versions, loads_since
from dedp_assets.run_processes import fail_ended_runs
from dedp_assets.wording import counted
from sensors.pipelines.promotions import LINES_CHECK, TARGETS, copies_of, deliveries_of, is_behind, run_config
from sensors.reconciliation import CAUSE_TAG, INTERVAL_SECONDS, Waiting, describe_cause, plan_requests
from sensors.ticks import TickReport, reporting_tick, some_of

# Beside the copies of the last days, a tick reads so many others of one supplier in turn.
_COPIES_IN_TURN = 25
# After so many ticks all loads are compared with their metrics, and not only the new ones.
_FULL_COMPARISON_TICKS = 60
# A full comparison looks for the materializations of so many of the last loads. Each is a query.
_LAST_LOADS = 100


@dataclass(frozen=True)
class Progress:
    """How far the ticks before have compared. One that was lost costs a full comparison.

    Attributes:
        compared: All loads up to this number are measured and reported.
        turn: How many ticks there were.
        waiting: Deliveries that are behind, by partition key.
    """

    compared: int = 0
    turn: int = 0
    waiting: dict[str, Waiting] = field(default_factory=dict)

    def to_json(self) -> str:
        """The cursor, as Dagster stores it."""
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str | None) -> "Progress":
        """The stored cursor; an empty one if there is none, or if it is not ours."""
        try:
            stored = json.loads(text or "{}")
            waiting = {key: Waiting(*each) for key, each in stored.get("waiting", {}).items()}
            return cls(int(stored.get("compared", 0)), int(stored.get("turn", 0)), waiting)
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            return cls()


def loads_behind(loads: Sequence[LoadState], reported: Mapping[Delivery, str]) -> dict[Delivery, str]:
    """Loads that are not measured, or of which Dagster does not know.

    Args:
        loads: Loads, in the order of their numbers.
        reported: The version in the last materialization of `promotions/metrics`, of the loads to compare with it; ""
            if there is none.

    Returns:
        For each of these deliveries what is wrong, with what identifies the load.
    """
    behind = {}
    for load in loads:
        if not load.is_measured:
            behind[load.delivery] = f"not measured: load {load.load_number}"
        elif reported.get(load.delivery, load.version) != load.version:
            behind[load.delivery] = f"not reported: load {load.load_number}"
    return behind


def compared_until(before: int, loads: Sequence[LoadState], behind: Mapping[Delivery, str]) -> int:
    """Up to which number all loads are right. Numbers become visible in their order, so none comes in between later."""
    first_behind = next((load.load_number for load in loads if load.delivery in behind), None)
    if first_behind is not None:
        return first_behind - 1
    return loads[-1].load_number if loads else before


@dg.sensor(
    name="promotions_reconciled",
    target=dg.AssetSelection.assets(*TARGETS),
    description="Requests deliveries whose load or metrics stay behind our copy, whatever events say.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=INTERVAL_SECONDS,
    required_resource_keys={"postgres"},
)
@reporting_tick
def promotions_reconciled(context: dg.SensorEvaluationContext, report: TickReport) -> None:
    """Compare copies with loads, and loads with metrics and with what Dagster knows."""
    ended = fail_ended_runs(context.instance)
    if ended:
        report.notes.append(f"reported as failed, because their processes have ended: {', '.join(ended)}")
    progress = Progress.from_json(context.cursor)
    # Read the runs before the copies and the loads. Otherwise a run that ends in between would be requested again.
    in_progress = _in_progress(context.instance)
    behind, compared = _behind(context, progress)
    now = datetime.now(timezone.utc).timestamp()
    plan = plan_requests(behind, progress.waiting, in_progress, now)
    names = some_of(list(behind))
    report.notes.insert(0, f"{counted(len(behind), 'partition')} behind: {names}" if behind else "nothing is behind")
    report.run_requests = _shared_requests(plan.requests)
    report.cursor = Progress(compared, progress.turn + 1, plan.waiting).to_json()


def _in_progress(instance: dg.DagsterInstance) -> set[str]:
    runs = {run.run_id: run for target in TARGETS for run in runs_in_progress(instance, target, jobs=[JOB])}
    return {Delivery(*key).key for run in runs.values() for key in deliveries_of(run)}


def _behind(context: dg.SensorEvaluationContext, progress: Progress) -> tuple[dict[str, str], int]:
    """The deliveries that are behind, each with what it should reflect, and up to which load all is right."""
    asked = dict.fromkeys([*map(Delivery.of_key, progress.waiting), *_copies_in_turn(progress.turn)])
    copies = copies_of(asked)
    is_full = progress.turn % _FULL_COMPARISON_TICKS == 0
    with context.resources.postgres.connect() as connection:
        ensure_tables(connection)
        loaded = loaded_versions(connection, copies)
        loads = loads_since(connection, 0 if is_full else progress.compared)
    # Suppliers that the setting does not name any more have no partitions.
    known = set(contract.SUPPLIERS.get_partition_keys())
    loads = [load for load in loads if load.delivery.supplier in known]
    reported = {load.delivery: _reported(context.instance, load.delivery) for load in loads[-_LAST_LOADS:]}
    behind = loads_behind(loads, reported)
    compared = compared_until(progress.compared, loads, behind)
    for delivery, copy in copies.items():
        if is_behind(delivery, copy, loaded):
            behind[delivery] = f"not loaded: {copy.version}"
    return {delivery.key: why for delivery, why in behind.items()}, compared


def _copies_in_turn(turn: int) -> Iterator[Delivery]:
    """The deliveries of the last days, and a share of one supplier's other ones."""
    suppliers, today = contract.SUPPLIERS.get_partition_keys(), datetime.now(timezone.utc).date()
    recent = [(today - timedelta(days=n)).isoformat() for n in range(RECENT_DAYS)]
    yield from (Delivery(supplier, day) for supplier in suppliers for day in recent)
    supplier, turn = suppliers[turn % len(suppliers)], turn // len(suppliers)
    try:
        days = sorted(os.listdir(contract.internal_folders() / supplier))
    except OSError:
        return  # nothing was copied yet
    begin = turn % max(1, -(-len(days) // _COPIES_IN_TURN)) * _COPIES_IN_TURN
    yield from (Delivery(supplier, day) for day in days[begin : begin + _COPIES_IN_TURN] if is_day(day))


def _reported(instance: dg.DagsterInstance, delivery: Delivery) -> str:
    """The version in the last materialization of a delivery's metrics; "" if there is none."""
    latest = dg.AssetRecordsFilter(contract.METRICS, asset_partitions=[delivery.key])
    for record in instance.fetch_materializations(latest, limit=1).records:
        materialization = record.asset_materialization
        return (materialization.tags or {}).get("dagster/data_version", "") if materialization else ""
    return ""


def _shared_requests(waiting: Mapping[str, Waiting]) -> list[dg.RunRequest]:
    """Runs for deliveries that are behind, many of them in one."""
    keys = sorted(waiting)
    groups = [keys[at : at + MAX_DELIVERIES_PER_RUN] for at in range(0, len(keys), MAX_DELIVERIES_PER_RUN)]
    return [_shared_request([Delivery.of_key(key) for key in group], waiting) for group in groups]


def _shared_request(deliveries: Sequence[Delivery], waiting: Mapping[str, Waiting]) -> dg.RunRequest:
    each_waiting = [waiting[delivery.key] for delivery in deliveries]
    inputs = hashlib.sha256(json.dumps(each_waiting).encode()).hexdigest()[:16]
    config = [ToTake(supplier=each.supplier, day=each.day, look="", ready_at="") for each in deliveries]
    return dg.RunRequest(
        run_key=f"{deliveries[0].key}:{inputs}",
        asset_selection=TARGETS,
        asset_check_keys=[LINES_CHECK],
        run_config=run_config(config),
        partition_key=deliveries[0].key if len(deliveries) == 1 else None,
        tags={CAUSE_TAG: describe_cause(each_waiting), **origin_tag("rule")},
    )
