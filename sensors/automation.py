"""When does a partition re-run? When its input changed, in any time window; this condition says exactly when."""

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import dagster as dg

from dedp_assets.days import closed_days

SENSOR_NAME = "follow_inputs"
SETTLE_SECONDS = "0.5"


def on_input_change() -> dg.AutomationCondition[dg.AssetKey]:
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


class UntilRequested(dg.AutomationCondition[dg.AssetKey]):
    """The operand has become true, and since then no tick has requested the asset.

    What Dagster's `since(newly_requested())` says, but for the tick that follows a request: if the operand is true
    in that tick, it became so after the request, and this stays true. `since` would take it back.
    """

    def __init__(self, operand: dg.AutomationCondition[Any]) -> None:
        self.operand = operand

    @property
    def name(self) -> str:
        return "until requested"

    @property
    def children(self) -> Sequence[dg.AutomationCondition[Any]]:
        return [self.operand]

    async def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:  # type: ignore[override]
        # Over every partition, whatever else holds of it: what became true now is not seen again later.
        everything = context.asset_graph_view.get_full_subset(key=context.key)
        now = await context.for_child_condition(self.operand, [0], everything).evaluate_async()
        before = context.previous_true_subset or context.get_empty_subset()
        requested = context.get_previous_requested_subset(context.key) or context.get_empty_subset()
        pending = before.compute_difference(requested).compute_union(now.true_subset)
        return dg.AutomationResult(context, pending, child_results=[now])


class UpdatedBeforeFirstTick(dg.AutomationCondition[dg.AssetKey]):
    """This is the first tick, and the input was updated after the last run of the asset was requested.

    In a first tick, which may also be one whose cursor was lost, Dagster takes no update for new. An asset that was
    materialized by hand, and whose input was updated since, would stay behind. For inputs with the asset's partitions.
    """

    @property
    def name(self) -> str:
        return "updated before the first tick"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
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


class AlreadyFollowed(dg.AutomationCondition[dg.AssetKey]):
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

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        instance, graph = context.asset_graph_view.instance, context.asset_graph
        target = context.root_context.key
        # Of an asset without partitions, the one partition is None.
        partitions = {partition for _, partition in context.candidate_subset.expensively_compute_asset_partitions()}
        if not partitions:
            return dg.AutomationResult(context, context.get_empty_subset())
        updates = _latest_records(instance, context.key, dg.DagsterEventType.ASSET_MATERIALIZATION, partitions)
        requests: Mapping[Any, dg.EventLogRecord] = {}
        if graph.get(context.key).partitions_def == graph.get(target).partitions_def:
            kind = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
            requests = _latest_records(instance, target, kind, updates.keys())
        runs = _runs(instance, [record.run_id for record in (*updates.values(), *requests.values())])
        updated_with = _assets_updated_with(
            instance, {record.run_id for record in updates.values()} & runs.keys(), runs
        )
        followed = {
            partition
            for partition, update in updates.items()
            if target in updated_with.get(update.run_id, ())
            or (partition in requests and _requested_since(update, requests[partition], runs))
        }
        if context.partitions_def is None:
            return dg.AutomationResult(context, context.candidate_subset if followed else context.get_empty_subset())
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection_with_partition_keys(followed))


class PartitionClosed(dg.AutomationCondition[dg.AssetKey]):
    """The partition after it has appeared in every input, in each of which nothing more is expected in it then."""

    @property
    def name(self) -> str:
        return "partition closed"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        closed = context.candidate_subset.expensively_compute_partition_keys()
        for key in context.asset_graph.get(context.key).parent_keys if closed else ():
            closed = closed_days(closed, context.asset_graph_view.instance.get_materialized_partitions(key))
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection_with_partition_keys(closed))


def behind_by_events(updated: Mapping[str, int], made: Mapping[str, int], requested: Mapping[str, int]) -> set[str]:
    """The partitions that were made, and whose input was updated after that was requested.

    Each is the number of the latest event per partition: the input was updated, the asset was made, was requested. What
    was requested after it was made may have failed.
    """
    return {day for day in updated.keys() & made.keys() if updated[day] > min(made[day], requested.get(day, made[day]))}


def _latest_events(instance: dg.DagsterInstance, key: dg.AssetKey, kind: dg.DagsterEventType) -> Mapping[str, int]:
    return instance.event_log_storage.get_latest_storage_id_by_partition(key, kind)


def _latest_records(
    instance: dg.DagsterInstance, key: dg.AssetKey, kind: dg.DagsterEventType, partitions: Collection[Any]
) -> dict[Any, dg.EventLogRecord]:
    """The latest event of a kind for each of the partitions that has one, in two queries; {None} is no partition."""
    if not partitions:
        return {}
    storage = instance.event_log_storage
    if None in partitions:
        found = storage.get_event_records(dg.EventRecordsFilter(kind, asset_key=key), limit=1)
        return dict.fromkeys([None], found[0]) if found else {}
    latest = storage.get_latest_storage_id_by_partition(key, kind, partitions=set(partitions))
    if not latest:
        return {}
    found = storage.get_event_records(
        dg.EventRecordsFilter(kind, asset_key=key, storage_ids=list(latest.values())), limit=len(latest)
    )
    return {record.partition_key: record for record in found}


def _runs(instance: dg.DagsterInstance, run_ids: Collection[str]) -> dict[str, dg.DagsterRun]:
    """Those of the runs that there are: what was reported from outside has none."""
    known = sorted({run_id for run_id in run_ids if run_id})
    return {run.run_id: run for run in instance.get_runs(dg.RunsFilter(run_ids=known))} if known else {}


def _assets_updated_with(
    instance: dg.DagsterInstance, run_ids: Collection[str], runs: Mapping[str, dg.DagsterRun]
) -> dict[str, set[dg.AssetKey]]:
    """For each run the assets that it was to update, or the backfill that it belongs to: a query for each backfill."""
    backfill_of = {run_id: runs[run_id].tags.get("dagster/backfill") for run_id in run_ids}
    backfills = {backfill_id: instance.get_backfill(backfill_id) for backfill_id in backfill_of.values() if backfill_id}
    backfilled = {backfill_id: (found and found.asset_selection) or () for backfill_id, found in backfills.items()}
    return {
        run_id: {*(runs[run_id].asset_selection or ()), *backfilled.get(backfill_id or "", ())}
        for run_id, backfill_id in backfill_of.items()
    }


def _requested_since(update: dg.EventLogRecord, planned: dg.EventLogRecord, runs: Mapping[str, dg.DagsterRun]) -> bool:
    """Whether the run that made this update, or a later one, is to update the asset in the same partition, or has."""
    if planned.storage_id < update.storage_id and planned.run_id != update.run_id:
        return False
    run = runs.get(planned.run_id)
    return run is not None and run.status not in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


class SettlingSensor(dg.AutomationConditionSensorDefinition):
    """Waits between the look at which events there are and the evaluation.

    A tick reads the events up to the highest id it sees first. In PostgreSQL an event with a lower id may be committed
    later, and without this pause no tick would ever see it; one with a higher id would be seen twice.
    """

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> Any:
        # Dagster takes the pause from the environment only, that of the process that evaluates: a code server, which
        # anybody may have started. Whoever has set it there, a scenario for one, is right.
        os.environ.setdefault("DAGSTER_AUTOMATION_TICK_SETTLE_SECONDS", SETTLE_SECONDS)
        return super().evaluate_tick(context)

    def with_attributes(self, *, jobs: Any = None, metadata: Any = None) -> "SettlingSensor":
        # Dagster's own would make a sensor of its own kind, which does not wait.
        return automation_sensor(metadata=self.metadata if metadata is None else metadata)


def automation_sensor(metadata: Mapping[str, Any] | None = None) -> SettlingSensor:
    """Evaluates the conditions of every asset and check in its code location."""
    with warnings.catch_warnings():
        # `use_user_code_server` is in beta, and used on purpose: the notice would head every command's output.
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        return SettlingSensor(
            SENSOR_NAME,
            target=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=1,
            metadata=metadata,
            # A backfill waits for its daemon, which wakes every 30 s; a run per partition starts at once.
            emit_backfills=False,
            # The condition is our own class, which only our own process knows.
            use_user_code_server=True,
        )
