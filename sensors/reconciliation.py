"""What is still behind its input is put back, however it came to be forgotten.

Conditions and sensors follow events: edges. An edge can be missed, by a run that failed, a database that was away, a
daemon that was replaced, a cursor that was reset. So here the level is compared, every minute, for each partition: what
its output records that it reflects (a version, a SHA-256) against what its input is now. What is behind is asked for
only after the event has had its chance, and ever more seldom while it keeps failing.

`reconciling_sensor` makes the sensor; a pipeline says how to observe its partitions.
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

# Says in the UI why a run was requested.
CAUSE_TAG = "dedp/cause"

INTERVAL_SECONDS = 60
# The longest pause between two requests of a partition whose runs fail.
LONGEST_PAUSE_SECONDS = 3600


class Waiting(NamedTuple):
    """A partition that is behind. `input`: tells what it should reflect from what came before and comes after;
    `requests`: made for that so far; `due`: when the next one may be made, in s since the epoch."""

    input: str
    requests: int
    due: float


@dataclass(frozen=True)
class Decision:
    """What a tick does: partitions to request, as they were waiting, and the cursor to keep."""

    request: dict[str, Waiting]
    waiting: dict[str, Waiting]


def decide(
    behind: Mapping[str, str], waiting: Mapping[str, Waiting], in_progress: Collection[str], now: float
) -> Decision:
    """Which partitions to request.

    behind: partitions that don't reflect their input, with what tells this input from others. waiting: what the tick
    before left.
    in_progress: partitions whose run is queued or under way: not requested, and not forgotten. now: s since the epoch.
    """
    request, left = {}, {}
    for partition, input in behind.items():
        known = waiting.get(partition)
        if known is None:
            known = Waiting(input, 0, now + INTERVAL_SECONDS)
        elif known.input != input:
            # Not from the start: what changes every minute would wait for ever.
            known = Waiting(input, 0, min(known.due, now + INTERVAL_SECONDS))
        # No longer than was meant, also if the clock was set back since.
        known = known._replace(due=min(known.due, now + _pause(known.requests)))
        if partition not in in_progress and known.due <= now:
            request[partition] = known
            known = Waiting(input, known.requests + 1, now + _pause(known.requests + 1))
        left[partition] = known
    return Decision(request, left)


def _pause(requests: int) -> float:
    """How long to wait for the next request after so many, in s."""
    return float(min(INTERVAL_SECONDS * 2 ** min(requests, 10), LONGEST_PAUSE_SECONDS))


def to_json(waiting: Mapping[str, Waiting]) -> str:
    """The cursor that Dagster keeps between two ticks."""
    return json.dumps(waiting)


def from_json(text: str | None) -> dict[str, Waiting]:
    """The cursor that was stored, or an empty one; both when there is none and when it is not ours."""
    try:
        return {partition: Waiting(*stored) for partition, stored in json.loads(text or "{}").items()}
    except (TypeError, ValueError, AttributeError):
        return {}


def run_request(partition: str, waiting: Waiting, assets: Sequence[dg.AssetKey]) -> dg.RunRequest:
    """A run for one partition that was waiting.

    The run key makes a tick that is done again, because its cursor was lost, harmless.
    """
    return dg.RunRequest(
        run_key=f"{partition}:{waiting.input}:{waiting.due:.3f}",
        partition_key=partition,
        asset_selection=list(assets),
        tags={CAUSE_TAG: cause_of([waiting])},
    )


def range_requests(
    waiting: Mapping[str, Waiting], assets: Sequence[dg.AssetKey], order: Sequence[str], at_most: int
) -> list[dg.RunRequest]:
    """Runs for the partitions that were waiting: those that follow one another in `order` share one."""
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
                tags={**range_tags(group), CAUSE_TAG: cause_of([waiting[partition] for partition in group])},
            )
        )
    return requests


def cause_of(waiting: Sequence[Waiting]) -> str:
    """Why a run for such partitions is requested."""
    number = max(each.requests for each in waiting) + 1
    return f"still behind its input (request {number} by reconciliation)"


class NotObservable(Exception):
    """Nothing can be compared now: there is nothing yet, or the database does not answer. Says which, and what then."""


@dataclass(frozen=True)
class Observed:
    """Where the partitions of a pipeline are.

    behind: those that don't reflect their input, with what identifies this input. in_progress: those with a run that is
    queued or under way. notes: what else to tell whoever reads the tick.
    """

    behind: Mapping[str, str]
    in_progress: Collection[str]
    notes: Sequence[str] = ()


def reconciling_sensor(
    name: str,
    targets: Sequence[dg.AssetKey],
    observe: Callable[[dg.SensorEvaluationContext], Observed],
    *,
    description: str,
    partitions_per_run: int = 1,
    order: Callable[[], Sequence[str]] = tuple,
    required_resource_keys: set[str] | None = None,
) -> dg.SensorDefinition:
    """A sensor that requests whatever partitions of `targets` stay behind their input.

    observe: looks at the partitions; raises NotObservable to leave it for this time. partitions_per_run: how many that
    follow one another in `order` may share a run. It also ends runs whose processes died (run_processes).
    """

    @dg.sensor(
        name=name,
        target=dg.AssetSelection.assets(*targets),
        description=description,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=INTERVAL_SECONDS,
        required_resource_keys=required_resource_keys,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        ended = fail_ended_runs(context.instance)
        try:
            observed = observe(context)
        except NotObservable as problem:
            return dg.SkipReason(str(problem))
        now = datetime.now(timezone.utc).timestamp()
        decision = decide(observed.behind, from_json(context.cursor), observed.in_progress, now)
        notes = [_summary(observed.behind), *observed.notes]
        if ended:
            notes.append(f"reported as failed, because their processes have ended: {', '.join(ended)}")
        return dg.SensorResult(
            run_requests=range_requests(decision.request, targets, order(), partitions_per_run),
            skip_reason=None if decision.request else "; ".join(notes),
            cursor=to_json(decision.waiting),
        )

    return sensor


def _summary(behind: Mapping[str, str]) -> str:
    return f"{len(behind)} behind their input: {', '.join(behind)}" if behind else "every day reflects its input"
