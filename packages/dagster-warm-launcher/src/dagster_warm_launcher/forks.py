"""For a supervisor: a zygote, and the processes that it forks. See `zygote.py`.

Only the standard library is imported here, so that a supervisor stays small.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dagster_warm_launcher._process import TITLE_ROOM

SHARED_IMPORTS = "dagster_warm_launcher.shared_imports"
_MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True)
class Ready:
    """The zygote has imported its modules.

    Attributes:
        threads: How many threads are left in a fork. With more than one, all processes start fresh.
    """

    threads: int


@dataclass(frozen=True)
class Forked:
    """A process runs."""

    number: int
    pid: int


@dataclass(frozen=True)
class Exited:
    """A process has ended. A negative code is the number of a signal."""

    number: int
    code: int


Event = Ready | Forked | Exited


class Zygote:
    """A Python interpreter that has imported some modules, and is forked for each process that needs them.

    When it ends, or this process does, all that it has forked ends, too.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str], directory: str, output: int) -> None:
        """Start it. Its first event is `Ready`.

        Args:
            modules: What it imports, as far as it is installed.
            environment: The environment variables of the zygote and of its forks.
            directory: Their working directory, from which they import, too.
            output: The descriptor of the file that their output goes to.
        """
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._output = output
        self._numbers = 0
        command = [sys.executable, "-m", "dagster_warm_launcher.zygote", "--control", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                [*command, "--room", " " * TITLE_ROOM, *(modules if sys.platform == "linux" else [])],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                cwd=directory,
                # A process group of its own, which it can end. It does not get the Ctrl-C of a terminal.
                start_new_session=True,
                preexec_fn=_react_to_interrupts,
            )
        self.pid = self._process.pid

    def fork(self, name: str, arguments: Sequence[str], fresh: bool = False) -> tuple[int, socket.socket]:
        """Start a process.

        Args:
            name: What `ps` shows.
            arguments: What `python` would be given: `-m`, a module, and its arguments.
            fresh: Replace the fork by a new interpreter, which shares nothing.

        Returns:
            The number of the process in events, and a connection on which it may say how it goes.

        Raises:
            OSError: The zygote is gone.
        """
        self._numbers += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        is_fresh = fresh or sys.platform != "linux"
        request = {"fork": self._numbers, "name": name, "arguments": list(arguments), "fresh": is_fresh}
        try:
            with theirs:
                socket.send_fds(self.control, [json.dumps(request).encode()], [self._output, theirs.fileno()])
        except OSError:
            ours.close()
            raise
        return self._numbers, ours

    def signal(self, number: int, sent: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to a process, if it still runs."""
        with suppress(OSError):
            self.control.send(json.dumps({"signal": sent, "to": number}).encode())

    def event(self) -> Event | None:
        """Wait for the next event. Returns `None` when the zygote is gone."""
        try:
            received = self.control.recv(_MESSAGE_BYTES)
        except OSError:
            received = b""
        if not received:
            return None
        message: dict[str, Any] = json.loads(received)
        if "exited" in message:
            return Exited(message["exited"], message["code"])
        return Forked(message["forked"], message["pid"]) if "forked" in message else Ready(message["threads"])

    def close(self, seconds: float) -> None:
        """End it, and all that it has forked. What does not end by then is killed.

        Args:
            seconds: How long they may take.
        """
        self.control.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _react_to_interrupts() -> None:
    # A background job of a shell ignores SIGINT, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
