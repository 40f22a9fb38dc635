"""Requests every partition that stays behind its input, for whatever reason.

Conditions and sensors follow events. An event can be missed: a run fails, a database or a daemon is away, a cursor is
reset. Therefore reconciliation looks at no events. Once a minute it compares, for each partition, what the output
records about its input (a version, a SHA-256) with the input as it is now. It requests a partition that is behind only
after events had a minute to do so. While the runs of the partition keep failing, the pauses between its requests grow.

`reconciling_sensor` makes the sensor. A pipeline gives it a function that observes its partitions.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple

import dagster as dg

from dedp_assets.partition_runs import consecutive, range_tags
from dedp_assets.run_processes import fail_ended_runs
from sensors.ticks import TickReport, reporting_tick

# The tag of a run that says in the UI why it was requested.
CAUSE_TAG = "dedp/cause"

INTERVAL_SECONDS = 60
# The longest pause between two requests of a partition whose runs fail.
LONGEST_PAUSE_SECONDS = 3600


class Waiting(NamedTuple):
    """A partition that is behind its input.

    Attributes:
        input: identifies the version of the input that the partition should reflect.
        requests: how many runs reconciliation has requested for this version.
        due: when it may request the next one, in s since the epoch.
    """

    input: str
    requests: int
    due: float


@dataclass(frozen=True)
class ReconciliationPlan:
    """What a tick does.

    Attributes:
        requests: the partitions to request, each as it was waiting before this tick.
        waiting: all partitions that are behind, to be stored as the cursor.
    """

    requests: dict[str, Waiting]
    waiting: dict[str, Waiting]


def plan_requests(
    behind: Mapping[str, str], waiting: Mapping[str, Waiting], in_progress: Collection[str], now: float
) -> ReconciliationPlan:
    """Decide which partitions to request.

    Args:
        behind: the partitions that do not reflect their input, each with what identifies the version of this input.
        waiting: the cursor of the tick before.
        in_progress: the partitions with a run that is queued or under way. They are not requested, and keep waiting.
        now: the time now, in s since the epoch.
    """
    requests, left = {}, {}
    for partition, input in behind.items():
        known = waiting.get(partition)
        if known is None:
            known = Waiting(input, 0, now + INTERVAL_SECONDS)
        elif known.input != input:
            # Do not let the minute start again: an input that changes every minute would wait for ever.
            known = Waiting(input, 0, min(known.due, now + INTERVAL_SECONDS))
        # If the clock was set back, do not wait longer than one pause.
        known = known._replace(due=min(known.due, now + pause(known.requests)))
        if partition not in in_progress and known.due <= now:
            requests[partition] = known
            known = Waiting(input, known.requests + 1, now + pause(known.requests + 1))
        left[partition] = known
    return ReconciliationPlan(requests, left)


def pause(requests: int) -> float:
    """The pause after so many requests for the same input, in s: each twice as long as the one before, to a limit."""
    return float(min(INTERVAL_SECONDS * 2 ** min(requests, 10), LONGEST_PAUSE_SECONDS))


def to_json(waiting: Mapping[str, Waiting]) -> str:
    """The cursor, as Dagster stores it."""
    return json.dumps(waiting)


def from_json(text: str | None) -> dict[str, Waiting]:
    """The stored cursor; an empty one if there is none, or if it is not ours."""
    try:
        return {partition: Waiting(*stored) for partition, stored in json.loads(text or "{}").items()}
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        return {}


def run_request(partition: str, waiting: Waiting, assets: Sequence[dg.AssetKey]) -> dg.RunRequest:
    """Request a run for one partition.

    A tick whose cursor was not stored is evaluated again. Its requests then have the same run keys, and start no runs.

    Args:
        partition: the partition.
        waiting: the partition, as it was waiting before this request.
        assets: the assets that the run materializes.
    """
    return dg.RunRequest(
        run_key=f"{partition}:{waiting.input}:{waiting.due:.3f}",
        partition_key=partition,
        asset_selection=list(assets),
        tags={CAUSE_TAG: describe_cause([waiting])},
    )


def range_requests(
    waiting: Mapping[str, Waiting], assets: Sequence[dg.AssetKey], order: Sequence[str], at_most: int
) -> list[dg.RunRequest]:
    """Request runs for several partitions. Partitions that follow one another share a run.

    Args:
        waiting: the partitions, each as it was waiting before this request.
        assets: the assets that the runs materialize.
        order: all partitions in their order.
        at_most: how many partitions one run may have.
    """
    requests = []
    for group in consecutive(sorted(waiting), order, at_most):
        if len(group) == 1:
            requests.append(run_request(group[0], waiting[group[0]], assets))
            continue
        inputs = hashlib.sha256(json.dumps([waiting[partition] for partition in group]).encode()).hexdigest()
        requests.append(
            dg.RunRequest(
                run_key=f"{group[0]}...{group[-1]}:{inputs[:16]}",
                asset_selection=list(assets),
                tags={**range_tags(group), CAUSE_TAG: describe_cause([waiting[partition] for partition in group])},
            )
        )
    return requests


def describe_cause(waiting: Sequence[Waiting]) -> str:
    """Why a run for these partitions is requested."""
    number = max(each.requests for each in waiting) + 1
    return f"still behind its input (request {number} by reconciliation)"


@dataclass(frozen=True)
class Observation:
    """How far the partitions of a pipeline are.

    Attributes:
        behind: the partitions that do not reflect their input, each with what identifies the version of this input.
        in_progress: the partitions with a run that is queued or under way.
    """

    behind: Mapping[str, str]
    in_progress: Collection[str]


def reconciling_sensor(
    name: str,
    targets: Sequence[dg.AssetKey],
    observe: Callable[[dg.SensorEvaluationContext, list[str]], Observation],
    *,
    description: str,
    partitions_per_run: int = 1,
    order: Callable[[], Sequence[str]] = tuple,
    required_resource_keys: set[str] | None = None,
) -> dg.SensorDefinition:
    """Make a sensor that requests the partitions that stay behind their input.

    The sensor also reports runs as failed whose processes have ended (see `run_processes`).

    Args:
        name: the name of the sensor.
        targets: the assets that its runs materialize.
        observe: observes the partitions. It may add to the list of notes what the message of the tick should say. A
            DedpError that it raises becomes part of the message, and the next tick observes again.
        description: what the UI says of the sensor.
        partitions_per_run: how many partitions that follow one another may share a run.
        order: returns all partitions in their order. Needed if partitions may share a run.
        required_resource_keys: the resources that `observe` uses.
    """

    def evaluate(context: dg.SensorEvaluationContext, report: TickReport) -> None:
        ended = fail_ended_runs(context.instance)
        if ended:
            report.notes.append(f"reported as failed, because their processes have ended: {', '.join(ended)}")
        observed = observe(context, report.notes)
        now = datetime.now(timezone.utc).timestamp()
        plan = plan_requests(observed.behind, from_json(context.cursor), observed.in_progress, now)
        report.notes.insert(0, _describe_behind(observed.behind))
        report.run_requests = range_requests(plan.requests, targets, order(), partitions_per_run)
        report.cursor = to_json(plan.waiting)

    make_sensor = dg.sensor(
        name=name,
        target=dg.AssetSelection.assets(*targets),
        description=description,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=INTERVAL_SECONDS,
        required_resource_keys=required_resource_keys,
    )
    return make_sensor(reporting_tick(evaluate))


def _describe_behind(behind: Mapping[str, str]) -> str:
    return f"{len(behind)} behind their input: {', '.join(behind)}" if behind else "every day reflects its input"
