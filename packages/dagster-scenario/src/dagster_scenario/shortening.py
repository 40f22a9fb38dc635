"""A long timeline in a few lines: what many runs did alike is counted, and what is of no interest is left out."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from dagster_scenario.timeline import (
    BACKFILL,
    CANCELED,
    CHECKED,
    DAEMON,
    DOWN,
    FAILED,
    HELD,
    KILLED,
    MARK,
    MATERIALIZED,
    OBSERVED,
    REQUESTED,
    RESUMED,
    STARTED,
    SUCCEEDED,
    UP,
    WAITING,
    WORLD,
    Event,
    Run,
    as_lines,
)

# The partition in the text of an event.
_PARTITION = re.compile(r" \[([^\]]*)\]")


@dataclass(frozen=True)
class About:
    """What somebody asks about: all that has one of these names, of some partitions alone if there are any.

    names: of assets, jobs, sensors, schedules, and definitions of dynamic partitions. runs: their numbers.
    """

    names: frozenset[str] = frozenset()
    partitions: frozenset[str] = frozenset()
    runs: frozenset[int] = frozenset()


@dataclass(frozen=True)
class AskedFor:
    """Tells which events somebody asks about: of which runs, and else of which names and partitions."""

    about: About
    runs: frozenset[int]

    def __call__(self, event: Event) -> bool:
        if event.run in self.runs:
            return True
        if event.run is not None or not self.about.names & {event.asset, event.subject}:
            return False
        return not self.about.partitions or event.partition is None or event.partition in self.about.partitions

    def exactly(self, event: Event) -> bool:
        """Whether the event is of a partition, or a run, that was asked for by its name."""
        return bool(self.about.partitions or event.run in self.about.runs) and self(event)


def asked_for(about: About | None, runs: Iterable[Run]) -> AskedFor:
    """Which events these are, given the runs that there are."""
    about = about or About()
    those = {
        run.number
        for run in runs
        if about.names & {run.job, *run.assets, *(cause.name for cause in run.causes)}
        and (not about.partitions or any(run.covers(partition) for partition in about.partitions))
    }
    return AskedFor(about, about.runs | those)


def shortened(events: Sequence[Event], within: int, asked: AskedFor) -> list[str]:
    """The events as text, in about so many lines, and in any case with those that were asked for."""
    if len(events) <= within:
        return list(as_lines(events))
    groups = list(_gathered(events, asked.exactly))
    told = [_as_one(group) if len(group) > 1 else group[0] for group in groups]
    if len(told) <= within:
        return list(as_lines(told))
    kept = _what_matters(told, within)
    lines: list[str] = []
    left_out = 0
    for event, group, line in zip(told, groups, as_lines(told, every_time=True), strict=True):
        if id(event) in kept or any(asked(one) for one in group):
            lines += [f"... {left_out} events"] if left_out else []
            lines.append(line)
            left_out = 0
        else:
            left_out += 1
    return lines


# What is said of a single run.
_OF_RUNS = frozenset({REQUESTED, STARTED, MATERIALIZED, OBSERVED, CHECKED, SUCCEEDED, HELD, RESUMED, WAITING, FAILED})


def _gathered(events: Sequence[Event], alone: Callable[[Event], bool]) -> Iterator[list[Event]]:
    """The same events, with those of many runs at one moment together, where the first of them was.

    alone: tells which are not to be counted among others.
    """
    for _, group in groupby(events, lambda event: event.at):
        at_once: dict[Any, list[Event]] = {}
        for event in group:
            alike = (event.kind, _PARTITION.sub("", event.text), event.causes)
            at_once.setdefault(alike if event.kind in _OF_RUNS and not alone(event) else id(event), []).append(event)
        for alike_ones in at_once.values():
            yield from [alike_ones] if len(alike_ones) > 3 else ([event] for event in alike_ones)


def _as_one(events: list[Event]) -> Event:
    first, last = events[0], events[-1]
    keys = [found[1] for event in events if (found := _PARTITION.search(event.text))]
    partitions = f" [{keys[0]} ... {keys[-1]}]" if keys else ""
    runs = f", runs {first.run} to {last.run}" if first.run and last.run else ""
    text = f"{len(events)} times: {_PARTITION.sub('', first.text)}{partitions}{runs}"
    return replace(first, text=text, run=None)


def _what_matters(events: Sequence[Event], number: int) -> set[int]:
    """The ids of the events that are worth their lines: what went wrong and what the world did, then the last ones."""
    told = {WORLD, MARK, DAEMON, DOWN, UP, KILLED, HELD, CANCELED, BACKFILL}

    def weight(position: int) -> tuple[int, int]:
        event = events[position]
        return (2 if event.problem else 1 if event.kind in told else 0, position)

    # The end is always of interest, and so is the beginning.
    ends = [*range(3), *range(len(events) - number // 3, len(events))]
    others = sorted(set(range(len(events))) - set(ends), key=weight, reverse=True)
    return {id(events[position]) for position in [*ends, *others][:number]}
