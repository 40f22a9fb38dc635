"""A run in a process of its own, which kills itself where the scenario said."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import time_machine

from dagster_scenario import _dagster as dagster_
from dagster_scenario import runs as runs_
from dagster_scenario.clock import sleeps
from dagster_scenario.faults import Fault, Points, die
from dagster_scenario.locations import Locations
from dagster_scenario.pools import steps_sleep_until_ready
from dagster_scenario.storage import ScenarioStorage
from dagster_scenario.stubs import StandIns

# The exit code of a run that slept too long to be killed.
OVERSLEPT = 75


@dataclass
class KilledRun:
    """What the process needs to know; all of it can be pickled."""

    folder: str
    run_id: str
    now: datetime
    origins: list[Any]
    kill: Fault
    partitions: tuple[str, ...]
    stand_ins: StandIns

    def covers(self, partition: str | None) -> bool:
        """Whether the run is to do this partition."""
        return partition is None or not self.partitions or partition in self.partitions


class _Steps:
    """Listens for the step that the run is at."""

    def __init__(self) -> None:
        self.op: str | None = None

    def event_stored(self, entry: Any) -> None:
        self.op = runs_.step_after(entry, self.op)

    def tick_stored(self, tick: Any) -> None: ...
    def evaluations_stored(self, evaluations: Any) -> None: ...
    def partitions_stored(self, definition: str, keys: Any, added: bool) -> None: ...
    def run_added(self, run: Any) -> None: ...
    def backfill_stored(self, backfill: Any) -> None: ...
    def slot_claimed(self, pool: str, claimed: bool) -> None: ...
    def slots_changed(self) -> None: ...


def execute_until_killed(order: KilledRun) -> None:
    """Execute the run up to where it is to be killed; to its end if it does not come there."""
    with (
        time_machine.travel(order.now, tick=False) as traveller,
        sleeps(_sleeping(order.now, traveller)),
        steps_sleep_until_ready(),
    ):
        instance = dg.DagsterInstance.from_ref(dagster_.InstanceRef.from_dir(order.folder))
        locations = Locations()
        locations.stand_ins = order.stand_ins
        locations.add_origins(order.origins)
        locations.load(instance)
        steps = _Steps()
        ScenarioStorage.at(order.folder).listener = steps

        def reached(op: str | None, point: str) -> None:
            op = op or steps.op
            if op is None:
                return
            step = steps.op or op
            names = (locations.assets_of(step, point) & assets) | {step}
            if order.kill.hits(op, names, point, order.covers):
                die()

        run = instance.get_run_by_id(order.run_id)
        assert run is not None
        assets = frozenset(locations.assets_in(run))
        points = Points(reached)
        for op in locations.op_definitions(order.kill.target):
            points.watch_op(op)
        if order.kill.function:
            points.watch_function(order.kill.function)
        runs_.execute(run, locations.repository_of(run), instance, locations.prepared)


def _sleeping(began: datetime, traveller: Any) -> Callable[[float, Callable[[float], None]], None]:
    """Sleep by moving the clock of this process. A run that waits for the world would wait for ever."""

    def sleep(seconds: float, _: Callable[[float], None]) -> None:
        traveller.shift(seconds)
        if datetime.now(timezone.utc) - began > timedelta(days=1):
            os._exit(OVERSLEPT)

    return sleep
