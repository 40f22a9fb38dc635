"""Which runs were under way at the same time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from dagster_scenario.timeline import KILLED, Mark, Run, Timeline


def overlapping(
    runs: Sequence[Run], timeline: Timeline, same_partition: bool, since: Mark | None
) -> list[tuple[Run, Run]]:
    """The pairs of runs that were under way at the same time, in the order of their numbers.

    One that begins at the moment at which another ends comes after it.

    Args:
        runs: those to look at.
        timeline: theirs.
        same_partition: leave out pairs that have no partition in common.
        since: leave out pairs that overlapped before this mark alone.
    """
    spans = sorted(_spans(runs, timeline), key=lambda span: span.began)
    begin = since.at.timestamp() if since is not None else float("-inf")
    found: list[tuple[Run, Run]] = []
    under_way: list[_Span] = []
    for span in spans:
        under_way = [other for other in under_way if other.ended > span.began]
        for other in under_way:
            alike = not same_partition or _share_a_partition(span.run, other.run)
            if alike and min(span.ended, other.ended) > max(span.began, begin):
                one, two = sorted((other.run, span.run), key=lambda run: run.number)
                found.append((one, two))
        if span.ended > span.began:
            under_way.append(span)
    return sorted(found, key=lambda pair: (pair[0].number, pair[1].number))


def end_of(run: Run, timeline: Timeline) -> datetime | None:
    """When a run ended: a killed one when it was killed, not when that was noticed. None while it is under way."""
    return next((at for at, number in _kills(timeline) if number == run.number), run.ended)


@dataclass(frozen=True)
class _Span:
    """From when to when a run was under way, as instants: clocks that are changed show an hour twice."""

    run: Run
    began: float
    ended: float


def _spans(runs: Sequence[Run], timeline: Timeline) -> Iterator[_Span]:
    killed = {number: at for at, number in _kills(timeline)}
    for run in runs:
        if run.started is not None:
            ended = killed.get(run.number, run.ended)
            yield _Span(run, run.started.timestamp(), ended.timestamp() if ended is not None else float("inf"))


def _kills(timeline: Timeline) -> Iterator[tuple[datetime, int | None]]:
    return ((event.at, event.run) for event in timeline.events if event.kind == KILLED)


def _share_a_partition(one: Run, other: Run) -> bool:
    return one.partitions == other.partitions or bool({*one.partitions} & {*other.partitions})
