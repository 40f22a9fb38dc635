"""`python -m dagster_warm_launcher.zygote`: a Python interpreter that has imported what others need, and forks them.

Each import happens once, and its memory is shared. A fork executes `-m module arguments`, as `python` would. The zygote
has one thread, opens no connection, and knows nothing of what its forks do. When its owner ends, it ends all of them.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from dagster_warm_launcher import _proc
from dagster_warm_launcher._process import (
    adopt_orphans,
    become_a_process_of_its_own,
    die_with_parent,
    has_room_for_titles,
    set_title,
)
from dagster_warm_launcher.template import children_that_end

MESSAGE_BYTES = 1 << 17
# The variable with the descriptor on which a fork says to the zygote's owner how it goes.
REPORT = "DAGSTER_WARM_LAUNCHER_REPORT"
# How long the forks may take to end, when the owner is gone.
STOP_SECONDS = 20


def main() -> NoReturn:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control", type=int, required=True, help="a socket to the process that asks for forks")
    parser.add_argument("--room", help="room for the titles of the forks")
    parser.add_argument("modules", nargs="*", help="what to import before the first fork")
    arguments = parser.parse_args()
    control = socket.socket(fileno=arguments.control)
    control.set_inheritable(False)
    adopt_orphans()
    for name in arguments.modules:
        with suppress(ImportError):  # whoever needs it says so
            importlib.import_module(name)
    threads = _proc.threads_after_a_fork()
    # What is here now is never freed; unless the collector looks at it, its memory stays shared with the forks.
    gc.collect()
    gc.freeze()
    if arguments.room:
        has_room_for_titles()
    set_title("dagster-warm-launcher zygote")
    _send(control, ready=True, threads=threads)
    child = _serve(control, can_fork=threads == 1)
    sys.exit(child.execute() if child else 0)


class Child:
    """What a fork has to execute, and with which descriptors."""

    def __init__(self, asked: dict[str, Any], descriptors: list[int], can_fork: bool) -> None:
        self.name: str = asked["name"]
        self.number: int = asked["fork"]
        self._arguments: list[str] = asked["arguments"]
        self._is_fresh: bool = asked["fresh"] or not can_fork
        self.descriptors = descriptors

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)

    def belongs_to_this_process(self, parent: int) -> None:
        die_with_parent(parent)
        output, report = self.descriptors
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.set_inheritable(report, True)
        os.environ[REPORT] = str(report)

    def execute(self) -> int:
        """Be `python -m module arguments`. Returns the exit code."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if self._is_fresh:
            os.execv(sys.executable, [sys.executable, *self._arguments])
        become_a_process_of_its_own()
        set_title(self.name)
        option, module, *rest = self._arguments
        assert option == "-m", self._arguments
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0


def _serve(control: socket.socket, can_fork: bool) -> Child | None:
    """Fork for each request, and report how the forks ended.

    Returns:
        In a child: what it has to be. In the zygote: `None`, when its owner is gone and all forks have ended.
    """
    here, running = os.getpid(), dict[int, int]()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with children_that_end() as ended, selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ)
        selector.register(control, selectors.EVENT_READ)
        while True:
            for asking in [key.fileobj for key, _ in selector.select()]:
                if asking is ended:
                    _drain(ended)
                    _reap(control, running)
                    continue
                received, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
                if not received:
                    _end_all()
                    return None
                asked = json.loads(received)
                if "signal" in asked:
                    for pid in [pid for pid, number in running.items() if number == asked["to"]]:
                        os.kill(pid, asked["signal"])
                    continue
                child = Child(asked, descriptors, can_fork)
                if (pid := os.fork()) == 0:
                    control.close()
                    child.belongs_to_this_process(here)
                    return child
                child.close()
                running[pid] = child.number
                _send(control, forked=child.number, pid=pid)


def _drain(ended: socket.socket) -> None:
    with suppress(BlockingIOError):
        while ended.recv(4096):
            pass


def _reap(control: socket.socket, running: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = running.pop(pid, None)
            if number is not None:
                _send(control, exited=number, code=os.waitstatus_to_exitcode(status))


def _end_all() -> None:
    """End every process of the zygote's group: forks, what they have started, and runs whose template is gone."""
    if os.getpgrp() != os.getpid():
        return
    os.killpg(0, signal.SIGTERM)  # this process has it blocked
    give_up = time.monotonic() + STOP_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < give_up:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
    os.killpg(0, signal.SIGKILL)


def _send(receiver: socket.socket, **message: object) -> None:
    with suppress(OSError):
        receiver.send(json.dumps(message).encode())


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.exit(1)
