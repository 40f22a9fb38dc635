"""When does a partition re-run? When its input changed, in any time window; this condition says exactly when."""

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg

SENSOR_NAME = "follow_inputs"


def on_input_change() -> dg.AutomationCondition:
    """A partition is missing, or an input was updated, since it was last requested; and its inputs are all there.

    Unlike `AutomationCondition.eager()` it acts on every time window, so late partitions run. And an update that
    lands between a request and the next tick is not forgotten with that request.
    """
    updated = dg.AutomationCondition.any_deps_match(
        ((dg.AutomationCondition.newly_updated() | UpdatedBeforeFirstTick()) & ~AlreadyFollowed())
        | dg.AutomationCondition.will_be_requested()
    ).with_label("input updated")
    return (
        UntilRequested(dg.AutomationCondition.newly_missing() | updated)
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.in_progress()
    ).with_label("on_input_change")


class UntilRequested(dg.AutomationCondition):
    """The operand has become true, and since then no tick has requested the asset.

    What Dagster's `since(newly_requested())` says, but for the tick that follows a request: if the operand is true
    in that tick, it became so after the request, and this stays true. `since` would take it back.
    """

    def __init__(self, operand: dg.AutomationCondition) -> None:
        self.operand = operand

    @property
    def name(self) -> str:
        return "until requested"

    @property
    def children(self) -> Sequence[dg.AutomationCondition]:
        return [self.operand]

    async def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:  # type: ignore[override]
        # Over every partition, whatever else holds of it: what became true now is not seen again later.
        everything = context.asset_graph_view.get_full_subset(key=context.key)
        now = await context.for_child_condition(self.operand, [0], everything).evaluate_async()
        before = context.previous_true_subset or context.get_empty_subset()
        requested = context.get_previous_requested_subset(context.key) or context.get_empty_subset()
        pending = before.compute_difference(requested).compute_union(now.true_subset)
        return dg.AutomationResult(context, pending, child_results=[now])


class UpdatedBeforeFirstTick(dg.AutomationCondition):
    """This is the first tick, and the input was updated after the last run of the asset was requested.

    In a first tick, which may also be one whose cursor was lost, Dagster takes no update for new. An asset that was
    materialized by hand, and whose input was updated since, would stay behind. For inputs with the asset's partitions.
    """

    @property
    def name(self) -> str:
        return "updated before the first tick"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        target, definition = context.root_context.key, context.partitions_def
        is_comparable = definition is not None and definition == context.asset_graph.get(target).partitions_def
        if context.previous_evaluation_time is not None or not is_comparable:
            return dg.AutomationResult(context, context.get_empty_subset())
        instance = context.asset_graph_view.instance
        behind = behind_by_events(
            _latest_events(instance, context.key, dg.DagsterEventType.ASSET_MATERIALIZATION),
            _latest_events(instance, target, dg.DagsterEventType.ASSET_MATERIALIZATION),
            _latest_events(instance, target, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED),
        )
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection_with_partition_keys(behind))


class AlreadyFollowed(dg.AutomationCondition):
    """Nothing is left to follow: the asset is updated together with this input, or its run was requested since.

    Together: by the same run or backfill. Dagster's own `executed_with_root_target()` knows this of an asset's latest
    materialization alone; where several partitions were updated since the last tick, it forgets it of all others, and
    they run twice. And it does not know backfills, which go from one code location to the next in runs of their own.

    Since: a tick decides by the events up to its beginning, but sees inputs that appear while it decides. The next tick
    gets their events, of which the run that was requested then knows everything.
    """

    @property
    def name(self) -> str:
        return "already followed"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        instance, graph = context.asset_graph_view.instance, context.asset_graph
        target = context.root_context.key
        same_partitions = graph.get(context.key).partitions_def == graph.get(target).partitions_def
        # Of an asset without partitions, the one partition is None.
        followed: set[Any] = set()
        for _, partition in context.candidate_subset.expensively_compute_asset_partitions():
            update = _latest_update(instance, context.key, partition)
            if update is not None and (
                target in _assets_updated_with(instance, update)
                or (same_partitions and _requested_since(instance, target, update))
            ):
                followed.add(partition)
        if context.partitions_def is None:
            return dg.AutomationResult(context, context.candidate_subset if followed else context.get_empty_subset())
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection_with_partition_keys(followed))


class PartitionClosed(dg.AutomationCondition):
    """The partition after it has appeared in every input, in each of which nothing more is expected in it then."""

    @property
    def name(self) -> str:
        return "partition closed"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        closed = context.candidate_subset.expensively_compute_partition_keys()
        for key in context.asset_graph.get(context.key).parent_keys if closed else ():
            closed = closed_partitions(closed, context.asset_graph_view.instance.get_materialized_partitions(key))
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection_with_partition_keys(closed))


def closed_partitions(days: Collection[str], appeared: Collection[str]) -> set[str]:
    """Those of the days whose next day is among those that have appeared."""
    return {day for day in days if (date.fromisoformat(day) + timedelta(days=1)).isoformat() in appeared}


def behind_by_events(updated: Mapping[str, int], made: Mapping[str, int], requested: Mapping[str, int]) -> set[str]:
    """The partitions that were made, and whose input was updated after that was requested.

    Each is the number of the latest event per partition: the input was updated, the asset was made, was requested. What
    was requested after it was made may have failed.
    """
    return {day for day in updated.keys() & made.keys() if updated[day] > min(made[day], requested.get(day, made[day]))}


def _latest_events(instance: dg.DagsterInstance, key: dg.AssetKey, kind: dg.DagsterEventType) -> Mapping[str, int]:
    return instance.event_log_storage.get_latest_storage_id_by_partition(key, kind)


def _latest_update(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=None if partition is None else [partition])
    return next(iter(instance.fetch_materializations(wanted, limit=1).records), None)


def _assets_updated_with(instance: dg.DagsterInstance, update: dg.EventLogRecord) -> set[dg.AssetKey]:
    """The assets that the run which made this update was to update, or the backfill of that run."""
    run = instance.get_run_by_id(update.run_id)
    if run is None:
        return set()
    backfill_id = run.tags.get("dagster/backfill")
    backfill = instance.get_backfill(backfill_id) if backfill_id else None
    return {*(run.asset_selection or ()), *((backfill and backfill.asset_selection) or ())}


def _requested_since(instance: dg.DagsterInstance, key: dg.AssetKey, update: dg.EventLogRecord) -> bool:
    """Whether the run that made this update, or a later one, is to update the asset in the same partition, or has."""
    planned = instance.event_log_storage.get_latest_planned_materialization_info(key, update.partition_key)
    if planned is None or (planned.storage_id < update.storage_id and planned.run_id != update.run_id):
        return False
    run = instance.get_run_by_id(planned.run_id)
    return run is not None and run.status not in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions of every asset and check in its code location."""
    # A tick reads the events up to the highest id it sees first. In PostgreSQL an event with a lower id may be
    # committed later, and without this pause no tick would ever see it; one with a higher id would be seen twice.
    os.environ.setdefault("DAGSTER_AUTOMATION_TICK_SETTLE_SECONDS", "0.5")
    return dg.AutomationConditionSensorDefinition(
        SENSOR_NAME,
        target=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=1,
        # A backfill waits for its daemon, which wakes every 30 s; a run per partition starts at once.
        emit_backfills=False,
        # The condition is our own class, which only our own process knows.
        use_user_code_server=True,
    )
