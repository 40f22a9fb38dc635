"""The notifications of the operating system for many directories: one inotify instance, with watchdog's binding.

watchdog's own observers take two threads and an instance for each directory, of which a user has 128, and pass over the
message that the queue has overflowed.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from watchdog.observers.inotify_c import InotifyConstants as Flags
from watchdog.observers.inotify_c import inotify_add_watch, inotify_init, inotify_rm_watch

_HEADER = struct.Struct("iIII")

# A rename or a link, the end of writing, the beginning, more of it; and what becomes of the directory itself.
_MASK = (
    *(Flags.IN_MOVED_TO, Flags.IN_CREATE, Flags.IN_CLOSE_WRITE, Flags.IN_MODIFY, Flags.IN_ATTRIB),
    *(Flags.IN_DELETE_SELF, Flags.IN_MOVE_SELF, Flags.IN_ONLYDIR),
)


class Event(NamedTuple):
    """A notification.

    Attributes:
        watch: the number of the watch; -1 if the queue has overflowed.
        flags: what has happened, as bits.
        name: of the file in the directory; "" for the directory itself.
    """

    watch: int
    flags: int
    name: str

    def has(self, *flags: int) -> bool:
        return any(self.flags & flag for flag in flags)


class Inotify:
    """One instance. Its methods raise OSError: ENOSPC and EMFILE mean that a limit of the kernel is reached."""

    def __init__(self) -> None:
        self._descriptor = int(inotify_init())
        if self._descriptor < 0:
            raise _error("inotify")
        os.set_blocking(self._descriptor, False)
        os.set_inheritable(self._descriptor, False)

    def fileno(self) -> int:
        return self._descriptor

    def add(self, directory: str) -> int:
        """Watch a directory; returns the number of the watch, which is the same for the same directory."""
        mask = 0
        for flag in _MASK:
            mask |= flag
        number = int(inotify_add_watch(self._descriptor, os.fsencode(directory), mask))
        if number < 0:
            raise _error(directory)
        return number

    def remove(self, number: int) -> None:
        """Watch it no more. It may be gone already."""
        inotify_rm_watch(self._descriptor, number)

    def read(self) -> list[Event]:
        """All notifications that are there."""
        events: list[Event] = []
        while True:
            try:
                events += parsed(os.read(self._descriptor, 1 << 16))
            except BlockingIOError:
                return events

    def close(self) -> None:
        os.close(self._descriptor)


def parsed(buffer: bytes) -> Iterator[Event]:
    """The notifications in what the kernel gives: for each a header, and a name that is filled up with zeros."""
    at = 0
    while at + _HEADER.size <= len(buffer):
        watch, flags, _, length = _HEADER.unpack_from(buffer, at)
        at += _HEADER.size
        name = buffer[at : at + length].rstrip(b"\0")
        at += length
        yield Event(watch, flags, os.fsdecode(name))


def _error(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)
