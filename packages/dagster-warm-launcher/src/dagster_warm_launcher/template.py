"""`python -m dagster_warm_launcher.template`: the process that has imported one code location and forks its runs.

It has one thread, opens no connection, and waits. For each run it gets a socket, and forks. The child is the run; it
reads from that socket what to run, and says there how it goes. See `_client.py` for the other end.
"""

# The standard library only: the imports that follow are watched.
from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from dagster_warm_launcher import _proc
from dagster_warm_launcher._imports import WatchedImports, watched_imports
from dagster_warm_launcher._process import become_a_process_of_its_own, set_title

MESSAGE_BYTES = 1 << 20
MAX_DESCRIPTORS = 64
# A template only forks. When it has grown by this much, something in it runs that should not.
GROWTH_BYTES = 64 << 20
INTERRUPTS = {signal.SIGINT, signal.SIGTERM}


class Unusable(Exception):
    """Why a fork of this process would not be what a fresh process is."""


def main() -> NoReturn:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control", type=int, required=True, help="a socket to the process that asks for runs")
    control = socket.socket(fileno=parser.parse_args().control)
    control.set_inheritable(False)
    specification = json.loads(control.recv(MESSAGE_BYTES))
    began = time.monotonic()
    try:
        # A pipe or socket that somebody left open for this process is not the import's.
        inherited = set(_proc.descriptors())
        watched = _import_location(specification)
        check_fork_is_safe(watched, inherited)
    except Unusable as reason:
        _send(control, unusable=str(reason))
        sys.exit(1)
    except BaseException as error:
        _send(control, unusable=f"its import failed: {type(error).__name__}: {error}")
        raise
    keep_memory_shared()
    _send(control, ready=True, seconds=round(time.monotonic() - began, 2), files=len(watched.files))
    child = serve(control, watched, specification["max_runs"])
    # From here on this process is a run or a step, unless nobody needs the template any more.
    sys.exit(child.execute() if child else 0)


def _import_location(specification: dict[str, Any]) -> WatchedImports:
    with watched_imports() as watched:
        from dagster_warm_launcher import _dagster

        if specification["location_name"] is not None:
            os.environ.update(
                _dagster.inject_environment(specification["instance_ref"], specification["location_name"])
            )
        _dagster.import_repository(specification["origin"], specification["load_data"])
        import_what_runs_need(specification["instance_ref"])
    return watched


def import_what_runs_need(serialized_instance_ref: str) -> None:
    """Import what a run imports besides its location."""
    from dagster_warm_launcher import _dagster

    importlib.import_module("dagster_warm_launcher._steps")
    _dagster.import_instance_classes(serialized_instance_ref)


def keep_memory_shared() -> None:
    """Keep the garbage collector away from what is here now: it is never freed, and a look at it copies its memory."""
    gc.collect()
    gc.freeze()


def check_fork_is_safe(watched: WatchedImports, inherited: set[int]) -> None:
    """Check that a fork of this process is what a fresh process would be.

    Args:
        watched: What the imports did.
        inherited: The descriptors that were open before them.

    Raises:
        Unusable: It is not.
    """
    if _proc.threads_after_a_fork() > 1:
        raise Unusable(_threads_message(watched))
    for descriptor, target in _proc.descriptors().items():
        if descriptor not in inherited and _proc.shares_state_when_forked(descriptor, target):
            raise Unusable(
                f"its import leaves {target} open, and all runs would share it. Open it in a resource, or when it is"
                " first used, and not when the module is imported."
            )


def _threads_message(watched: WatchedImports) -> str:
    started = [
        f"{module} ({count}, imported by {' > '.join(chain[-4:-1]) or 'the location'})"
        for module, (count, chain) in watched.threads.items()
    ]
    return (
        "its import starts threads, and a fork has none of them:"
        f" {', '.join(started) or 'not while a module was imported'}."
        " Import that module, or start its thread, in the function that uses it."
    )


def serve(
    control: socket.socket, watched: WatchedImports, max_runs: int, listener: socket.socket | None = None
) -> Child | None:
    """Fork for each request, and report how the forks ended.

    Args:
        control: A connection to the owner. It may ask for runs.
        watched: What the imports did.
        max_runs: After so many runs this process says that it has to be replaced.
        listener: Where others connect who may ask for runs, too.

    Returns:
        In a child: what it has to be. In the template: `None`, when its owner is gone and its runs have ended.
    """
    children: dict[int, Child] = {}
    began_with = (_proc.resident_bytes(), len(_proc.descriptors()))
    forked = 0
    # Ctrl-C in a terminal reaches all its processes. The runs hear it, as stock ones do. The template does not: it ends
    # after its owner.
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    with children_that_end() as ended, selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ)
        selector.register(control, selectors.EVENT_READ)
        if listener:
            selector.register(listener, selectors.EVENT_READ)
        # Those who may ask for runs. All others may ask for steps.
        asking_for_runs = {control}
        owned = True
        while owned or children:
            for asking in [key.fileobj for key, _ in selector.select()]:
                if asking is ended:
                    _reap(ended, children)
                    continue
                assert isinstance(asking, socket.socket)
                if asking.fileno() < 0:
                    continue  # closed on the way here
                if asking is listener:
                    asking_for_runs.add(connection := asking.accept()[0])
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                descriptors = _received(asking)
                if not descriptors:
                    selector.unregister(asking)
                    asking_for_runs.discard(asking)
                    owned = owned and asking is not control
                    if asking is not control:
                        asking.close()
                    elif listener:
                        selector.unregister(listener)
                        listener.close()
                    continue
                child = Run(descriptors) if asking in asking_for_runs else Step(descriptors)
                reason = _why_replace(
                    watched, began_with, forked, max_runs if child.is_run else sys.maxsize, len(children)
                )
                if reason:
                    child.refuse(reason)
                    continue
                if (pid := os.fork()) == 0:
                    child.belongs_to_this_process()
                    for other in [key.fileobj for key in selector.get_map().values() if key.fileobj is not ended]:
                        other.close()  # type: ignore[union-attr]
                    set_title("dagster run" if child.is_run else "dagster step")
                    for sibling in children.values():
                        sibling.close()
                    return child
                if child.steps:
                    selector.register(child.steps[0], selectors.EVENT_READ)
                child.forked(pid)
                children[pid] = child
                forked += 1
    return None


def _received(asking: socket.socket) -> list[int]:
    """Return the descriptors that somebody has sent; none if that process is gone."""
    with suppress(ConnectionResetError):
        return socket.recv_fds(asking, MESSAGE_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)[1]
    return []


class Run:
    """A run's process: a socket on which it gets its task, and on which it and the template say how it goes."""

    is_run = True

    def __init__(self, descriptors: list[int]) -> None:
        self._connection = socket.socket(fileno=descriptors[0])
        # On which it asks the template for its steps' processes.
        self.steps = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def refuse(self, reason: str) -> None:
        _send(self._connection, refused=reason)
        self.close()
        self.steps[0].close()
        self.steps[1].close()

    def forked(self, pid: int) -> None:
        self.steps[1].close()

    def belongs_to_this_process(self) -> None:
        self.steps[0].close()

    def ended(self, code: int) -> None:
        _send(self._connection, exited=code)
        self.close()

    def close(self) -> None:
        self._connection.close()

    def execute(self) -> int:
        return _execute(self._connection, self.steps[1])


class Step:
    """A step's process: pipes, as those between Python's fork server and a process of `multiprocessing`."""

    is_run = False
    steps = None

    def __init__(self, descriptors: list[int]) -> None:
        self._reader, self._writer, *self._others = descriptors

    def refuse(self, reason: str) -> None:
        self.forked(None)
        self.close()

    def forked(self, pid: int | None) -> None:
        for descriptor in [self._reader, *self._others]:
            os.close(descriptor)
        self._others = []
        if pid is not None:
            self._say(pid)

    def belongs_to_this_process(self) -> None:
        os.close(self._writer)

    def ended(self, code: int) -> None:
        self._say(code)
        self.close()

    def _say(self, number: int) -> None:
        with suppress(OSError):
            os.write(self._writer, struct.pack("q", number))

    def close(self) -> None:
        os.close(self._writer)

    def execute(self) -> int:
        become_a_process_of_its_own()
        from dagster_warm_launcher import _steps

        return _steps.execute_step([self._reader, *self._others])


Child = Run | Step


def _why_replace(
    watched: WatchedImports, began_with: tuple[int, int], forked: int, max_runs: int, under_way: int
) -> str | None:
    if path := watched.changed_file():
        return f"{path} has changed"
    if _proc.threads() > 1:
        return "it has got a second thread"
    if _proc.resident_bytes() > began_with[0] + GROWTH_BYTES:
        return f"it has grown by more than {GROWTH_BYTES >> 20} MiB"
    # Those of the loop, two of each run, and the new one's.
    if len(_proc.descriptors()) > began_with[1] + 2 * under_way + 16:
        return "it has more files open than it has runs"
    return f"it has started {forked} runs" if forked >= max_runs else None


@contextmanager
def children_that_end() -> Iterator[socket.socket]:
    """Yield a socket that becomes readable when a child ends. A child gets Python's own handlers back."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, before)
        reader.close()
        writer.close()


def _reap(ended: socket.socket, children: dict[int, Child]) -> None:
    with suppress(BlockingIOError):
        while ended.recv(4096):
            pass
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if child := children.pop(pid, None):
                child.ended(os.waitstatus_to_exitcode(status))


def _execute(run: socket.socket, steps: socket.socket) -> int:
    """Be the run that the request asks for.

    Returns:
        The exit code.
    """
    from dagster_warm_launcher import _dagster, _steps

    _dagster.steps_start_in(_steps.Multiprocessing(steps))
    become_a_process_of_its_own()
    _send(run, pid=os.getpid(), start_time=_proc.start_time(os.getpid()))
    asked = ""
    with suppress(ConnectionResetError):
        asked = run.makefile().readline()
    if not asked:
        return 0  # whoever asked has not waited for so long, and has started the run elsewhere
    request = json.loads(asked)
    # An interrupt that comes early is kept until Dagster looks at it.
    with _dagster.capture_interrupts():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
        _dagster.execute_run(
            request["arguments"],
            request["job_origin"],
            started=lambda: _send(run, started=True),
            failed=lambda message, error: _send(run, failed=message, error=error),
        )
    return 0


def _send(receiver: socket.socket, **message: Any) -> None:
    # Whoever asked may be gone. The run goes on.
    with suppress(OSError):
        receiver.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
