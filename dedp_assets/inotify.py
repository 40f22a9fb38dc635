"""The kernel's notifications of many directories: one inotify instance, with watchdog's binding.

Other systems than Linux have none: `Inotify()` fails there.

watchdog's own observers take two threads and an instance for each directory, of which a user has 128, and pass over the
message that the queue has overflowed.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

if sys.platform == "linux":
    from watchdog.observers.inotify_c import inotify_add_watch, inotify_init, inotify_rm_watch

# As in the header sys/inotify.h. watchdog has them, too, but can be imported on Linux alone.
MODIFIED, ATTRIBUTES_CHANGED, WRITER_CLOSED = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATED, DELETED = 0x40, 0x80, 0x100, 0x200
# What becomes of the watched directory itself.
DIRECTORY_DELETED, DIRECTORY_MOVED, UNMOUNTED, UNWATCHED = 0x400, 0x800, 0x2000, 0x8000
# The queue was full, and the kernel has told no more.
EVENTS_LOST = 0x4000
# What has happened has happened to a directory in the watched one.
OF_DIRECTORY = 0x40000000
_ONLY_DIRECTORIES = 0x1000000

_HEADER = struct.Struct("iIII")
_READ_BYTES = 1 << 18


class Event(NamedTuple):
    """A notification.

    Attributes:
        watch: the number of the watched directory; -1 for EVENTS_LOST.
        kind: one of the constants above, perhaps with other bits.
        name: the name in the directory; empty for the directory itself.
    """

    watch: int
    kind: int
    name: bytes


class Inotify:
    """One instance. Its methods raise OSError: ENOSPC and EMFILE mean that a limit of the kernel is reached.

    The kernel keeps what has happened until it is read, so no thread has to wait for it.
    """

    def __init__(self) -> None:
        self._descriptor = int(inotify_init())
        if self._descriptor < 0:
            raise _error("inotify")
        os.set_blocking(self._descriptor, False)
        os.set_inheritable(self._descriptor, False)

    def fileno(self) -> int:
        return self._descriptor

    def add(self, directory: str, kinds: int) -> int:
        """Watch a directory.

        Returns:
            The number of the watch: the same one as long as the path is the same directory.
        """
        number = int(inotify_add_watch(self._descriptor, os.fsencode(directory), kinds | _ONLY_DIRECTORIES))
        if number < 0:
            raise _error(directory)
        return number

    def remove(self, number: int) -> None:
        """Watch it no more. It may be gone already."""
        inotify_rm_watch(self._descriptor, number)

    def read(self) -> list[Event]:
        """All notifications that are there, in the order in which things have happened."""
        events: list[Event] = []
        while True:
            try:
                events += _parsed(os.read(self._descriptor, _READ_BYTES))
            except BlockingIOError:
                return events

    def close(self) -> None:
        os.close(self._descriptor)


def _parsed(buffer: bytes) -> Iterator[Event]:
    """The notifications in what the kernel gives: for each a header, and a name that is filled up with zeros."""
    at = 0
    while at < len(buffer):
        watch, kind, _, length = _HEADER.unpack_from(buffer, at)
        at += _HEADER.size + length
        yield Event(watch, kind, buffer[at - length : at].rstrip(b"\0"))


def _error(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)
