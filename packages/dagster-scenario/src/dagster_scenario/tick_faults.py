"""Faults in sensors and schedules: their ticks fail, or take their time, at a point."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from dagster_scenario.clock import Clock
from dagster_scenario.faults import END, FAIL, START, TAKE, Fault, Points


class TickFaults:
    """The faults that lie in ticks. A tick takes no slot and no run; what it takes, its daemon takes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.faults: list[Fault] = []
        self._points = Points(lambda op, point: self._reached(point))
        self._undo: list[Callable[[], None]] = []
        self._watched: set[int] = set()
        self._muted = False
        # The sensor or schedule whose tick is under way.
        self._ticking: str | None = None

    def add(self, fault: Fault, definitions: Iterable[Any]) -> None:
        """Let a fault lie in the ticks of these definitions of sensors or schedules."""
        self.faults.append(fault)
        self._watch(fault, definitions)

    def watch_again(self, definitions_of: Callable[[str], Iterable[Any]]) -> None:
        """The code locations were loaded anew."""
        self.unwatch()
        for fault in self.faults:
            self._watch(fault, definitions_of(fault.target))

    def unwatch(self) -> None:
        """Give every sensor, schedule and function back what it was."""
        self._points.unwatch()
        for undo in reversed(self._undo):
            undo()
        self._undo, self._watched = [], set()

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Within the `with` no fault happens: a dry run is no tick."""
        self._muted = True
        try:
            yield
        finally:
            self._muted = False

    def _watch(self, fault: Fault, definitions: Iterable[Any]) -> None:
        for definition in definitions:
            if id(definition) not in self._watched:
                self._watched.add(id(definition))
                definition.evaluate_tick = partial(self._tick, definition.name, definition.evaluate_tick)
                self._undo.append(partial(delattr, definition, "evaluate_tick"))
        if fault.function:
            self._points.watch_function(fault.function)

    def _tick(self, name: str, evaluate: Callable[[Any], Any], context: Any) -> Any:
        self._ticking = name
        try:
            self._reached(START)
            result = evaluate(context)
            self._reached(END)
            return result
        finally:
            self._ticking = None

    def _reached(self, point: str) -> None:
        if self._ticking is None or self._muted:
            return
        for fault in self.faults:
            if not fault.hits(self._ticking, frozenset(), point, lambda partition: True):
                continue
            if fault.kind == FAIL and fault.error is not None:
                raise fault.error
            if fault.kind == TAKE:
                self._clock.move(self._clock.instant + (fault.duration or timedelta()))
