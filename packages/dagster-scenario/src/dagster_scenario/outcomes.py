"""What came of runs, and what keeps one from starting, for the messages of expectations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dagster_scenario import timeline as timeline_
from dagster_scenario.timeline import Looking, Run

if TYPE_CHECKING:
    from dagster_scenario.scenario import Scenario


def of_runs(scenario: "Scenario", runs: Iterable[Run]) -> list[str]:
    """What came of each run, and where its error was raised."""
    lines = []
    for run in runs:
        lines.append(f"{run}, requested {' and '.join(map(str, run.causes))}: {_state(scenario, run)}")
        lines += [f"  {line}" for line in run.trace]
    return lines


def _state(scenario: "Scenario", run: Run) -> str:
    if run.status == timeline_.STARTED and run.started is not None:
        return f"under way since {run.started:%Y-%m-%d %H:%M:%S}{_what_stops(scenario, run)}"
    if run.status == timeline_.REQUESTED:
        return f"requested, and not started: {_what_holds_back(scenario, run)}"
    return f"{run.status}: {run.error}" if run.error else run.status


def _what_stops(scenario: "Scenario", run: Run) -> str:
    """Where a run that is under way is held or asleep."""
    stops = [
        event
        for event in scenario.timeline.events
        if event.run == run.number and event.kind in (timeline_.HELD, timeline_.RESUMED)
    ]
    if stops and stops[-1].kind == timeline_.HELD:
        return f", held: {stops[-1].text.removeprefix(f'{run.what}, ')}"
    asleep = [where for _, until, where in run.waits if until is None]
    return f", asleep in {asleep[-1]}" if asleep else ""


def _what_holds_back(scenario: "Scenario", run: Run) -> str:
    """Why a run that was requested has not started, by the rules of Dagster's run queue."""
    if scenario.is_down("run queue"):
        return "the daemon 'run queue' is down"
    queue = scenario.instance.get_concurrency_config().run_queue_config
    under_way = [other for other in scenario.timeline.runs.values() if other.status == timeline_.STARTED]
    if queue is not None and 0 <= queue.max_concurrent_runs <= len(under_way):
        return _full(queue.max_concurrent_runs, "", under_way)
    for limit in queue.tag_concurrency_limits if queue is not None else ():
        alike = [other for other in under_way if _share(limit, run, other)]
        if _share(limit, run, run) and limit["limit"] <= len(alike):
            return _full(limit["limit"], f" with the tag {limit['key']}={run.tags[limit['key']]}", alike)
    for pool in _pools_of(scenario, run):
        slots = scenario.instance.event_log_storage.get_concurrency_info(pool)
        if slots.slot_count <= slots.active_slot_count + slots.pending_step_count:
            return f"the pool {pool!r} has no free slot"
    return "the next tick starts it"


def _pools_of(scenario: "Scenario", run: Run) -> Sequence[str]:
    """The pools of the steps that a run begins with."""
    stored = scenario.instance.get_run_by_id(run.id)
    needs = stored.run_op_concurrency if stored is not None else None
    return sorted(needs.root_key_counts) if needs is not None else []


def _share(limit: Mapping[str, Any], run: Run, other: Run) -> bool:
    """Whether two runs count together for a limit of a tag."""
    key, value = limit["key"], limit.get("value")
    if key not in run.tags or key not in other.tags:
        return False
    if isinstance(value, str):
        return run.tags[key] == other.tags[key] == value
    return not (value or {}).get("applyLimitPerUniqueValue") or run.tags[key] == other.tags[key]


def _full(limit: int, of_these: str, under_way: Sequence[Run]) -> str:
    runs, are = ("run", "is") if limit == 1 else ("runs", "are")
    shown = ", ".join(str(run) for run in under_way[:3]) + (", ..." if len(under_way) > 3 else "")
    return f"the run queue lets {limit} {runs}{of_these} be under way, and {len(under_way)} {are}: {shown}"


def of_ticks(looking: Looking) -> Iterator[str]:
    """What a sensor or schedule said when it last looked, and what it had said before."""
    name = f"{looking.kind} {looking.name}"
    if looking.error:
        last = f"{looking.last:%Y-%m-%d %H:%M:%S}"
        often = f"once, at {last}"
        if looking.failures > 1:
            since = f"{looking.failing_since:%Y-%m-%d %H:%M:%S}" if looking.failing_since else ""
            often = f"{looking.failures} times in a row, from {since} to {last}"
        yield f"{name} has failed {often}: {looking.error}"
        yield from (f"  {line}" for line in looking.trace)
        said = f"failed: {looking.error}"
    else:
        said = "requested something" if looking.idle_since is None else looking.reason or "requested nothing"
        yield f"{name} last looked at {looking.last:%Y-%m-%d %H:%M:%S}: {said}"
    earlier = [(at, what) for at, what in looking.said if what != said]
    yield from (f"  from {at:%Y-%m-%d %H:%M:%S} on: {what}" for at, what in earlier[-3:])


def of_nobody(scenario: "Scenario", location: str) -> list[str]:
    """Why nobody has requested a run: what the sensors and schedules of a location last said, and which are off."""
    looks = [look for look in scenario.timeline.looking.values() if look.location == location]
    lines = [line for look in looks for line in of_ticks(look)]
    off = scenario.switched_off(location)
    if not lines:
        lines.append("no sensor or schedule of its code location has looked yet")
    if off:
        lines.append(f"switched off: {', '.join(off)}; scenario.turn_on() turns everything on")
    return lines
