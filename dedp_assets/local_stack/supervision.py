"""Starts the processes of a system, starts again what dies, and replaces code servers for new code.

All of it happens in one thread. The processes are forks of a zygote (`dagster_warm_launcher.forks`). If that one dies,
all of them die with it, except the runs.
"""

import json
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from dagster_warm_launcher.forks import Exited, Forked, Ready, Zygote

from dedp_assets.local_stack.processes import IMPORTS, Command

_LONGEST_PAUSE = 60.0
# A process that has run for so long was all right: its next death is its first one.
_HEALTHY_SECONDS = 120.0
_STOP_SECONDS = 30.0
_MESSAGE_BYTES = 1 << 16


def pause_seconds(deaths: int) -> float:
    """Return how long to wait before a process is started that has died so often in a row: 0.5 s, 1 s, 2 s ... 60 s."""
    return float(min(_LONGEST_PAUSE, 0.5 * 2 ** min(deaths - 1, 10)))


def ending(code: int) -> str:
    """Return how a process has ended, in words."""
    if code >= 0:
        return f"with exit code {code}"
    return f"killed by signal {-code} ({signal.Signals(-code).name})"


@dataclass
class _Process:
    """A process, or one that has to be started.

    Attributes:
        since: when it was started.
        deaths: how often it has died in a row.
        due: when it has to be started; None if it runs.
        number: its number at the zygote; None if it does not run.
        served: whether it has said once that it serves, or has died in trying to.
        said: connections on which it, and processes that it replaces, say how they go.
    """

    command: Command
    since: float = 0.0
    deaths: int = 0
    due: float | None = 0.0
    number: int | None = None
    pid: int | None = None
    served: bool = False
    said: list[socket.socket] = field(default_factory=list)


class Supervision:
    """The running processes of a system."""

    def __init__(
        self,
        commands: Sequence[Command],
        environment: Mapping[str, str],
        folder: str,
        log: int,
        say: Callable[[str], None],
    ) -> None:
        """Start them: the code servers, and then those who ask them.

        Args:
            commands: what to start.
            environment: the environment variables of all.
            folder: the working directory of all.
            log: the descriptor of the file with their output.
            say: is told, in a thread, what dies and what is started again.
        """
        self._processes = {command.name: _Process(command) for command in commands}
        self._environment, self._folder, self._log, self._say = environment, folder, log, say
        self._zygote: Zygote | None = None
        self._is_ready = False
        self._zygote_deaths = 0
        self._zygote_due: float | None = 0.0
        self._zygote_since = 0.0
        self._stopping = threading.Event()
        self._wake, self._woken = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="supervision", daemon=True)
        self._thread.start()

    def pids(self) -> dict[str, int]:
        """Return the ids of the processes that run, by name."""
        return {name: process.pid for name, process in self._processes.items() if process.pid}

    def deaths(self) -> dict[str, int]:
        """Return how often each process has died in a row. Those that have not died are left out."""
        found = {name: process.deaths for name, process in self._processes.items() if process.deaths}
        return {**found, **({"zygote": self._zygote_deaths} if self._zygote_deaths else {})}

    def stop(self) -> None:
        """Stop all, runs too, and wait for it."""
        self._stopping.set()
        os.write(self._woken, b"x")
        self._thread.join()
        os.close(self._wake)
        os.close(self._woken)
        self._selector.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._start_what_is_due()
            for key, _ in self._selector.select(self._seconds_until_due()):
                if key.data is not None:
                    key.data()
        self._stop_all()

    def _start_what_is_due(self) -> None:
        now = time.monotonic()
        if self._zygote is None and self._zygote_due is not None and now >= self._zygote_due:
            self._zygote_due = None
            self._zygote_since = now
            self._zygote = Zygote(IMPORTS, self._environment, self._folder, self._log)
            self._selector.register(self._zygote.control, selectors.EVENT_READ, self._hear_zygote)
        if self._zygote is None or not self._is_ready:
            return
        for process in self._processes.values():
            if process.due is not None and now >= process.due and self._may_start(process.command):
                self._start(process)

    def _may_start(self, command: Command) -> bool:
        """Whether those have ended, or serve, that the process has to wait for."""
        before = [
            process.served
            for process in self._processes.values()
            if not command.is_first
            and (process.command.is_first or (process.command.location and not command.location))
        ]
        return all(before)

    def _seconds_until_due(self) -> float | None:
        waiting = [
            process.due
            for process in self._processes.values()
            if process.due is not None and self._is_ready and self._may_start(process.command)
        ]
        waiting += [self._zygote_due] if self._zygote_due is not None else []
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _start(self, process: _Process) -> None:
        assert self._zygote
        try:
            process.number, said = self._zygote.fork(f"dagster {process.command.name}", process.command.arguments)
        except OSError:
            return  # its end is the next that we hear
        process.due, process.since, process.pid = None, time.monotonic(), None
        process.said.append(said)
        self._selector.register(said, selectors.EVENT_READ, lambda: self._hear(process, said))

    def _hear_zygote(self) -> None:
        assert self._zygote
        event = self._zygote.event()
        if isinstance(event, Ready):
            self._is_ready = True
        elif isinstance(event, Forked):
            for process in self._processes.values():
                if process.number == event.number:
                    process.pid = event.pid
        elif isinstance(event, Exited):
            for process in self._processes.values():
                if process.number != event.number:
                    continue  # it was replaced
                if process.command.is_first and event.code == 0:
                    process.number, process.pid, process.served = None, None, True
                else:
                    self._has_died(process, ending(event.code))
        else:
            self._zygote_has_died()

    def _hear(self, process: _Process, said: socket.socket) -> None:
        received = b""
        with suppress(OSError):
            received = said.recv(_MESSAGE_BYTES)
        if not received:
            self._selector.unregister(said)
            process.said.remove(said)
            said.close()
            return
        message = json.loads(received)
        if "serves" in message:
            process.served = True
        elif "replace" in message and said is process.said[-1]:
            self._tell(f"The {process.command.name} is replaced: {message['replace']}.")
            self._start(process)

    def _has_died(self, process: _Process, how: str) -> None:
        now = time.monotonic()
        process.deaths = 1 if now - process.since > _HEALTHY_SECONDS else process.deaths + 1
        process.number = process.pid = None
        process.served = not process.command.is_first  # the others need not wait for it
        process.due = now + pause_seconds(process.deaths)
        self._tell(
            f"The {process.command.name} has ended, {how}. It starts again in {pause_seconds(process.deaths):g} s."
        )

    def _zygote_has_died(self) -> None:
        assert self._zygote
        self._selector.unregister(self._zygote.control)
        self._zygote.close(_STOP_SECONDS)
        self._zygote, self._is_ready = None, False
        now = time.monotonic()
        self._zygote_deaths = 1 if now - self._zygote_since > _HEALTHY_SECONDS else self._zygote_deaths + 1
        self._zygote_due = now + pause_seconds(self._zygote_deaths)
        self._tell(
            "The process that all others are forks of has ended, and the others with it. All start again in "
            f"{pause_seconds(self._zygote_deaths):g} s. Runs go on."
        )
        for process in self._processes.values():
            done = process.command.is_first and process.served
            process.due, process.number, process.pid, process.served = None if done else now, None, None, done

    def _stop_all(self) -> None:
        if self._zygote is None:
            return
        # First those who start runs, and report those as failed whose code server is gone.
        asking = [process for process in self._processes.values() if not process.command.location and process.number]
        for process in asking:
            self._zygote.signal(process.number or 0)
        numbers = {process.number for process in asking}
        give_up = time.monotonic() + _STOP_SECONDS
        while numbers and (left := give_up - time.monotonic()) > 0:
            self._zygote.control.settimeout(left)
            event = self._zygote.event()
            if event is None:
                break
            numbers.discard(event.number if isinstance(event, Exited) else None)
        self._zygote.close(_STOP_SECONDS)

    def _tell(self, what: str) -> None:
        with suppress(OSError):
            os.write(self._log, f"{what}\n".encode())
        self._say(what)
