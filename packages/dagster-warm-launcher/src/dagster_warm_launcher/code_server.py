"""`dagster-warm-launcher grpc ...`: Dagster's code server, and the template that its runs are forks of.

It takes the options of `dagster api grpc`. It imports the code location once, forks the template, and only then starts
gRPC's threads: the two share the import and its memory. Whoever asks the code server for a run gets a fork of the
template. On a unix socket, a launcher on this machine asks the template itself.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import click

from dagster_warm_launcher import _dagster, _proc, template
from dagster_warm_launcher._client import ForkedRun, Location, NotWarm, Templates, fork_by, shared_template
from dagster_warm_launcher._imports import WatchedImports, watched_imports
from dagster_warm_launcher._process import may_fork_runs, set_title
from dagster_warm_launcher.zygote import REPORT

logger = logging.getLogger("dagster.warm_launcher")
# What python's own fork server says of a process that ended while nobody could see how.
UNKNOWN_EXIT_CODE = 255
# A variable that says that definitions have to be built after the instance was opened.
NO_TEMPLATE = "DAGSTER_WARM_LAUNCHER_NO_TEMPLATE"


@click.group()
def main() -> None:
    """Code servers whose runs are forks of a process that has imported the code location."""


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def grpc(options: Sequence[str]) -> None:
    """`dagster api grpc` with the same options, and with warm runs."""
    report = os.environ.pop(REPORT, None)
    server = WarmServer(options, socket.socket(fileno=int(report)) if report else None)
    if sys.platform != "linux":
        logger.warning("forks are only safe on Linux: runs start in fresh processes")
    _dagster.use_code_server(server)
    _dagster.run_code_server(options)


@dataclass
class OwnTemplate:
    """The template that this code server has forked before it started its threads."""

    pid: int
    control: socket.socket
    has_ended: bool = False


class WarmServer:
    """What Dagster's code server asks and tells. See `_dagster.use_code_server`.

    Args:
        options: The options of `dagster api grpc`.
        report: Where a supervisor hears how the server goes. It can replace the server by one with new code.
    """

    def __init__(self, options: Sequence[str], report: socket.socket | None) -> None:
        self._options = options
        self._report = report
        self._template: OwnTemplate | None = None
        # Where clients find the server, and what is there while it is this one.
        self._address = _dagster.socket_of(options)
        self._inode: int | None = None
        self._location_name = "code"
        if report:
            report.set_inheritable(False)

    def own_address(self, address: str) -> str:
        """Return the unix socket to bind: another one than clients use, so that a successor takes over at once."""
        return f"{address}.{os.getpid()}"

    def before_it_starts(self, location_name: str, instance_ref: str | None, load: Callable[[], bool]) -> None:
        """Import the code location, and fork the template.

        Args:
            location_name: The location's name.
            instance_ref: `InstanceRef`, serialized; `None` if the server has no instance.
            load: Imports the location. Returns whether it is what the server would have imported later.
        """
        self._location_name = location_name
        if not may_fork_runs() or os.environ.pop(NO_TEMPLATE, ""):
            return
        set_title(f"dagster code server (grpc) {location_name}")
        inherited = set(_proc.descriptors())
        try:
            with watched_imports() as watched:
                is_right = load()
                if instance_ref:
                    template.import_what_runs_need(instance_ref)
        except Exception:
            return  # Dagster imports it again, and shows the error in the UI
        if not is_right:
            self._start_over()
        try:
            template.check_fork_is_safe(watched, inherited)
        except template.Unusable as reason:
            logger.warning("runs of %s start in fresh processes: %s", location_name, reason)
        else:
            self._fork_template(watched)

    def _start_over(self) -> NoReturn:
        if self._report:
            self._report.set_inheritable(True)
            os.environ[REPORT] = str(self._report.fileno())
        os.environ[NO_TEMPLATE] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "dagster_warm_launcher", "grpc", *self._options])

    def _fork_template(self, watched: WatchedImports) -> None:
        template.keep_memory_shared()
        listener = _listener(shared_template(self._address)) if self._address else None
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if (pid := os.fork()) == 0:
            control.close()
            if self._report:
                self._report.close()
            set_title(f"dagster template {self._location_name}")
            child = template.serve(theirs, watched, sys.maxsize, listener)
            sys.exit(child.execute() if child else 0)
        theirs.close()
        if listener:
            listener.close()
        self._template = OwnTemplate(pid, control)

    def serves(self) -> None:
        """Take over from the server that was here before."""
        if self._address:
            os.rename(self.own_address(self._address), self._address)
            self._inode = os.stat(self._address).st_ino
        self._tell(serves=self._location_name, template=self._template and self._template.pid)

    def is_replaced(self) -> bool:
        """Look after the template. Returns whether clients find another server now. Called once a second."""
        if self._template and not self._template.has_ended and _has_ended(self._template.pid):
            self._template.has_ended = True
            logger.warning("the template of %s (process %s) has ended", self._location_name, self._template.pid)
            self._tell(replace=f"its template (process {self._template.pid}) has ended")
        with suppress(OSError):
            return self._inode is not None and os.stat(str(self._address)).st_ino != self._inode
        return False

    def reload(self, timeout: float) -> bool:
        """Have this server replaced by one with new code, and wait for it. Returns whether that has happened."""
        if self._report is None or self._inode is None:
            return False
        self._tell(replace="somebody has asked for its new code")
        give_up = time.monotonic() + timeout
        while not self.is_replaced() and time.monotonic() < give_up:
            time.sleep(0.02)
        return self.is_replaced()

    def context(self, spawn: SpawnContext, load_data_for: Callable[[Any], str | None]) -> Any:
        """Return what starts the runs that somebody asks this server for."""
        if not may_fork_runs():
            return spawn
        own = self._template.control if self._template else None
        return WarmContext(self._location_name, spawn, load_data_for, own)

    def _tell(self, **message: object) -> None:
        if self._report:
            with suppress(OSError):  # the supervisor ends this process in a moment
                self._report.send(json.dumps(message).encode())


def _listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    draft = f"{path}.{os.getpid()}"
    listener.bind(draft)
    listener.listen(64)
    os.rename(draft, path)
    return listener


def _has_ended(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


class WarmContext:
    """What a code server takes from `multiprocessing` to start a run, with a fork where a template can be had.

    Args:
        own: A connection to the template that shares this process's import.
    """

    def __init__(
        self,
        location_name: str,
        spawn: SpawnContext,
        load_data_for: Callable[[Any], str | None],
        own: socket.socket | None,
    ) -> None:
        self._location_name = location_name
        self._spawn = spawn
        self._load_data_for = load_data_for
        self._own = own
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
        request = {"arguments": serialized_arguments, "job_origin": _dagster.serialize_value(origin)}
        load_data = self._load_data_for(job)
        if self._own and not _dagster.is_needed(load_data):
            try:
                return fork_by(self._own, request)
            except NotWarm as reason:
                # For good: its code is not that of now, or it is gone.
                logger.info("a new template for %s: %s", self._location_name, reason)
                self._own = None
        location = Location(
            name=self._location_name,
            executable=sys.executable,
            origin=_dagster.serialize_value(origin.repository_origin),
            load_data=load_data,
            instance_ref=_dagster.instance_ref_of(serialized_arguments),
            environment=dict(os.environ),
            working_directory=os.getcwd(),
            inject_environment=False,  # this process has been given it
            version=None,  # another version of the code is another code server
        )
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
