"""Steps of the multiprocess executor as forks of the template, and not as processes that import everything again.

A run's process has threads and connections, and must not fork. So it asks its template. What goes to the step's process
is what `multiprocessing` sends to a spawned one; only the process comes from elsewhere.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import socket
import time
from multiprocessing import context, forkserver, popen_forkserver, popen_spawn_posix, reduction, resource_tracker, spawn
from multiprocessing import util as multiprocessing_util
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from dagster_warm_launcher import _proc

# What the fork server of Python says of a process whose end nobody has seen.
UNKNOWN_EXIT_CODE = 255


class StepPopen(popen_forkserver.Popen):
    _fds: list[int]
    _started: str | None = None

    def _launch(self, process: Any) -> None:
        content = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(spawn.get_preparation_data(process._name), content)
            reduction.dump(process, content)
        finally:
            context.set_spawning_popen(None)
        self.sentinel, writer = _ask(self._fds)
        # The step's process sees by this one's end of the pipe whether this process is there.
        kept = os.dup(writer)
        self.finalizer = multiprocessing_util.Finalize(self, _close, (kept, self.sentinel))
        try:
            with open(writer, "wb") as pipe:
                pipe.write(content.getbuffer())
            self.pid = forkserver.read_signed(self.sentinel)
        except (OSError, EOFError):
            self.finalizer()
            raise
        self._started = _proc.start_time(self.pid)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        code: int | None = super().poll(flag)
        if code != UNKNOWN_EXIT_CODE or self._started is None:
            return code
        # The template is gone. The step may be there.
        while _proc.start_time(self.pid) == self._started:
            if flag == os.WNOHANG:
                self.returncode = None
                return None
            time.sleep(0.05)
        return code


class StepProcess(SpawnProcess):
    @staticmethod
    def _Popen(process: Any) -> Any:
        try:
            return StepPopen(process)
        except (OSError, EOFError):
            # The template is gone, or its code has changed: as without it.
            return popen_spawn_posix.Popen(process)


class StepContext(SpawnContext):
    """A `spawn` context whose processes are forks of the run's template."""

    Process = StepProcess
    # The socket to the template. It is the class's, because the processes are pickled, and a socket can't be.
    template: socket.socket | None = None


def _ask(descriptors: list[int]) -> tuple[int, int]:
    """Ask for a step's process. Returns where its pid and exit code come from, and where its task goes to."""
    tracker, template = resource_tracker.getfd(), StepContext.template
    assert tracker is not None
    assert template is not None
    reader, child_writer = os.pipe()
    child_reader, writer = os.pipe()
    try:
        socket.send_fds(template, [b"step"], [child_reader, child_writer, tracker, *descriptors])
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    finally:
        os.close(child_reader)
        os.close(child_writer)
    return reader, writer


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def execute_step(descriptors: list[int]) -> int:
    """Be the process of a step: the other end of `_ask`. Returns its exit code."""
    reader, tracker, *inherited = descriptors
    forkserver._forkserver._inherited_fds = inherited  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    code: int = spawn._main(reader, os.dup(reader))
    return code


class Multiprocessing:
    """The module `multiprocessing`, with that `spawn` context."""

    def __init__(self, template: socket.socket) -> None:
        StepContext.template = template

    def get_context(self, method: str | None = None) -> Any:
        return StepContext() if method == "spawn" else multiprocessing.get_context(method)

    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing, name)
