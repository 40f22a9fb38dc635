"""The condition that makes a partition run again when its inputs have changed, and the sensor that evaluates it."""

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import dagster as dg
from dagster_shared.record import replace

from dedp_assets.days import closed_days
from dedp_assets.partition_runs import consecutive, range_tags

SENSOR_NAME = "follow_inputs"
SETTLE_SECONDS = "0.5"


# How many of the inputs of an asset: "all", "any", or a number.
Quorum: TypeAlias = int | Literal["all", "any"]


def on_input_change(*, existing: Quorum = "all", updated: Quorum = "any") -> dg.AutomationCondition[dg.AssetKey]:
    """Request a partition that is missing, or whose inputs were updated after the partition was last requested.

    No run of the partition may be in progress.

    There are two differences to `AutomationCondition.eager()`. It acts on partitions of every time window, so that late
    data is followed. And if an input is updated between a request and the next tick, that update is not lost.

    Args:
        existing: How many of the inputs have to exist. An input exists for a partition if none of its partitions that
            the partition needs is missing. "any": one partition of one input is enough, so a month is summed up
            although some of its days are missing.
        updated: How many of the inputs must have been updated since the partition was last requested. With "any", each
            update of each input is followed. With "all" or a number, an update waits until enough other inputs are
            updated, too; it is not forgotten. A partition that was never made waits for `existing` alone.

    Raises:
        ValueError: A number is less than 1.
    """
    for name, quorum in (("existing", existing), ("updated", updated)):
        if quorum not in ("all", "any") and int(quorum) < 1:
            raise ValueError(f"{name}={quorum!r}: expected 'all', 'any', or at least 1")
    new = (dg.AutomationCondition.newly_updated() | UpdatedBeforeFirstTick()) & ~AlreadyFollowed()
    if updated in ("any", 1):
        changed = dg.AutomationCondition.any_deps_match(new | dg.AutomationCondition.will_be_requested()).with_label(
            "input updated"
        )
        pending: dg.AutomationCondition[dg.AssetKey] = UntilRequested(dg.AutomationCondition.newly_missing() | changed)
    else:
        pending = UntilRequested(dg.AutomationCondition.newly_missing()) | UpdatedInputs(new, updated)
    is_here = ~dg.AutomationCondition.missing() | dg.AutomationCondition.will_be_requested()
    ready: dg.AutomationCondition[Any]
    if existing == "all":
        ready = ~dg.AutomationCondition.any_deps_missing()
    elif existing == "any":
        ready = dg.AutomationCondition.any_deps_match(is_here).with_label("any input exists")
    else:
        ready = CompleteInputs(~is_here, existing)
    return (pending & ready & ~dg.AutomationCondition.in_progress()).with_label("on_input_change")


class UntilRequested(dg.AutomationCondition[dg.AssetKey]):
    """The operand has been true in some tick, and the asset has not been requested after that.

    Dagster's `since(newly_requested())` differs in the tick that follows a request. If the operand is true in that
    tick, it became true after the request. This condition then stays true, but `since` becomes false.
    """

    def __init__(self, operand: dg.AutomationCondition[Any], of: str = "") -> None:
        self.operand = operand
        self._of = of

    @property
    def name(self) -> str:
        # Dagster remembers the state of a condition by its name, and by its place among its siblings.
        return f"until requested {self._of}".rstrip()

    @property
    def children(self) -> Sequence[dg.AutomationCondition[Any]]:
        return [self.operand]

    async def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:  # type: ignore[override]
        # Evaluate all partitions, not only the candidates: an operand that is true now may be false in the next tick.
        everything = context.asset_graph_view.get_full_subset(key=context.key)
        now = await context.for_child_condition(self.operand, [0], everything).evaluate_async()
        before = context.previous_true_subset or context.get_empty_subset()
        requested = context.get_previous_requested_subset(context.key) or context.get_empty_subset()
        pending = before.compute_difference(requested).compute_union(now.true_subset)
        return dg.AutomationResult(context, pending, child_results=[now])


class CompleteInputs(dg.AutomationCondition[dg.AssetKey]):
    """So many inputs have no partition, of those that the partition needs, for which the operand is true.

    Args:
        is_missing: says of a partition of an input that it is missing.
        at_least: how many inputs have to be complete.
    """

    def __init__(self, is_missing: dg.AutomationCondition[Any], at_least: Quorum) -> None:
        self.operand, self.at_least = is_missing, at_least

    @property
    def name(self) -> str:
        return f"{self.at_least} inputs complete"

    @property
    def children(self) -> Sequence[dg.AutomationCondition[Any]]:
        return [self.operand]

    async def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:  # type: ignore[override]
        results = await _each(
            context, [dg.AutomationCondition.asset_matches(key, self.operand) for key in _inputs(context)]
        )
        complete = [context.candidate_subset.compute_difference(result.true_subset) for result in results]
        return dg.AutomationResult(context, _in_enough(context, complete, self.at_least), child_results=results)


class UpdatedInputs(dg.AutomationCondition[dg.AssetKey]):
    """So many inputs were updated, and the asset has not been requested after that.

    Args:
        is_updated: says of a partition of an input that it was updated just now.
        at_least: how many inputs have to be updated, each of them at any time since the last request.
    """

    def __init__(self, is_updated: dg.AutomationCondition[Any], at_least: Quorum) -> None:
        self.operand, self.at_least = is_updated, at_least

    @property
    def name(self) -> str:
        return f"{self.at_least} inputs updated"

    @property
    def children(self) -> Sequence[dg.AutomationCondition[Any]]:
        return [self.operand]

    async def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:  # type: ignore[override]
        updated = [
            UntilRequested(dg.AutomationCondition.asset_matches(key, self.operand), of=key.to_user_string())
            for key in _inputs(context)
        ]
        results = await _each(context, updated)
        enough = _in_enough(context, [result.true_subset for result in results], self.at_least)
        return dg.AutomationResult(context, enough, child_results=results)


def _inputs(context: dg.AutomationContext[dg.AssetKey]) -> list[dg.AssetKey]:
    return sorted(context.asset_graph.get(context.key).parent_keys)


async def _each(
    context: dg.AutomationContext[dg.AssetKey], conditions: Sequence[dg.AutomationCondition[Any]]
) -> list[dg.AutomationResult[dg.AssetKey]]:
    # Without an index, so that the state of an input stays with its name when other inputs come or go.
    return [
        await context.for_child_condition(condition, [None], context.candidate_subset).evaluate_async()
        for condition in conditions
    ]


def _in_enough(context: dg.AutomationContext[dg.AssetKey], subsets: Sequence[Any], at_least: Quorum) -> Any:
    """The candidates that are in at least so many of the subsets. There is one subset for each input."""
    needed = len(subsets) if at_least == "all" else 1 if at_least == "any" else at_least
    # At place n are the candidates that are in n of the subsets so far.
    counted = [context.candidate_subset, *[context.get_empty_subset()] * needed]
    for subset in subsets:
        for number in range(needed, 0, -1):
            counted[number] = counted[number].compute_union(counted[number - 1].compute_intersection(subset))
    return counted[needed]


class UpdatedBeforeFirstTick(dg.AutomationCondition[dg.AssetKey]):
    """This is the first tick, and the input was updated after the last run of the asset was requested.

    In its first tick Dagster counts no update as new. A tick whose cursor was lost is a first tick, too. An asset that
    was materialized by hand would stay behind an input that was updated later.

    If the input has other partitions than the asset, each partition that was made is mapped to its input. That takes
    some ms for each of them. It applies to assets and inputs that both have partitions.
    """

    @property
    def name(self) -> str:
        return "updated before the first tick"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        target, definition = context.root_context.key, context.partitions_def
        target_definition = context.asset_graph.get(target).partitions_def
        if context.previous_evaluation_time is not None or definition is None or target_definition is None:
            return dg.AutomationResult(context, context.get_empty_subset())
        instance = context.asset_graph_view.instance
        updated = _latest_events(instance, context.key, dg.DagsterEventType.ASSET_MATERIALIZATION)
        made = _latest_events(instance, target, dg.DagsterEventType.ASSET_MATERIALIZATION)
        requested = _latest_events(instance, target, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
        if definition != target_definition:
            everything = context.asset_graph_view.get_full_subset(key=target)
            reads = {
                partition: everything.compute_intersection_with_partition_keys({partition})
                .compute_parent_subset(context.key)
                .expensively_compute_partition_keys()
                for partition in made
            }
            made, requested = reflected_by_input(reads, made, requested), {}
        behind = behind_by_events(updated, made, requested)
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection_with_partition_keys(behind))


class AlreadyFollowed(dg.AutomationCondition[dg.AssetKey]):
    """The update of the input needs no request, for one of two reasons.

    1. The same run or backfill also updates the asset. Dagster's own `executed_with_root_target()` looks only at the
       latest materialization of an asset. If several partitions were updated since the last tick, it is right for one
       of them, and the others run twice. It also does not know that a backfill continues in the next code location, in
       runs of its own.
    2. A run of the asset was requested after the update. A tick reads the events up to its beginning, but it also sees
       inputs that appear while it evaluates. The next tick gets the events of those inputs. The run that was requested
       in the first tick has read them already.
    """

    @property
    def name(self) -> str:
        return "already followed"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        instance, graph = context.asset_graph_view.instance, context.asset_graph
        target = context.root_context.key
        # An asset without partitions has one partition here, which is None.
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
    """Every input has data for the next partition: a day is closed once data for the next day exists."""

    @property
    def name(self) -> str:
        return "partition closed"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        closed = context.candidate_subset.expensively_compute_partition_keys()
        for key in context.asset_graph.get(context.key).parent_keys if closed else ():
            closed = closed_days(closed, context.asset_graph_view.instance.get_materialized_partitions(key))
        return dg.AutomationResult(context, context.candidate_subset.compute_intersection_with_partition_keys(closed))


def behind_by_events(updated: Mapping[str, int], made: Mapping[str, int], requested: Mapping[str, int]) -> set[str]:
    """The partitions whose input was updated after their last run was requested. It needs a materialization to compare.

    Args:
        updated: for each partition the id of the latest event that its input was updated.
        made: the same for the event that the asset was materialized.
        requested: the same for the event that a run of the asset was requested. If it is later than `made`, the run may
            have failed, so the earlier of the two counts.
    """
    return {day for day in updated.keys() & made.keys() if updated[day] > min(made[day], requested.get(day, made[day]))}


def reflected_by_input(
    reads: Mapping[str, Collection[str]], made: Mapping[str, int], requested: Mapping[str, int]
) -> dict[str, int]:
    """For each partition of an input the id of the event that the least recent of its readers was made or requested.

    Args:
        reads: for each partition that was made, the partitions of the input that it reads.
        made: for each of these partitions the id of the latest event that it was made.
        requested: the same for the event that its run was requested, see `behind_by_events`.
    """
    reflected: dict[str, int] = {}
    for partition, inputs in reads.items():
        event = min(made[partition], requested.get(partition, made[partition]))
        for each in inputs:
            reflected[each] = min(event, reflected.get(each, event))
    return reflected


def _latest_events(instance: dg.DagsterInstance, key: dg.AssetKey, kind: dg.DagsterEventType) -> Mapping[str, int]:
    return instance.event_log_storage.get_latest_storage_id_by_partition(key, kind)


def _latest_records(
    instance: dg.DagsterInstance, key: dg.AssetKey, kind: dg.DagsterEventType, partitions: Collection[Any]
) -> dict[Any, dg.EventLogRecord]:
    """The latest event of a kind, for each of the partitions that has one, in two queries.

    Args:
        instance: the instance that has the events.
        key: the asset.
        kind: the kind of event.
        partitions: the partitions. {None} for an asset without partitions.
    """
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
    """The runs that exist, by id. An event that was reported from outside has no run."""
    known = sorted({run_id for run_id in run_ids if run_id})
    return {run.run_id: run for run in instance.get_runs(dg.RunsFilter(run_ids=known))} if known else {}


def _assets_updated_with(
    instance: dg.DagsterInstance, run_ids: Collection[str], runs: Mapping[str, dg.DagsterRun]
) -> dict[str, set[dg.AssetKey]]:
    """For each run, the assets that the run or its backfill should update. It takes one query for each backfill."""
    backfill_of = {run_id: runs[run_id].tags.get("dagster/backfill") for run_id in run_ids}
    backfills = {backfill_id: instance.get_backfill(backfill_id) for backfill_id in backfill_of.values() if backfill_id}
    backfilled = {backfill_id: (found and found.asset_selection) or () for backfill_id, found in backfills.items()}
    return {
        run_id: {*(runs[run_id].asset_selection or ()), *backfilled.get(backfill_id or "", ())}
        for run_id, backfill_id in backfill_of.items()
    }


def _requested_since(update: dg.EventLogRecord, planned: dg.EventLogRecord, runs: Mapping[str, dg.DagsterRun]) -> bool:
    """Whether the run that made the update, or a later run, also updates the asset in the same partition."""
    if planned.storage_id < update.storage_id and planned.run_id != update.run_id:
        return False
    run = runs.get(planned.run_id)
    return run is not None and run.status not in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def in_ranges(
    requests: Sequence[dg.RunRequest],
    order_of: Callable[[Collection[dg.AssetKey]], Sequence[str]],
    at_most: int,
) -> list[dg.RunRequest]:
    """Put the requests for partitions that follow one another into one request, where they ask for the same.

    Args:
        requests: The requests of a tick, each for one partition.
        order_of: All partitions of some assets, in order. None at all if a run of these assets may not take several.
        at_most: How many partitions a request may have.

    Returns:
        The requests, each for one partition or for a range.
    """
    alike: defaultdict[object, list[dg.RunRequest]] = defaultdict(list)
    for request in requests:
        checks = request.asset_check_keys
        asked = frozenset(request.asset_selection or ()), checks if checks is None else frozenset(checks)
        alike[asked, frozenset(_common_tags(request).items())].append(request)
    ranges = []
    for group in alike.values():
        by_partition = {request.partition_key: request for request in group}
        order = order_of(group[0].asset_selection or ())
        for partitions in consecutive([key for key in order if key in by_partition], order, at_most):
            first, *others = [by_partition.pop(partition) for partition in partitions]
            tags = _common_tags(first) | range_tags(partitions)
            ranges.append(first._replace(partition_key=None, tags=tags) if others else first)
        ranges += by_partition.values()
    return ranges


def _common_tags(request: dg.RunRequest) -> dict[str, str]:
    return {name: value for name, value in request.tags.items() if name != "dagster/partition"}


def _days_of(graph: Any, keys: Collection[dg.AssetKey]) -> Sequence[str]:
    """All days of assets that have the same days, and whose runs may take several."""
    nodes = [graph.get(key) for key in keys]
    if {node.backfill_policy for node in nodes} != {dg.BackfillPolicy.single_run()}:
        return ()
    (days, *others) = {node.partitions_def for node in nodes}
    is_alike = isinstance(days, dg.TimeWindowPartitionsDefinition) and not others
    return days.get_partition_keys() if is_alike else ()


class SettlingSensor(dg.AutomationConditionSensorDefinition):
    """Waits after it has read the highest event id, and before it evaluates the conditions.

    A tick reads the events up to the highest id that it has seen at its beginning. PostgreSQL may commit an event with
    a lower id after that. Without the pause, no tick would read this event.

    If its attribute `partitions_per_run` is not 1, partitions that follow one another may share a run.
    """

    partitions_per_run = 1

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> Any:
        # Dagster takes the pause only from the environment of the process that evaluates. That is a code server, which
        # anybody may have started. If the variable is set already (a scenario sets it), it stays.
        os.environ.setdefault("DAGSTER_AUTOMATION_TICK_SETTLE_SECONDS", SETTLE_SECONDS)
        found = super().evaluate_tick(context)
        if self.partitions_per_run == 1 or not found.run_requests:
            return found
        assert context.repository_def is not None
        days_of = partial(_days_of, context.repository_def.asset_graph)
        return replace(found, run_requests=in_ranges(found.run_requests, days_of, self.partitions_per_run))

    def with_attributes(self, *, jobs: Any = None, metadata: Any = None) -> "SettlingSensor":
        # Dagster's own method returns a sensor of Dagster's class, which does not wait.
        return automation_sensor(
            metadata=self.metadata if metadata is None else metadata, partitions_per_run=self.partitions_per_run
        )


def automation_sensor(metadata: Mapping[str, Any] | None = None, *, partitions_per_run: int = 1) -> SettlingSensor:
    """Make the sensor that evaluates the conditions of every asset and check in its code location.

    Args:
        metadata: Of the sensor.
        partitions_per_run: How many days that follow one another may share a run, of assets whose `backfill_policy` is
            a single run. If one of them fails, the others must be done all the same: see `partition_runs`.
    """
    with warnings.catch_warnings():
        # We use a beta parameter, `use_user_code_server`, on purpose. Every command would print a warning about it.
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        sensor = SettlingSensor(
            SENSOR_NAME,
            target=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=1,
            metadata=metadata,
            # A backfill waits for its daemon, which wakes up every 30 s. A run for each partition starts at once.
            emit_backfills=False,
            # The conditions are classes of ours. Only a process of the code location can import them.
            use_user_code_server=True,
        )
        sensor.partitions_per_run = partitions_per_run
        return sensor
