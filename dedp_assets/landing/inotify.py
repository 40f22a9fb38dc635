"""What the kernel tells of folders and files on this machine: changes of names and contents, and who has a file open.

Thin: `landing.renames` decides what follows. Only Linux has these calls, and only on a file system of its own do they
know of every writer. Elsewhere nothing is followed, and every file has to settle.
"""

import fcntl
import os
import signal
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dedp_assets.landing.versions import FileVersion

MODIFIED, WRITER_CLOSED, MOVED_FROM, MOVED_TO = 0x2, 0x8, 0x40, 0x80
CREATED, DELETED, FOLDER_DELETED, FOLDER_MOVED = 0x100, 0x200, 0x400, 0x800
UNMOUNTED, EVENTS_LOST, UNFOLLOWED = 0x2000, 0x4000, 0x8000
_OF_NAMES = MODIFIED | WRITER_CLOSED | MOVED_FROM | MOVED_TO | CREATED | DELETED
_FOLLOWED = _OF_NAMES | FOLDER_DELETED | FOLDER_MOVED
_ONLY_FOLDERS = 0x1000000

# File systems that no other machine writes to.
_LOCAL = {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs"}

_EVENT = struct.Struct("iIII")
_READ_BYTES = 1 << 18


class Event(NamedTuple):
    """Something that has happened in a followed folder.

    Attributes:
        folder: The number of the folder; -1 for EVENTS_LOST.
        kind: One of the constants above, perhaps with other bits.
        name: The name in the folder; empty if it has happened to the folder itself.
    """

    folder: int
    kind: int
    name: bytes


class Kernel:
    """The kernel's notifications for this process, in the order in which things have happened.

    Nothing is opened before the first call. The kernel keeps what has happened until it is read; a queue that is full
    ends with EVENTS_LOST. So no thread has to wait for it.
    """

    def __init__(self) -> None:
        self._process, self._queue = 0, -1
        self._is_local: dict[int, bool] = {}
        self._refused: set[str] = set()

    def follow(self, folder: str) -> int | None:
        """Follow a folder from now on.

        Returns:
            The number of the folder that has this path now: the same one as long as it is the same folder. None if it
            can't be followed, or if other machines may write to it.
        """
        if folder in self._refused or not self._is_on_this_machine(folder):
            return None
        if self._process == 0:
            self._process, self._queue = os.getpid(), _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        if self._process != os.getpid() or self._queue < 0:
            return None
        number = _call("inotify_add_watch", self._queue, os.fsencode(folder), _FOLLOWED | _ONLY_FOLDERS)
        return number if number >= 0 else None

    def unfollow(self, number: int) -> None:
        """Follow a folder no more. It may have gone already."""
        _call("inotify_rm_watch", self._queue, number)

    def events(self) -> list[Event]:
        """What has happened since the last call. A fork gets nothing: the queue is that of its parent."""
        if self._process not in (0, os.getpid()):
            return [Event(-1, EVENTS_LOST, b"")]
        found: list[Event] = []
        while self._queue >= 0:
            try:
                found += _parsed(os.read(self._queue, _READ_BYTES))
            except BlockingIOError:
                break
        return found

    def is_at_rest(self, folder: str, name: str, version: FileVersion) -> bool:
        """Whether a file is in this version, and nobody can be writing to it: no process has it open for writing.

        The kernel grants a lease for reading only then. It grants none on a file of another user, except to a process
        with CAP_LEASE. The file must have no other name, because events come only for the name that a writer uses.

        Returns:
            False also if we can't find out.
        """
        try:
            opened = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or FileVersion.of(status) != version:
                return False
            # Who opens the file for writing while we have the lease waits for us, and the kernel sends us a signal. It
            # must be one that is ignored: SIGIO would end the process.
            fcntl.fcntl(opened, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            return True
        except OSError:
            return False
        finally:
            os.close(opened)

    def _is_on_this_machine(self, folder: str) -> bool:
        try:
            device = os.stat(folder).st_dev
            if device not in self._is_local:
                self._is_local[device] = _file_system_of(folder) in _LOCAL
        except OSError:
            return False  # perhaps it comes back
        if not self._is_local[device]:
            self._refused.add(folder)
        return self._is_local[device]


def _call(name: str, *arguments: Any) -> int:
    """Call a function of the C library. Returns -1 if it fails, or if this system has no such function."""
    import ctypes  # only a sensor follows folders, and others need not load it

    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return int(function(*arguments)) if function else -1


def _parsed(read: bytes) -> Iterator[Event]:
    at = 0
    while at < len(read):
        folder, kind, _, length = _EVENT.unpack_from(read, at)
        at += _EVENT.size + length
        yield Event(folder, kind, read[at - length : at].rstrip(b"\0"))


def _file_system_of(folder: str) -> str:
    """The type of the file system that a folder is on, or "". Its device number alone does not tell, with btrfs."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        about = Path(f"/proc/self/fdinfo/{opened}").read_text()
    finally:
        os.close(opened)
    mount = next((line.split()[1] for line in about.splitlines() if line.startswith("mnt_id:")), "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[0] == mount:
            return fields[fields.index("-") + 1]
    return ""
