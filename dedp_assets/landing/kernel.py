"""What the kernel tells of folders and files on this machine: changes of names and contents, and who has a file open.

Thin: `landing.renames` decides what follows. Only Linux tells, and only of a file system of its own does it know every
writer. Elsewhere nothing is followed, and every file has to settle.
"""

import fcntl
import os
import signal
import stat
import sys
from pathlib import Path

from dedp_assets import inotify
from dedp_assets.inotify import Event, Inotify
from dedp_assets.landing.versions import FileVersion

_OF_NAMES = inotify.MODIFIED | inotify.WRITER_CLOSED | inotify.MOVED_FROM | inotify.MOVED_TO
_OF_NAMES |= inotify.CREATED | inotify.DELETED
_FOLLOWED = _OF_NAMES | inotify.DIRECTORY_DELETED | inotify.DIRECTORY_MOVED

# File systems that no other machine writes to.
_LOCAL = {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs"}


class Kernel:
    """The kernel's notifications for this process, in the order in which things have happened.

    Nothing is opened before the first call. The kernel keeps what has happened until it is read; a queue that is full
    ends with EVENTS_LOST. So no thread has to wait for it.
    """

    def __init__(self) -> None:
        self._process = 0
        self._inotify: Inotify | None = None
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
            self._process, self._inotify = os.getpid(), _open()
        if self._process != os.getpid() or self._inotify is None:
            return None
        try:
            return self._inotify.add(folder, _FOLLOWED)
        except OSError:
            return None

    def unfollow(self, number: int) -> None:
        """Follow a folder no more. It may have gone already."""
        if self._inotify is not None:
            self._inotify.remove(number)

    def events(self) -> list[Event]:
        """What has happened since the last call. A fork gets nothing: the queue is that of its parent."""
        if self._process not in (0, os.getpid()):
            return [Event(-1, inotify.EVENTS_LOST, b"")]
        return self._inotify.read() if self._inotify is not None else []

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


def _open() -> Inotify | None:
    try:
        return Inotify() if sys.platform == "linux" else None
    except OSError:
        return None


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
