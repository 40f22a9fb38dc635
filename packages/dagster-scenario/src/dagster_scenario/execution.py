"""Executes the runs that Dagster launches: after the daemons' turn, one after another, up to where faults lie."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_scenario import runs as runs_
from dagster_scenario import timeline as timeline_
from dagster_scenario.child import OVERSLEPT, KilledRun, execute_until_killed
from dagster_scenario.clock import FOR_EVER, Clock
from dagster_scenario.errors import ScenarioError
from dagster_scenario.executors import CPUS
from dagster_scenario.faults import FAIL, HOLD, KILL, Fault, Points
from dagster_scenario.locations import Locations
from dagster_scenario.stuck import STUCK_AFTER, Stuck
from dagster_scenario.timeline import Run, Timeline

# How long after a slot of a pool was freed a step that waits for one looks again. Dagster's steps look every 1 to 15 s.
_CLAIMS_AFTER = timedelta(seconds=1)
# How far apart two computations of one moment may be.
_SAME = timedelta(milliseconds=1)


class Execution:
    """The runs that were launched and have not ended, and what is to happen to them on their way."""

    def __init__(self, folder: Path, clock: Clock, timeline: Timeline, locations: Locations) -> None:
        self._folder, self._clock, self._timeline, self._locations = folder, clock, timeline, locations
        self.instance: Any = None
        self.faults: list[Fault] = []
        self._points = Points(self._reached)
        self._launched: list[dg.DagsterRun] = []
        self._workers: dict[str, runs_.Worker] = {}
        self._killed: set[str] = set()
        # Real seconds without progress after which a run counts as stuck.
        self.stuck_after: float | None = STUCK_AFTER
        # Of the machine that a run is on.
        self.cpus = CPUS
        # How often slots of pools were freed or added.
        self._slot_changes = 0

    # What the storage tells

    def launch(self, run: dg.DagsterRun) -> None:
        """A daemon has launched this run."""
        self._launched.append(run)

    def worker_is_alive(self, run_id: str) -> bool:
        """Whether the process of a run is there, as run monitoring asks."""
        return run_id not in self._killed

    def terminate(self, run_id: str) -> bool:
        """Somebody, or run monitoring, ends this run. False when its process is not there."""
        worker = self._workers.pop(run_id, None)
        if worker is None:
            return False
        self.instance.report_run_canceling(worker.run)
        with self._naming(worker):
            worker.interrupt()
        return True

    def event_stored(self, entry: Any) -> None:
        """Dagster has stored an event of the run in whose thread this is called."""
        worker = runs_.worker_here()
        if worker is not None:
            worker.watch.moved()
            before, worker.step = worker.step, runs_.step_after(entry, worker.step)
            if worker.step is not None and worker.step != before:
                self._say_what_it_starts_beside(worker)

    def _say_what_it_starts_beside(self, step: runs_.Worker) -> None:
        run = self._workers.get(step.run_id)
        beside = [other.step for other in run.steps if other is not step and other.step] if run else []
        if run is not None and beside:
            text = f"{step.step}, while {', '.join(beside)} {'runs' if len(beside) == 1 else 'run'}"
            self._timeline.add(timeline_.STEP_STARTED, text, run=self._record(run).number, subject=step.step or "")

    def slot_claimed(self, pool: str, claimed: bool) -> None:
        """The run in whose thread this is called has asked for a slot of a pool, and has got it or not."""
        worker = runs_.worker_here()
        if worker is None:
            return
        if claimed:
            worker.waits_for.pop(pool, None)
        else:
            if pool not in worker.waits_for:
                run = self._record(worker)
                text = f"{run.what} waits for a slot of the pool {pool!r}"
                self._timeline.add(timeline_.WAITING, text, run=run.number)
            worker.waits_for[pool] = self._slot_changes

    def slots_changed(self) -> None:
        """Slots of a pool were freed or added: those that wait for one look again."""
        self._slot_changes += 1
        for worker in self._workers.values():
            worker.look_at(self._clock.instant + _CLAIMS_AFTER)

    # The runs

    def due_after(self, now: datetime) -> Iterator[datetime]:
        """When a run that sleeps goes on, and when one has been under way for longer than run monitoring allows."""
        for worker in self._workers.values():
            run = self._record(worker)
            limit = run.tags.get("dagster/max_runtime", self.instance.run_monitoring_max_runtime_seconds)
            ends = [worker.until] if worker.until not in (None, FOR_EVER) else []
            if float(limit) > 0 and run.started is not None:
                ends.append(run.started.astimezone(timezone.utc) + timedelta(seconds=float(limit) + 1))
            yield from (moment for moment in ends if moment > now)

    @property
    def unnoticed(self) -> bool:
        """Whether a killed run still counts as under way."""
        return any(self._timeline.runs[run_id].ended is None for run_id in self._killed)

    def execute_launched(self) -> None:
        """Execute what was launched, each run until it ends, sleeps, is held or is killed."""
        launched, self._launched = self._launched, []
        for run in timeline_.in_order(launched, key=lambda run: self._timeline.runs[run.run_id].number):
            stored = self.instance.get_run_by_id(run.run_id)
            if stored is None or stored.is_finished:
                continue
            record = self._timeline.runs[run.run_id]
            kill = next((fault for fault in self.faults if fault.kind == KILL and self._is_for(fault, record)), None)
            if kill is not None:
                self._refuse_others(record)
                self._execute_and_kill(record, kill)
            else:
                repository = self._locations.repository_of(stored)
                executing = _executing(stored, repository, self.instance, self._locations.prepared, self.cpus)
                worker = runs_.Worker(stored, executing, lambda: self.stuck_after)
                self._workers[run.run_id] = worker
                self._go_on(worker, worker.start)

    def wake_sleepers(self) -> None:
        """Let the runs go on whose sleep is over."""
        now = self._clock.instant
        due = [(until, worker) for worker in self._workers.values() if (until := worker.until) and until <= now]
        for _, worker in sorted(due, key=lambda found: (found[0], self._record(found[1]).number)):
            self._go_on(worker, lambda worker=worker: worker.wake(now))  # type: ignore[misc]

    def sleep(self, seconds: float) -> bool:
        """Called for `time.sleep` in any thread. False when it is not a run's."""
        worker = runs_.worker_here()
        if worker is None:
            return False
        if seconds == 0:
            return True
        if not seconds > 0:
            raise ValueError("sleep length must be non-negative")
        run, since, caller = self._record(worker), self._clock.now(), _caller()
        until = self._clock.after(seconds)
        if caller is not None:
            run.waits.append((since, None, caller))
            position = len(run.waits) - 1
            self._timeline.add(timeline_.WAITING, f"{run.what} sleeps in {caller}", run=run.number)
            worker.wait(until)
            run.waits[position] = (since, self._clock.now(), caller)
        elif worker.waits_for:
            # It needs not look before a slot is freed; one that was freed since it last looked is there the next time.
            nothing_new = set(worker.waits_for.values()) == {self._slot_changes}
            worker.wait(FOR_EVER if nothing_new and worker.only_claims else until)
        else:
            # Beside other steps it comes here again whenever one of them has ended.
            if worker.retry_at is None or abs(until - worker.retry_at) > _SAME:
                self._timeline.add(timeline_.WAITING, f"{run.what} waits {seconds:g} s for its retry", run=run.number)
            worker.retry_at = until
            worker.wait(until)
        return True

    def abandon(self) -> None:
        """End all that has not ended, and forget the faults."""
        self.faults = []
        # Dagster would log that each of them failed, with a stack trace.
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        left = [(self._record(worker), worker.abandon()) for worker in list(self._workers.values())]
        logging.disable(before)
        self._workers.clear()
        self._points.unwatch()
        for run, stack in left:
            if stack:
                print(f"{run} does not end; it is left behind here:\n{''.join(stack)}", file=sys.stderr)

    def _go_on(self, worker: runs_.Worker, move: Callable[[], None]) -> None:
        try:
            with self._naming(worker):
                move()
        finally:
            if worker.done:
                self._workers.pop(worker.run_id, None)

    @contextmanager
    def _naming(self, worker: runs_.Worker) -> Iterator[None]:
        """An error about a run that is stuck says which one it is."""
        try:
            yield
        except Stuck as error:
            raise error.of(str(self._record(worker))) from None

    def where(self) -> str | None:
        """Which run has its turn now, and where it is; None when none has."""
        worker = runs_.Worker.moving
        return f"{self._record(worker)} was at {worker.place()}" if worker is not None else None

    def _execute_and_kill(self, record: Run, kill: Fault) -> None:
        # delta-rs, once it is loaded, does not survive a fork; what only this process knows can't be loaded in another.
        method = "spawn" if "deltalake" in sys.modules and self._locations.importable else "fork"
        origins = self._locations.origins()
        stand_ins = self._locations.stand_ins
        if method == "spawn":
            stand_ins.check_that_they_can_be_sent()
        order = KilledRun(
            str(self._folder), record.id, self._clock.instant, origins, kill, record.partitions, stand_ins
        )
        code = runs_.execute_and_die(method, execute_until_killed, order)
        # The timeline did not see what another process stored.
        for entry in self.instance.all_logs(record.id):
            self._timeline.event_stored(entry)
        if code != 0:
            kill.count()
        if code == -9:
            self._killed.add(record.id)
            record.status = timeline_.KILLED
            self._timeline.add(
                timeline_.KILLED, f"{record.what}, by SIGKILL, {kill.point}", run=record.number, problem=True
            )
        elif code != 0:
            raise ScenarioError(f"{record} did not come to where it was to be killed ({kill.point}): {_end(code)}")

    def _refuse_others(self, record: Run) -> None:
        """A run that is to be killed happens at one moment, in a process that can not be stopped and go on."""
        others = [fault for fault in self.faults if fault.kind != KILL and self._is_for(fault, record)]
        if others:
            raise ScenarioError(
                f"{record} is to be killed, and to {others[0]} as well, which a run in a process of its own can't; "
                "name a partition to keep them apart, or let one of them be over first"
            )

    # Faults

    def add(self, fault: Fault) -> None:
        """Let a fault lie in wait."""
        self._watch(fault)
        self.faults.append(fault)

    def watch_again(self) -> None:
        """The code locations were loaded anew."""
        self._points.unwatch()
        for fault in self.faults:
            # New code need not have what the old one had; a fault that nothing comes to is an error at the end.
            with suppress(ScenarioError):
                self._watch(fault)

    def release(self, target: str | None) -> None:
        """Let the runs go on that are held at this asset or op, all for None, and hold no more of them."""
        if target is not None:
            self._locations.op_definitions(target)
        held = [
            worker
            for worker in self._workers.values()
            if worker.held and (target is None or self._has_target(self._record(worker), target))
        ]
        if not held and not any(fault.kind == HOLD for fault in self.faults):
            raise ScenarioError(f"nothing is held{f' at {target}' if target else ''}; hold(...) comes first")
        for fault in self.faults:
            if fault.kind == HOLD and target in (None, fault.target):
                fault.times = 0
        for worker in sorted(held, key=lambda worker: self._record(worker).number):
            run = self._record(worker)
            self._timeline.add(timeline_.RESUMED, run.what, run=run.number)
            self._go_on(worker, lambda worker=worker: worker.release(target))  # type: ignore[misc]

    def _watch(self, fault: Fault) -> None:
        for op in self._locations.op_definitions(fault.target):
            self._points.watch_op(op)
        if fault.function:
            self._points.watch_function(fault.function)

    def _reached(self, op: str | None, point: str) -> None:
        """A point was reached, by the op or, when a function was called, by the step that the run is at."""
        worker = runs_.worker_here()
        op = op or (worker.step if worker else None)
        if worker is None or op is None:
            return
        run = self._record(worker)
        # A step has the name that its op has in the graph, and several graphs can use the same op.
        step = worker.step or op
        names = (self._locations.assets_of(step, point) & {*run.assets}) | {step}
        for fault in list(self.faults):
            if fault.kind == KILL or not fault.hits(op, names, point, run.covers):
                continue
            if fault.kind == FAIL and fault.error is not None:
                raise fault.error
            if fault.kind == HOLD:
                self._timeline.add(timeline_.HELD, f"{run.what}, {point}", run=run.number)
                worker.held_at = frozenset({op, *names})
                worker.wait(None)
            elif fault.duration is not None:
                worker.wait(self._clock.instant + fault.duration)

    def _is_for(self, fault: Fault, run: Run) -> bool:
        return fault.times != 0 and run.covers(fault.partition) and self._has_target(run, fault.target)

    def _has_target(self, run: Run, target: str) -> bool:
        if target in run.assets:
            return True
        targets = {op.name for op in self._locations.op_definitions(target)}
        return bool(targets & self._locations.ops_of(run.location, run.job, run.assets))

    def _record(self, worker: runs_.Worker) -> Run:
        return self._timeline.runs[worker.run_id]


def never_hit(faults: Iterable[Fault]) -> Iterator[str]:
    """The faults that nothing came to, in words."""
    for fault in faults:
        if fault.hit == 0:
            yield str(fault)


def _end(code: int | None) -> str:
    if code is None:
        return (
            "its process did not end. If it uses delta-rs, or another library that does not survive a fork, put the "
            "Definitions into a module and load it by name, so that the process can be started afresh"
        )
    if code == OVERSLEPT:
        return "it slept for more than a day, and the world does not move while it does"
    return f"its process ended with exit code {code}; its output says why"


def _executing(
    run: dg.DagsterRun, repository: dg.RepositoryDefinition, instance: Any, prepare: runs_.Prepare, cpus: int
) -> Callable[[], None]:
    return lambda: runs_.execute(run, repository, instance, prepare, cpus)


def _caller() -> str | None:
    """Where in the code under test `time.sleep` was called; None when Dagster waits for a step's retry."""
    frame = sys._getframe(1)
    here = str(Path(__file__).parent)
    while frame is not None and frame.f_code.co_filename.startswith(here):
        frame = frame.f_back  # type: ignore[assignment]
    if f"{os.sep}dagster{os.sep}_core{os.sep}" in frame.f_code.co_filename:
        return None
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} ({frame.f_code.co_name})"
