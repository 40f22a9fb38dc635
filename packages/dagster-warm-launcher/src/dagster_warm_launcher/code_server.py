"""`dagster-warm-launcher grpc ...`: Dagster's code server, whose runs are forks of a template beside it.

It takes the options of `dagster api grpc`. For a code server in a container, which the daemon's process can't fork in:
there, any run launcher that asks the code server for a run gets a warm one.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

import click

from dagster_warm_launcher import _dagster
from dagster_warm_launcher._client import ForkedRun, Location, NotWarm, Templates

logger = logging.getLogger("dagster.warm_launcher")
# What python's own fork server says of a process that ended while nobody could see how.
UNKNOWN_EXIT_CODE = 255


@click.group()
def main() -> None:
    """Code servers whose runs are forks of a process that has imported the code location."""


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def grpc(options: Sequence[str]) -> None:
    """`dagster api grpc` with the same options, and with warm runs."""
    if sys.platform == "linux":
        _dagster.code_servers_start_runs_in(WarmContext)
    else:
        logger.warning("forks are only safe on Linux: runs start in fresh processes")
    _dagster.run_code_server(options)


class WarmContext:
    """What a code server takes from `multiprocessing` to start a run, with a fork where a template can be had."""

    def __init__(self, location_name: str, spawn: SpawnContext, load_data_for: Callable[[Any], str | None]) -> None:
        self._location_name = location_name
        self._spawn = spawn
        self._load_data_for = load_data_for
        self._templates = Templates(logger.info, max_runs=1000, startup_timeout=60)

    def Queue(self) -> RunMessages:
        return RunMessages(self._spawn.Queue())

    def Event(self) -> Termination:
        return Termination(self._spawn.Event())

    def Process(self, target: Callable[..., Any], args: Sequence[Any]) -> RunProcess:
        return RunProcess(self, target, args)

    def fork(self, serialized_arguments: str, job: Any) -> ForkedRun:
        """Fork a run's process.

        Raises:
            NotWarm: It has to be a fresh process.
        """
        origin = job.get_python_origin()
        location = Location(
            name=self._location_name,
            executable=sys.executable,
            origin=_dagster.serialize_value(origin.repository_origin),
            load_data=self._load_data_for(job),
            instance_ref=_dagster.instance_ref_of(serialized_arguments),
            environment=dict(os.environ),
            working_directory=os.getcwd(),
            inject_environment=False,  # this process has been given it
            version=None,  # another version of the code is another code server
        )
        request = {"arguments": serialized_arguments, "job_origin": _dagster.serialize_value(origin)}
        return self._templates.fork(location, request)

    def spawn(self, target: Callable[..., Any], args: Sequence[Any]) -> BaseProcess:
        return self._spawn.Process(target=target, args=args)


class RunMessages:
    """The queue that a code server reads until its run has started."""

    def __init__(self, spawned: Any) -> None:
        self.spawned = spawned
        self.forked: ForkedRun | None = None

    def get_nowait(self) -> object:
        if self.forked is None:
            return self.spawned.get_nowait()
        try:
            message = self.forked.next_message(0.001)
        except TimeoutError:
            message = None
        if message and "started" in message:
            return _dagster.run_started()
        if message and "failed" in message:
            return _dagster.run_not_started(message["failed"], message["error"])
        raise queue.Empty


class Termination:
    """The event that a code server sets to interrupt its run."""

    def __init__(self, spawned: Any) -> None:
        self.spawned = spawned
        self.forked: ForkedRun | None = None
        self._set = False

    def set(self) -> None:
        self._set = True
        if self.forked is None:
            self.spawned.set()
        else:
            self.forked.interrupt()

    def is_set(self) -> bool:
        return self._set


class RunProcess:
    """The process of a run, of which a code server asks whether it is alive and how it ended."""

    def __init__(self, context: WarmContext, target: Callable[..., Any], args: Sequence[Any]) -> None:
        self._context = context
        self._target = target
        self._args = args
        self._forked: ForkedRun | None = None
        self._spawned: BaseProcess | None = None

    def start(self) -> None:
        serialized_arguments, job, messages, termination = self._args
        try:
            self._forked = messages.forked = termination.forked = self._context.fork(serialized_arguments, job)
        except NotWarm:
            args = [serialized_arguments, job, messages.spawned, termination.spawned]
            self._spawned = self._context.spawn(self._target, args)
            self._spawned.start()

    def is_alive(self) -> bool:
        if self._forked is not None:
            return self._forked.is_alive()
        return self._spawned is not None and self._spawned.is_alive()

    @property
    def exitcode(self) -> int | None:
        if self._forked is None:
            return self._spawned.exitcode if self._spawned else None
        if self._forked.is_alive():
            return None
        code = self._forked.wait_for_exit_code(seconds=1)
        return UNKNOWN_EXIT_CODE if code is None else code

    @property
    def pid(self) -> int | None:
        return self._forked.pid if self._forked else self._spawned.pid if self._spawned else None


if __name__ == "__main__":
    main()
