"""Templates as the process sees them that asks for runs: the daemon, or a code server."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dagster_warm_launcher import _proc

MESSAGE_BYTES = 1 << 20
# How long a template may take to fork. It is at once, if the machine is not very busy.
FORK_SECONDS = 60.0


class NotWarm(Exception):
    """Why a run is not started from a template. It has not been started at all: a fresh process can run it."""


@dataclass(frozen=True)
class Location:
    """What a template imports, and where.

    Attributes:
        name: The code location's name, for messages.
        executable: The Python interpreter.
        origin: `RepositoryPythonOrigin`, serialized.
        load_data: `RepositoryLoadData`, serialized: what definitions that come from elsewhere are rebuilt from.
        instance_ref: `InstanceRef`, serialized.
        environment: The environment variables of the template and of its runs.
        working_directory: The directory of the template and of its runs.
        inject_environment: Whether the instance's secrets loader (`.env`) adds to the environment.
        version: Changes with each reload of the location.
        shared_template: The unix socket of the template that the location's code server shares, if it has one.
    """

    name: str
    executable: str
    origin: str
    load_data: str | None
    instance_ref: str
    environment: Mapping[str, str] = field(hash=False)
    working_directory: str
    inject_environment: bool
    version: str | None
    shared_template: str | None = None


class ForkedRun:
    """A run's process, which is a child of a template."""

    def __init__(self, connection: socket.socket, pid: int, start_time: str) -> None:
        self.connection = connection
        self.pid = pid
        self.start_time = start_time
        self.exit_code: int | None = None
        self._unread = b""

    def next_message(self, timeout: float | None) -> dict[str, Any] | None:
        """Return what the run says next; `None` when it and its template are silent for ever.

        Raises:
            TimeoutError: Nothing was said for that many seconds.
        """
        self.connection.settimeout(timeout)
        while b"\n" not in self._unread:
            with suppress(ConnectionResetError):
                if received := self.connection.recv(65536):
                    self._unread += received
                    continue
            return None
        line, self._unread = self._unread.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        if "exited" in message:
            self.exit_code = message["exited"]
        return message

    def is_alive(self) -> bool:
        return _proc.start_time(self.pid) == self.start_time

    def interrupt(self) -> bool:
        """Ask the run to end, as Ctrl-C does. Returns whether it was there."""
        return _proc.interrupt(self.pid, self.start_time)

    def wait_for_exit_code(self, seconds: float) -> int | None:
        """Return the exit code of a process that has ended; `None` if its template has not said it by then."""
        with suppress(TimeoutError):
            while self.exit_code is None and self.next_message(seconds):
                pass
        return self.exit_code

    def kill(self) -> None:
        """End the process at once."""
        _proc.interrupt(self.pid, self.start_time, signal.SIGKILL)

    def ending(self) -> str:
        """Return how the process ended, in words."""
        if self.exit_code is None:
            return "nobody knows how, because its template is gone, too"
        if self.exit_code < 0:
            return f"killed by signal {-self.exit_code} ({signal.Signals(-self.exit_code).name})"
        return f"with exit code {self.exit_code}"


def fork_by(control: socket.socket, request: Mapping[str, str]) -> ForkedRun:
    """Let the template at the other end of a connection fork a process that executes a run.

    The process hears what to execute when it has said that it is there. So one that comes too late executes nothing.

    Raises:
        NotWarm: The template is gone, or says that it has to be replaced.
    """
    ours, theirs = socket.socketpair()
    run = ForkedRun(ours, 0, "")
    try:
        with theirs:
            socket.send_fds(control, [b"fork"], [theirs.fileno()])
        message = run.next_message(FORK_SECONDS)
        if message and "pid" in message:
            ours.sendall(json.dumps(request).encode() + b"\n")
    except OSError as error:  # a TimeoutError, too
        ours.close()
        raise NotWarm(f"the template does not answer ({type(error).__name__}: {error})") from error
    if message is None or "pid" not in message:
        ours.close()
        raise NotWarm(_why_no_process(message, run))
    run.pid, run.start_time = message["pid"], message["start_time"]
    return run


def shared_template(code_server: str) -> str:
    """Return the unix socket of the template of a code server, which has the other one."""
    return f"{code_server}.runs"


def fork_at(path: str, request: Mapping[str, str]) -> tuple[ForkedRun, int]:
    """Let the template that listens on a unix socket fork a process that executes a run.

    Returns:
        The run's process, and the template's pid.

    Raises:
        NotWarm: No template listens there, or it says that it has to be replaced.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(10)
        try:
            connection.connect(path)
        except OSError as error:
            raise NotWarm(f"no template answers at {path} ({error.strerror or error})") from error
        pid, _uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return fork_by(connection, request), pid


class Template:
    """A running template process. Its runs go on when it, or this process, ends."""

    def __init__(self, location: Location, max_runs: int, startup_timeout: float) -> None:
        """Start the template, and wait until it has imported its location.

        Args:
            location: What it imports.
            max_runs: After how many runs it has to be replaced.
            startup_timeout: How long the import may take, in seconds.

        Raises:
            NotWarm: The location can't be imported, or a process that has imported it must not be forked.
        """
        self._executable = location.executable
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [location.executable, "-m", "dagster_warm_launcher.template", "--control", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env={**location.environment},
                    cwd=location.working_directory,
                )
        except OSError as error:
            self._control.close()
            raise NotWarm(f"{location.executable} can't be started in {location.working_directory}: {error}") from error
        self.pid = self._process.pid
        self.start_time = _proc.start_time(self.pid)
        specification = {
            "origin": location.origin,
            "load_data": location.load_data,
            "instance_ref": location.instance_ref,
            "location_name": location.name if location.inject_environment else None,
            "max_runs": max_runs,
        }
        reply = self._first_reply(specification, startup_timeout)
        if "ready" not in reply:
            self.retire()
            raise NotWarm(reply["unusable"])

    def _first_reply(self, specification: dict[str, Any], timeout: float) -> dict[str, Any]:
        self._control.settimeout(timeout)
        try:
            self._control.send(json.dumps(specification).encode())
            if received := self._control.recv(MESSAGE_BYTES):
                reply: dict[str, Any] = json.loads(received)
                return reply
        except TimeoutError:
            return self._too_slow(timeout)
        except OSError:
            pass  # it has ended
        try:
            code = self._process.wait(timeout)
            return {
                "unusable": f"its process ended with exit code {code}, for a reason that it has printed. Is"
                f" dagster-warm-launcher installed for {self._executable}?"
            }
        except subprocess.TimeoutExpired:
            return self._too_slow(timeout)

    def _too_slow(self, timeout: float) -> dict[str, Any]:
        self._process.kill()
        return {"unusable": f"its import took longer than {timeout:g} s (`startup_timeout`)"}

    def fork(self, request: Mapping[str, str]) -> ForkedRun:
        """Fork a process that executes a run.

        Raises:
            NotWarm: The template is gone, or says that it has to be replaced.
        """
        return fork_by(self._control, request)

    def retire(self) -> None:
        """Let the process end, when its runs have ended."""
        self._control.close()
        # Somebody has to ask for its exit code. It may take as long as its longest run.
        threading.Thread(target=self._process.wait, name="warm-launcher-retired-template", daemon=True).start()


def _why_no_process(message: Mapping[str, Any] | None, run: ForkedRun) -> str:
    if message is None:
        return "the template died"
    return str(message.get("refused", f"its fork ended at once, {run.ending()}"))


class Templates:
    """The templates of a process, one for each location and environment.

    A location that can't have one is tried again when it was reloaded or its environment has changed, or after
    `retry_after` seconds.
    """

    def __init__(
        self, log: Callable[[str], None], max_runs: int, startup_timeout: float, retry_after: float = 600
    ) -> None:
        self._log = log
        self._max_runs = max_runs
        self._startup_timeout = startup_timeout
        self._retry_after = retry_after
        self._running: dict[str, tuple[Location, Template]] = {}
        self._failed: dict[str, tuple[Location, NotWarm, float]] = {}
        self._said: dict[str, str] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def fork(self, location: Location, request: Mapping[str, str]) -> ForkedRun:
        """Fork a process for a run, from a template that has the location's present code.

        Raises:
            NotWarm: There is no such template. The reason is in the log, once.
        """
        with self._lock_of(location):
            try:
                return self._fork(location, request)
            except NotWarm as reason:
                self._say_once(location, f"runs of {location.name} start in a fresh process: {reason}")
                raise

    def _fork(self, location: Location, request: Mapping[str, str]) -> ForkedRun:
        key = location.name
        if location.shared_template:
            try:
                run, pid = fork_at(location.shared_template, request)
            except NotWarm as refusal:
                self._say_once(location, f"a template for {key} alone: {refusal}")
            else:
                self._say_once(location, f"runs of {key} are forks of process {pid}, which its code server shares")
                if running := self._running.pop(key, None):
                    running[1].retire()
                return run
        if failure := self._failed.get(key):
            known, reason, at = failure
            if known == location and time.monotonic() - at < self._retry_after:
                raise reason
        if running := self._running.get(key):
            known, template = running
            if known == location:
                try:
                    return template.fork(request)
                except NotWarm as reason:
                    self._log(f"a new template for {key}: {reason}")
            del self._running[key]
            template.retire()
        try:
            template = Template(location, self._max_runs, self._startup_timeout)
        except NotWarm as reason:
            self._failed[key] = (location, reason, time.monotonic())
            raise
        self._failed.pop(key, None)
        try:
            run = template.fork(request)
        except NotWarm:
            # A file changed between its import and now, perhaps. The next run gets another template.
            template.retire()
            raise
        self._running[key] = (location, template)
        self._say_once(location, f"runs of {key} are forks of process {template.pid}")
        return run

    def pids(self) -> dict[str, int]:
        """Return the process of each location's template."""
        return {name: template.pid for name, (_, template) in self._running.items()}

    def close(self) -> None:
        """Let all templates end, each when its runs have ended."""
        with self._lock:
            while self._running:
                self._running.popitem()[1][1].retire()

    def _lock_of(self, location: Location) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(location.name, threading.Lock())

    def _say_once(self, location: Location, message: str) -> None:
        if self._said.get(location.name) != message:
            self._said[location.name] = message
            self._log(message)


class Watcher:
    """One thread that hears how forked runs end."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._added: list[tuple[ForkedRun, Callable[[ForkedRun], None]]] = []
        self._thread: threading.Thread | None = None

    def watch(self, run: ForkedRun, ended: Callable[[ForkedRun], None]) -> None:
        """Call `ended` when the run's process has ended, in a thread."""
        with self._lock:
            self._added.append((run, ended))
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="warm-launcher-watcher", daemon=True)
                self._thread.start()
        os.write(self._woken, b"+")

    def close(self) -> None:
        with self._lock:
            if self._thread:
                os.write(self._woken, b"x")

    def _listen(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    if b"x" in os.read(self._wake, 4096):
                        return
                    self._take_added()
                    continue
                run, ended = key.data
                message = run.next_message(None)
                if message is None or "exited" in message:
                    self._selector.unregister(run.connection)
                    run.connection.close()
                    ended(run)

    def _take_added(self) -> None:
        with self._lock:
            added, self._added = self._added, []
        for run, ended in added:
            self._selector.register(run.connection, selectors.EVENT_READ, (run, ended))
