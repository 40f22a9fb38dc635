"""What Linux says about processes: threads, descriptors, memory, and whether a process is still the same one."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import struct
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


# jemalloc stops its own threads in a fork, and does their work in the others. pyarrow and deltalake bring it.
HARMLESS_THREADS = {"jemalloc_bg_thd"}


def threads() -> int:
    """Return how many threads this process has, those of native libraries included, that a fork would miss."""
    return sum(_thread_name(thread) not in HARMLESS_THREADS for thread in os.listdir("/proc/self/task"))


def threads_after_a_fork() -> int:
    """Return how many threads are left after a fork. OpenBLAS, which numpy starts, ends its threads before each one."""
    if threads() > 1:
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return threads()


def _thread_name(thread: str) -> str:
    try:
        return Path(f"/proc/self/task/{thread}/comm").read_text().strip()
    except OSError:
        return ""  # it is just starting or ending


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM, shared pages included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def descriptors() -> dict[int, str]:
    """Return what the open file descriptors of this process refer to, such as `socket:[123]` or a path."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # it was the descriptor of this listing
    return found


def shares_state_when_forked(descriptor: int, target: str) -> bool:
    """Return whether processes that inherit this descriptor would disturb each other through it.

    A connection would carry the bytes of both. A file that is only read, or only appended to, is no danger.
    """
    if target.startswith("/dev/"):
        return False
    if not target.startswith("/"):
        return True
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    return flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND


def start_time(pid: int) -> str | None:
    """Return when a process started, in ticks since the machine's boot; `None` if it is gone or a zombie.

    A pid is used again; a pid together with its start time is not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields[19]


def machine() -> dict[str, str]:
    """Return what makes a pid unique: the host, its boot, and the pid namespace (each container has its own)."""
    return {
        "host": socket.gethostname(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pid_namespace": os.readlink("/proc/self/ns/pid"),
    }


def interrupt(pid: int, started: str, number: signal.Signals = signal.SIGINT) -> bool:
    """Send a signal to a process, if it is still the one that started at that time.

    Returns:
        Whether the process was there.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def listener(path: str) -> int | None:
    """Return the pid of the process that listens on a unix socket; `None` if no process of this machine does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        try:
            connection.connect(path)
        except OSError:
            return None
        pid, _uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid or None


def environment(pid: int) -> dict[str, str] | None:
    """Return the environment with which a process was started; `None` if it can't be read."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    pairs = (entry.split(b"=", 1) for entry in content.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, value in pairs}


def working_directory(pid: int) -> str | None:
    """Return the directory in which a process is; `None` if it can't be read."""
    try:
        return re.sub(r" \(deleted\)$", "", os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None
