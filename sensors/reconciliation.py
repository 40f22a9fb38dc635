"""What is still behind its input is put back, however it came to be forgotten.

The automation condition follows events: edges. An edge can be missed, by a run that failed, a daemon that was replaced,
a cursor that was reset. So here the level is compared, every minute: the version that each output records against its
input. It is asked for only after the condition has had its chance, and ever more seldom while it keeps failing.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import dagster as dg

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
        if partition not in in_progress and known.due <= now:
            pause = min(INTERVAL_SECONDS * 2 ** (known.requests + 1), LONGEST_PAUSE_SECONDS)
            request[partition] = known
            known = Waiting(input, known.requests + 1, now + pause)
        left[partition] = known
    return Decision(request, left)


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
        tags={"dedp/cause": f"still behind its input (request {waiting.requests + 1} by reconciliation)"},
    )
