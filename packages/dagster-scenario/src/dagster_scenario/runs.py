"""Runs, each in a thread of its own, of which only one moves at a time.

A run goes on until it ends, sleeps, or comes to a point where the scenario holds it; then the scenario goes on. So
other runs, events and ticks can happen while it is under way, in an order that the scenario alone decides.
"""

import multiprocessing
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario.errors import ScenarioError
from dagster_scenario.executors import in_this_process


class _Abandoned(BaseException):
    """Ends the thread of a run that the scenario closes over."""


Prepare = Callable[[dg.JobDefinition, dg.RepositoryDefinition], dg.JobDefinition]

# Real seconds that a run may take in a process of its own. Sleeping takes none of them.
_PATIENCE = 300

_here = threading.local()


def worker_here() -> "Worker | None":
    """The run in whose thread this is called; None outside of runs."""
    return getattr(_here, "worker", None)


class Worker:
    """What executes one run."""

    def __init__(self, run: dg.DagsterRun, execute: Callable[[], Any]) -> None:
        self.run_id = run.run_id
        self.run = run
        self._execute = execute
        self._thread = threading.Thread(target=self._work, name=f"run {run.run_id[:8]}", daemon=True)
        self._its_turn = threading.Semaphore(0)
        self._our_turn = threading.Semaphore(0)
        self._ending: BaseException | None = None
        self.done = False
        self.crash: BaseException | None = None
        # Until when it sleeps; None while it is held until the scenario lets go.
        self.until: datetime | None = None
        # The op whose step it is at.
        self.step: str | None = None

    def go_on(self) -> None:
        """Let it run until it ends or waits for something."""
        if not self._thread.is_alive() and not self.done:
            self._thread.start()
        self._its_turn.release()
        self._our_turn.acquire()
        if self.done:
            self._thread.join()
        if self.crash is not None and not isinstance(self.crash, _Abandoned):
            crash, self.crash = self.crash, None
            raise crash

    def wait(self, until: datetime | None) -> None:
        """Called in the run's thread: give the turn back, and go on when it comes again."""
        self.until = until
        self._our_turn.release()
        self._its_turn.acquire()
        if self._ending is not None:
            raise self._ending

    def abandon(self) -> None:
        """End it where it is; its cleanup runs, its result is of no interest."""
        self._end(_Abandoned())

    def interrupt(self) -> None:
        """End it where it is as a terminated one, which Dagster records as canceled."""
        self._end(dg.DagsterExecutionInterruptedError())

    def _end(self, error: BaseException) -> None:
        self._ending = error
        while not self.done:
            self.go_on()

    def _work(self) -> None:
        self._its_turn.acquire()
        _here.worker = self
        try:
            if self._ending is None:
                self._execute()
        except BaseException as error:
            self.crash = error
        finally:
            self.done = True
            self._our_turn.release()


class Job(dagster_.InMemoryJob):
    """A job of a loaded code location, its steps in this process whatever its executor is."""

    def __init__(
        self, definition: dg.JobDefinition, repository: dg.RepositoryDefinition, prepare: Prepare | None
    ) -> None:
        super().__init__(definition.with_executor_def(in_this_process(definition.executor_def)))
        self._repository, self._prepare = repository, prepare

    def get_definition(self) -> dg.JobDefinition:
        job = super().get_definition()
        return self._prepare(job, self._repository) if self._prepare else job

    def get_repository_definition(self) -> dg.RepositoryDefinition:
        return self._repository

    def get_subset(self, **selection: Any) -> "Job":
        return Job(super().get_definition().get_subset(**selection), self._repository, self._prepare)


def execute(
    run: dg.DagsterRun,
    repository: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    prepare: Prepare | None = None,
) -> None:
    """Execute a run that has been launched, as a run worker does, in this thread.

    prepare: gives the job as it is to execute, with what stands in for some of it.
    """
    job = repository.get_job(run.job_name)
    # Without a line on the console for every event.
    config = dict(run.run_config)
    if job.loggers.get("console") is dg.colored_console_logger:
        config.setdefault("loggers", {"console": {"config": {"log_level": "ERROR"}}})
    dagster_.execute_run(Job(job, repository, prepare), run._replace(run_config=config), instance)


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
    return process.exitcode


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
        return event.node_name
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
