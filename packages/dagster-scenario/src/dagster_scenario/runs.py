"""Runs, each in a thread of its own. Only one of them moves at a time.

A run goes on until it ends, sleeps, or comes to a point where the scenario holds it. Then the scenario goes on. So
other runs, events and ticks can happen while it is under way, in an order that the scenario alone decides.

A run may start threads of its own. They belong to it: they sleep in simulated time and come to its faults.

Steps that a run executes side by side are workers too. They move when their run has its turn, one at a time.
"""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario.clock import FOR_EVER, undone_in_children
from dagster_scenario.errors import ScenarioError
from dagster_scenario.executors import CPUS, in_this_process
from dagster_scenario.stuck import Stuck, Watch, is_blocked, is_runnable, place, position, stack_of


class Abandoned(BaseException):
    """Ends the threads of a run that the scenario closes over."""


Prepare = Callable[[dg.JobDefinition, dg.RepositoryDefinition], dg.JobDefinition]

# Real seconds that a run may take in a process of its own. Sleeping takes none of them.
_PATIENCE = 300
# Real seconds that an abandoned run has for its cleanup, and again for the error that is then raised where it is.
_CLEANUP = 3.0
# A thread of a run waits for another one when it has stood in a wait of the standard library for so many looks.
_LOOKS = 25
# Real seconds after which a thread that does not move, in whatever code, counts as waiting too.
_NOT_MOVING = 1.0

_here = threading.local()
_start_thread = threading.Thread.start


def worker_here() -> "Worker | None":
    """The run that this thread belongs to; None outside of runs."""
    worker: Worker | None = getattr(_here, "worker", None)
    if worker is not None and worker.done:
        # A thread of a pool that outlives its run works for the run that moves now.
        return Worker.moving
    return worker


@dataclass(eq=False)
class _Wait:
    """A thread of a run that waits: until a moment, or, for None, until the scenario lets it go on."""

    until: datetime | None
    thread: threading.Thread
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Worker:
    """Executes one run."""

    # The one that has its turn now.
    moving: "Worker | None" = None

    def __init__(self, run: dg.DagsterRun, execute: Callable[[], Any], stuck_after: Callable[[], float | None]) -> None:
        self.run_id = run.run_id
        self.run = run
        self._execute = execute
        self._stuck_after = stuck_after
        self._thread = threading.Thread(target=self._work, name=f"run {run.run_id[:8]}", daemon=True)
        # The threads that the run has started and that are alive.
        self._others: set[threading.Thread] = set()
        # Those of them that have not come to their first line yet.
        self._beginning: set[threading.Thread] = set()
        self._waits: list[_Wait] = []
        # Released when a thread begins to wait, or ends: a reason to look.
        self._news = threading.Semaphore(0)
        self._ending: BaseException | None = None
        self.watch = Watch()
        self.done = False
        self.crash: BaseException | None = None
        # The op whose step it is at.
        self.step: str | None = None
        # The pools that it waits for, each with the number of the last change of slots that it has seen.
        self.waits_for: dict[str, int] = {}
        # Whether it waits for nothing but slots of pools.
        self.only_claims = False
        # When it last said that it waits for a step's retry, until when.
        self.retry_at: datetime | None = None
        # The steps of the run that are under way in threads of their own, in the order in which they were started.
        self.steps: list[Worker] = []
        self._steps_to_start: list[Worker] = []
        # Whether, when it is a step, it has told something that its run has not heard.
        self.has_news = False
        # What it is held at, when it is a step: the names that a fault could have for it.
        self.held_at: frozenset[str] = frozenset()

    # For the scenario

    def start(self) -> None:
        """Let it run until it ends or waits for something."""
        self._move(lambda: _start_thread(self._thread))

    @property
    def until(self) -> datetime | None:
        """When it is the first time that one of its threads has slept enough; None when none of them sleeps."""
        return min((until for _, wait in self._all_waits() if (until := wait.until) is not None), default=None)

    @property
    def held(self) -> bool:
        """Whether one of its threads waits for the scenario to let it go on."""
        return any(wait.until is None for _, wait in self._all_waits())

    def wake(self, now: datetime) -> None:
        """Let its threads go on that have slept enough, one after another."""
        while due := [
            (until, worker, wait) for worker, wait in self._all_waits() if (until := wait.until) and until <= now
        ]:
            _, worker, wait = min(due, key=lambda found: found[0])
            worker._let_go(wait)
            self._settle()

    def release(self, target: str | None = None) -> None:
        """Let its threads go on that are held; of steps side by side those alone that are held at the target."""
        held = [(worker, wait) for worker, wait in self._all_waits() if wait.until is None]
        for worker, wait in held:
            if worker is self or target is None or target in worker.held_at:
                worker._let_go(wait)
                self._settle()

    def interrupt(self) -> None:
        """End it where it is as a terminated one, which Dagster records as canceled."""
        self._ending = dg.DagsterExecutionInterruptedError()
        self._steps_to_start.clear()
        for step in self.steps:
            step.interrupt()
        while self._waits and not self.done:
            self._let_go(self._waits[0])

    def abandon(self) -> list[str]:
        """End it where it is; its cleanup runs, its result is of no interest.

        Returns: where it still is, as lines of a stack, when it does not end. Its threads then end with the process.
        """
        self._ending = Abandoned()
        if self._thread.ident is None:
            return []
        left = [line for step in self.steps for line in step.abandon()]
        for insist in (False, True):
            if not insist and not self._waits:
                # It is not at a point where it could be told.
                continue
            if insist:
                self._raise_in_threads()
            self._let_all_go()
            deadline = time.monotonic() + _CLEANUP
            while time.monotonic() < deadline and not self._is_over():
                self._news.acquire(timeout=0.05)
                self._let_all_go()
            if self._is_over():
                return left
        return left + self.stack()

    def place(self) -> str:
        """The line of the project's code that it is at."""
        return place([stack_of(thread) for thread in self._threads()])

    def stack(self) -> list[str]:
        """Where each of its threads is, as the lines of a stack."""
        return [line for thread in self._threads() for line in stack_of(thread).format()]

    # For its threads

    def wait(self, until: datetime | None) -> None:
        """Called in a thread of the run: give the turn back, and go on when it comes again."""
        if self._ending is not None:
            raise self._ending
        self.watch.moved()
        wait = _Wait(until, threading.current_thread())
        self._waits.append(wait)
        self._news.release()
        wait.turn.acquire()
        self.watch.moved()
        if self._ending is not None:
            raise self._ending

    def start_step(self, name: str, execute: Callable[[], None]) -> "Worker":
        """Called in the thread of the run: a step is to be executed in a thread of its own, from the next wait on."""
        step = Worker(self.run, execute, self._stuck_after)
        step._thread.name = f"step {name}"
        self._steps_to_start.append(step)
        return step

    def wait_for_steps(self) -> None:
        """Called in the thread of the run: give the turn back until a step has news or has ended."""
        self.wait(FOR_EVER)

    def look_at(self, moment: datetime) -> None:
        """Let what waits for a slot of a pool look for one at this moment."""
        for wait in self._waits if self.waits_for else []:
            if wait.until == FOR_EVER:
                wait.until = moment

    def take_in(self, thread: threading.Thread) -> None:
        """Start a thread for a thread of the run."""
        run = thread.run

        def run_for_worker() -> None:
            _here.worker = self
            self._beginning.discard(thread)
            try:
                run()
            except Abandoned:
                pass
            finally:
                self._others.discard(thread)
                self._news.release()

        self._others.add(thread)
        self._beginning.add(thread)
        thread.run = run_for_worker  # type: ignore[method-assign]
        try:
            _start_thread(thread)
        except BaseException:
            self._others.discard(thread)
            self._beginning.discard(thread)
            raise

    # Behind it

    def _let_go(self, wait: _Wait) -> None:
        self._waits.remove(wait)
        self._move(wait.turn.release)

    def _let_all_go(self) -> None:
        for wait in list(self._waits):
            self._waits.remove(wait)
            wait.turn.release()

    def _move(self, begin: Callable[[], None]) -> None:
        """Begin, and come back when it has ended or waits, and each of its steps has ended or waits."""
        self._move_alone(begin)
        self._settle()

    def _settle(self) -> None:
        """Start the steps that are to be started, and let the run hear those that have news or have ended."""
        while not self.done:
            if self._steps_to_start:
                step = self._steps_to_start.pop(0)
                self.steps.append(step)
                step.start()
                continue
            waits = [wait for wait in self._waits if wait.thread is self._thread]
            if not waits or not any(step.done or step.has_news for step in self.steps):
                return
            for step in self.steps:
                step.has_news = False
            self.steps = [step for step in self.steps if not step.done]
            self._waits.remove(waits[0])
            self._move_alone(waits[0].turn.release)
        # Of a run that has ended by an error, Dagster ends the steps too.
        for step in self.steps:
            step.interrupt()

    def _all_waits(self) -> "list[tuple[Worker, _Wait]]":
        """What its threads and those of its steps wait for."""
        return [(worker, wait) for worker in (self, *self.steps) for wait in list(worker._waits)]

    def _move_alone(self, begin: Callable[[], None]) -> None:
        before, Worker.moving = Worker.moving, self
        self.watch.moved()
        try:
            begin()
            self._until_it_waits()
        finally:
            Worker.moving = before
        if self.done:
            self._thread.join()
            self._let_all_go()
        if self.crash is not None and not isinstance(self.crash, Abandoned):
            crash, self.crash = self.crash, None
            raise crash

    def _until_it_waits(self) -> None:
        seen: dict[threading.Thread, tuple[Any, int, float]] = {}
        while not self.done:
            # In this order: a thread that has begun between the two is one that moves.
            beginning, moving = bool(self._beginning), self._moving_threads()
            if self._waits and not beginning and all(self._has_stopped(thread, seen) for thread in moving):
                return
            self._news.acquire(timeout=0.001 if self._waits else 0.1)
            limit = self._stuck_after()
            if limit is not None and self.watch.still_for() > limit and not self._is_debugged():
                raise Stuck(limit, self.place(), self.stack())

    def _moving_threads(self) -> list[threading.Thread]:
        waiting = {wait.thread for wait in list(self._waits)}
        return [thread for thread in self._threads() if thread not in waiting]

    def _has_stopped(self, thread: threading.Thread, seen: dict[threading.Thread, tuple[Any, int, float]]) -> bool:
        """Whether a thread waits for another one, by all that can be seen of it. seen: what earlier looks found."""
        now, where = time.monotonic(), position(thread)
        last, looks, since = seen.get(thread, (None, 0, now))
        if where != last or is_runnable(thread):
            looks, since = 0, now
        seen[thread] = (where, looks + 1, since)
        return (is_blocked(thread) and looks >= _LOOKS) or now - since > _NOT_MOVING

    def _is_debugged(self) -> bool:
        return any(stack_of(thread).is_debugged for thread in self._threads())

    def _threads(self) -> list[threading.Thread]:
        """Its own thread and those that it has started, as far as they are alive."""
        others = sorted(self._others.copy(), key=lambda thread: thread.ident or 0)
        return [thread for thread in [self._thread, *others] if thread.is_alive()]

    def _is_over(self) -> bool:
        return self.done and not self._waits

    def _raise_in_threads(self) -> None:
        """Raise in each of its threads, at the next line of Python that it comes to."""
        for thread in self._threads():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Abandoned))

    def _work(self) -> None:
        _here.worker = self
        try:
            if self._ending is None:
                self._execute()
        except BaseException as error:
            self.crash = error
        finally:
            self.done = True
            self._news.release()


@contextmanager
def threads_belong_to_runs() -> Iterator[None]:
    """Within it, a thread that is started by a thread of a run belongs to that run."""

    def start(self: threading.Thread) -> None:
        worker = worker_here()
        if worker is None:
            _start_thread(self)
        else:
            worker.take_in(self)

    def give_back() -> None:
        threading.Thread.start = _start_thread  # type: ignore[method-assign]
        _here.worker = None

    threading.Thread.start = start  # type: ignore[method-assign]
    try:
        with undone_in_children(give_back):
            yield
    finally:
        give_back()


class Job(dagster_.InMemoryJob):
    """A job of a loaded code location, its steps in this process whatever its executor is."""

    def __init__(
        self,
        definition: dg.JobDefinition,
        repository: dg.RepositoryDefinition,
        prepare: Prepare | None,
        cpus: int = CPUS,
    ) -> None:
        super().__init__(definition.with_executor_def(in_this_process(definition.executor_def, worker_here, cpus)))
        self._repository, self._prepare, self._cpus = repository, prepare, cpus
        self._prepared: dg.JobDefinition | None = None

    def get_definition(self) -> dg.JobDefinition:
        # The same one for all steps of a run, whatever is stubbed while it is under way.
        if self._prepared is None:
            job = super().get_definition()
            self._prepared = self._prepare(job, self._repository) if self._prepare else job
        return self._prepared

    def get_repository_definition(self) -> dg.RepositoryDefinition:
        return self._repository

    def get_subset(self, **selection: Any) -> "Job":
        return Job(super().get_definition().get_subset(**selection), self._repository, self._prepare, self._cpus)


def execute(
    run: dg.DagsterRun,
    repository: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    prepare: Prepare | None = None,
    cpus: int = CPUS,
) -> None:
    """Execute a run that has been launched, as a run worker does, in this thread.

    prepare: gives the job as it is to execute, with what stands in for some of it. cpus: of the machine that it is on.
    """
    job = repository.get_job(run.job_name)
    # Without a line on the console for every event. A job with a config mapping has a config of its own.
    config = dict(run.run_config)
    fields = getattr(job.run_config_schema.config_type, "fields", {})
    if "loggers" in fields and job.loggers.get("console") is dg.colored_console_logger:
        config.setdefault("loggers", {"console": {"config": {"log_level": "ERROR"}}})
    dagster_.execute_run(Job(job, repository, prepare, cpus), run._replace(run_config=config), instance)


def execute_and_die(method: str, work: Callable[..., None], *arguments: Any) -> int | None:
    """Do work in a process of its own, which is expected to kill itself. Returns its exit code, -9 when it did.

    method: "fork" copies this process, with all that is loaded; "spawn" starts afresh. None when it did not end.
    """
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=_in_child, args=(work, arguments))
    with warnings.catch_warnings():
        # Newer Pythons warn of a fork beside other threads. Those of runs and servers wait, and the child ignores them.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        process.start()
    process.join(_PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    code: int | None = process.exitcode
    return code


def _in_child(work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # Ctrl-C ends the scenario, which ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def step_after(entry: Any, step: str | None) -> str | None:
    """The op whose step a run is at after this event, given the one before."""
    event = entry.dagster_event
    if event is None:
        return step
    if event.event_type == dg.DagsterEventType.STEP_START:
        op: str | None = event.node_name
        return op
    if event.event_type in (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE):
        return None
    return step


def delta(**parts: float) -> timedelta:
    """`timedelta(**parts)`, refusing an empty one."""
    if not parts:
        raise ScenarioError("how long? Give a duration such as hours=1 or minutes=30")
    try:
        return timedelta(**parts)
    except TypeError:
        units = "weeks, days, hours, minutes, seconds, milliseconds"
        raise ScenarioError(f"{', '.join(parts)}: not a duration; give it in {units}, as in hours=1") from None
