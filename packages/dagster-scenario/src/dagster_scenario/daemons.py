"""Dagster's own daemons, stepped by hand: each step is one pass of the loop that `dagster-daemon run` would make."""

import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario.errors import unknown

# In this order in every tick: what requests runs, then what starts them, then what looks after them.
_ORDER = {
    "SCHEDULER": "schedules",
    "SENSOR": "sensors",
    "ASSET": "automation",
    "BACKFILL": "backfills",
    "QUEUED_RUN_COORDINATOR": "run queue",
    "MONITORING": "run monitoring",
    "EVENT_LOG_CONSUMER": "run retries",
    "FRESHNESS_DAEMON": "freshness",
}
NAMES = tuple(_ORDER.values())


class Daemons:
    """The daemons that the instance's settings ask for."""

    def __init__(
        self, instance: dg.DagsterInstance, workspace: Any, chance: "Chance", without: Iterable[str] = ()
    ) -> None:
        """without: those that would find nothing to do in the loaded code locations."""
        self._instance, self._workspace, self._chance = instance, workspace, chance
        self._without = frozenset(without)
        # The daemons wait on this between two passes; set, it makes them go on at once.
        self._at_once = threading.Event()
        self._at_once.set()
        self._loops: dict[str, Iterator[Any]] = {}
        self._daemons: list[Any] = []
        self.stopped: set[str] = set()
        self._begin(NAMES)

    @property
    def running(self) -> set[str]:
        """The daemons that the settings ask for and that are up."""
        return set(self._loops) - self.stopped

    def step(self) -> list[str]:
        """One pass of every daemon that runs and is due. Returns the errors that a daemon met outside of its ticks."""
        errors = []
        for name, loop in self._loops.items():
            if name not in self.stopped:
                with self._chance.instead_of_random():
                    errors += [f"{name} daemon: {error.message.strip()}" for error in _one_pass(loop)]
        return errors

    def stop(self, names: Iterable[str]) -> None:
        """As if their processes had ended: what they hold in memory is gone."""
        self.stopped |= self._known(names)

    def start(self, names: Iterable[str]) -> None:
        """As if their processes were started again."""
        again = self._known(names) & self.stopped
        self.stopped -= again
        self._begin(again)

    def close(self) -> None:
        for loop in self._loops.values():
            loop.close()  # type: ignore[attr-defined]
        for daemon in self._daemons:
            daemon.__exit__(None, None, None)
        self._loops, self._daemons = {}, []

    def _begin(self, names: Iterable[str]) -> None:
        wanted = set(names)
        required = set(self._instance.get_required_daemon_types())
        required -= {kind for kind, name in _ORDER.items() if name in self._without}
        loops = {}
        for kind, name in _ORDER.items():
            if name in wanted and kind in required:
                daemon = dagster_.create_daemon_of_type(kind, self._instance).__enter__()
                self._daemons.append(daemon)
                loops[name] = iter(daemon.core_loop(self._workspace, self._at_once))
            elif name in self._loops:
                loops[name] = self._loops[name]
        self._loops = loops

    def _known(self, names: Iterable[str]) -> set[str]:
        chosen = set(names) or set(NAMES)
        for name in chosen - set(NAMES):
            raise unknown("daemon", name, NAMES, where="")
        return chosen


def _one_pass(loop: Iterator[Any]) -> list[Any]:
    errors: list[Any] = []
    began = False
    # Between two passes a loop yields None: once, or, when its interval is not over, for as long as it is asked.
    idle = 0
    while idle < 3:
        step = next(loop)
        if step is dagster_.SpanMarker.START_SPAN:
            began = True
        elif step is dagster_.SpanMarker.END_SPAN:
            break
        elif isinstance(step, dagster_.SerializableErrorInfo):
            errors.append(step)
        elif not began:
            idle += 1
    return errors


class Chance:
    """A random stream of the scenario's own, which begins the same way every time.

    Dagster shuffles the sensors of a pass, and draws the ids of backfills. Both must be the same when a scenario is
    played again; no two ids may be the same within one.
    """

    def __init__(self) -> None:
        self._state = random.Random(0).getstate()

    @contextmanager
    def instead_of_random(self) -> Iterator[None]:
        """Whatever draws from `random` draws from this stream."""
        before = random.getstate()
        random.setstate(self._state)
        try:
            yield
        finally:
            self._state = random.getstate()
            random.setstate(before)
