"""The lock of a home: one system runs on it at a time, and others can find its process and stop it."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from dedp_assets import settings
from dedp_assets.local_stack.errors import StackError

# How long a system that has just been started may take to write its process id.
_RECORD_SECONDS = 5
# How long it may take to stop: longer than all that it waits for itself before it kills, on a busy machine.
_STOP_SECONDS = 300


def running_pid() -> int | None:
    """Return the id of the process that runs this home's system, or None if no system runs.

    Raises:
        StackError: a process holds the lock of a system, but its record does not name that process.
    """
    record = settings.home() / "up.pid"
    give_up = time.monotonic() + _RECORD_SECONDS
    while time.monotonic() < give_up:
        try:
            with open(record, errors="replace") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return None
                except BlockingIOError:
                    text = lock.read().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        # While a system starts, its record is empty or has the id of an earlier process. A process may also end now.
        if text.isdecimal() and _has_open(int(text), record):
            return int(text)
        time.sleep(0.05)
    raise StackError(
        f"a process has locked {record}, but the file does not contain its id. "
        f"Find the process with `fuser {record}`, and stop it"
    )


def _has_open(pid: int, file: Path) -> bool:
    try:
        return str(file.resolve()) in {opened.path for opened in psutil.Process(pid).open_files()}
    except psutil.AccessDenied:
        return True  # it belongs to another user: trust the record
    except (psutil.NoSuchProcess, OverflowError):
        return False


def stop_running(pid: int) -> None:
    """Ask the process of the system to stop everything, and wait for it. Raises StackError if it does not."""
    with suppress(ProcessLookupError):  # it has just ended
        try:
            os.kill(pid, signal.SIGTERM)
        except PermissionError:
            raise StackError(
                f"process {pid}, which runs the system of {settings.home()}, belongs to another user; "
                "ask that user to stop it"
            ) from None
    give_up = time.monotonic() + _STOP_SECONDS
    while _is_locked(settings.home() / "up.pid"):
        if time.monotonic() > give_up:
            raise StackError(f"process {pid} is still running after {_STOP_SECONDS} s; see {settings.home()}/logs")
        time.sleep(0.1)


def _is_locked(record: Path) -> bool:
    with suppress(FileNotFoundError), open(record) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def lock_of_system(home: Path) -> Iterator[None]:
    """Hold the lock of this home's system, with our process id in it. The kernel releases it if we are killed."""
    with open(home / "up.pid", "a+") as record:
        try:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"the system of {home} is running already (process {running_pid()}). "
                f"Stop it with `{settings.to_run('down')}`"
            ) from None
        record.truncate(0)
        record.write(str(os.getpid()))
        record.flush()
        try:
            yield
        finally:
            record.truncate(0)
