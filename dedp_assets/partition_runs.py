"""Runs over one partition or a range of partitions. One bad partition does not stop the others."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from dedp_assets.errors import DedpError, PermanentError

if TYPE_CHECKING:
    AssetResult = dg.MaterializeResult[None]
else:
    # Dagster looks for the class itself in the annotation of an asset that has checks.
    AssetResult = dg.MaterializeResult


class Materialized(NamedTuple):
    """The result of the work for one partition: the version of its data, and metadata for the UI."""

    data_version: str
    metadata: dict[str, Any]


class Problem(NamedTuple):
    """Why the work for one partition failed: a text for people, and metadata for the UI (values of JSON)."""

    text: str
    metadata: dict[str, Any]


def _text_of(partition_key: str, error: DedpError) -> Problem:
    return Problem(str(error), {})


def materialize_each(
    context: dg.AssetExecutionContext,
    work: Callable[[str], Materialized],
    *,
    explain: Callable[[str, DedpError], Problem] = _text_of,
    checks: Callable[[], Sequence[dg.AssetCheckResult]] = list,
) -> AssetResult:
    """Do the work of every partition of the run, and give each partition its own metadata.

    A partition whose work raises a DedpError does not stop the others. When they are done and their materializations
    are recorded, one failure names all partitions that failed. Any other exception ends the run at once.

    Args:
        context: Of the asset's run, which names the partitions.
        work: Takes a partition key. It has to be idempotent: a retry of the step repeats it for every partition.
        explain: Takes a partition key and the error of its work, and gives what the failure says of it.
        checks: Evaluates the asset's checks, after all the work has succeeded.

    Returns:
        The result of the asset, with one data version for all partitions of the run.

    Raises:
        dg.Failure: At least one partition failed. Dagster retries the step only if each of these errors may pass.
    """
    done: dict[str, Materialized] = {}
    failed: dict[str, Problem] = {}
    may_retry = True
    for key in context.partition_keys:
        try:
            done[key] = work(key)
        except DedpError as error:
            failed[key] = explain(key, error)
            may_retry = may_retry and error.may_pass
            # Logged as well as raised: Dagster prints a failure inside a traceback.
            context.log.error(f"{key}: {failed[key].text}")
    if failed:
        for key, result in done.items():
            context.log_event(_materialization(context.asset_key, key, result))
        raise _failure(failed, len(done), may_retry)
    for key, result in done.items():
        context.add_asset_metadata(result.metadata, partition_key=key)
    return dg.MaterializeResult(data_version=dg.DataVersion(_version_of_all(done)), check_results=checks())


def _materialization(asset_key: dg.AssetKey, partition_key: str, result: Materialized) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key,
        partition=partition_key,
        metadata=result.metadata,
        tags={"dagster/data_version": result.data_version},
    )


def _failure(failed: dict[str, Problem], done_count: int, may_retry: bool) -> dg.Failure:
    problems = [f"partition {key}: {problem.text}" for key, problem in failed.items()]
    others = f"\nThe other {done_count} partition(s) of this run are done." if done_count else ""
    # By name and then by partition, so that the UI has one entry for each name.
    metadata: dict[str, dict[str, Any]] = {}
    for key, problem in failed.items():
        for name, value in problem.metadata.items():
            metadata.setdefault(name, {})[key] = value
    return dg.Failure(
        description="\n".join(problems) + others,
        metadata={"failed_partitions": list(failed), **metadata},
        allow_retries=may_retry,
    )


def _version_of_all(done: dict[str, Materialized]) -> str:
    """One data version for the run, because Dagster gives every partition of a range the same one."""
    versions = [result.data_version for result in done.values()]
    return versions[0] if len(versions) == 1 else hashlib.sha256("".join(versions).encode()).hexdigest()


# The partition of a run whose job has no partitions. Dagster's own tag would make such a run look like one of assets.
PARTITION_TAG = "dedp/partition"

_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

# A backfill puts any number of runs into Dagster's queue, with the priority 0. What has just arrived goes before them.
AHEAD_OF_BACKFILLS = {"dagster/priority": "1"}

_IN_PROGRESS = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def consecutive(partitions: Sequence[str], order: Sequence[str], at_most: int) -> Iterator[list[str]]:
    """Group partitions into ranges.

    Args:
        partitions: The partition keys, in order.
        order: All partition keys, in order.
        at_most: The largest number of partitions in a group.

    Yields:
        Groups of partitions that follow one another in `order` without a gap.
    """
    position = {partition: number for number, partition in enumerate(order)}
    group: list[str] = []
    for partition in partitions:
        if group and (len(group) == at_most or position[partition] != position[group[-1]] + 1):
            yield group
            group = []
        group.append(partition)
    if group:
        yield group


def range_tags(partitions: Sequence[str]) -> dict[str, str]:
    """The tags of a run over a range of partitions. For a single partition there are none: the request names it."""
    return {} if len(partitions) == 1 else {_RANGE_START: partitions[0], _RANGE_END: partitions[-1]}


def partitions_of(run: dg.DagsterRun, definition: dg.PartitionsDefinition) -> set[str]:
    """The partition keys of a run."""
    first = run.tags.get(_RANGE_START)
    if first is None:
        return {run.tags["dagster/partition"]} if "dagster/partition" in run.tags else set()
    return set(definition.get_partition_keys_in_range(dg.PartitionKeyRange(first, run.tags[_RANGE_END])))


class NoSuchPartition(PermanentError):
    """A run names a partition that does not exist, or names none. The message says what is expected."""


def named_partitions(run: dg.DagsterRun, definition: dg.PartitionsDefinition) -> list[str]:
    """The partition keys of a run that anybody may have started, in their order.

    Dagster does not check a partition that a caller names before it starts the run.

    Raises:
        NoSuchPartition: There is no such partition, or the run names none.
    """
    named = [run.tags[tag] for tag in (_RANGE_START, _RANGE_END) if tag in run.tags]
    named = named or [run.tags[tag] for tag in ("dagster/partition",) if tag in run.tags]
    for key in named or [""]:
        if not definition.has_partition_key(key):
            first, last = definition.get_first_partition_key(), definition.get_last_partition_key()
            what = f"there is no partition {key!r}" if named else "the run names no partition"
            raise NoSuchPartition(
                f"{what}; expected one of {first} to {last}. Nothing was done: start a run with such a partition"
            )
    return sorted(partitions_of(run, definition))


def runs_in_progress(
    instance: dg.DagsterInstance, key: dg.AssetKey, *, jobs: Collection[str] = ()
) -> list[dg.DagsterRun]:
    """The runs that are queued or running, of an asset or of jobs that materialize it without being jobs of assets."""
    runs = instance.get_runs(dg.RunsFilter(statuses=list(_IN_PROGRESS)))
    return [run for run in runs if key in (run.asset_selection or ()) or run.job_name in jobs]


def partitions_in_progress(
    instance: dg.DagsterInstance, key: dg.AssetKey, definition: dg.PartitionsDefinition
) -> set[str]:
    """The partitions of an asset for which a run is queued or running."""
    return {partition for run in runs_in_progress(instance, key) for partition in partitions_of(run, definition)}
