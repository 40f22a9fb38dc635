"""Which files were renamed into place, and are complete for that reason: they need not settle.

A writer that renames a file says that it is complete. A file's times do not show a rename: `cp -p`, `chmod` and a link
change the same ones, and in a quick rename they are equal. So the kernel has to have told us (`landing.kernel`), and
nothing may speak against it:

1. The last thing that has happened to the name is that a file was renamed to it, also after we have looked at the file.
2. Nobody has the file open for writing. A file may be renamed while somebody writes to it.
3. The file has no other name, by which somebody might write to it unseen.

If the kernel has told us nothing, or too much, or does not know all writers, then the file settles. That is the case
for a file that was renamed before we followed its folder, on another machine, from another file system (which is a
copy in place), or by another user. So this can make a tick only as slow as it was.
"""

import os
import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from dedp_assets import inotify
from dedp_assets.inotify import Event
from dedp_assets.landing import kernel
from dedp_assets.landing.versions import FileVersion

_FOLDER_IS_GONE = inotify.DIRECTORY_DELETED | inotify.DIRECTORY_MOVED | inotify.UNMOUNTED | inotify.UNWATCHED


class Kernel(Protocol):
    """See `landing.kernel.Kernel`."""

    def follow(self, folder: str) -> int | None: ...

    def unfollow(self, number: int) -> None: ...

    def events(self) -> list[Event]: ...

    def is_at_rest(self, folder: str, name: str, version: FileVersion) -> bool: ...


class Renames:
    """Follows folders, and tells which of their files are complete because they were renamed into place.

    Each tick scans the folders, calls `follow`, and asks `complete` about the new files. Keep one object for the life
    of the process. What it knows may be lost at any time.

    Args:
        following: The source of notifications.
    """

    def __init__(self, following: Kernel | None = None) -> None:
        self._kernel: Kernel = following or kernel.Kernel()
        self._numbers: dict[str, int] = {}
        # For each folder that is followed, the names of which the last event is a rename to that name.
        self._renamed: dict[int, set[bytes]] = {}
        # A tick that somebody starts from the UI runs beside that of the daemon, and must not read every other event.
        self._lock = threading.Lock()

    def follow(self, folders: Iterable[str]) -> None:
        """Follow these folders from now on, and no others. Of what has happened in a new one before, nothing is known.

        Args:
            folders: Paths of folders that answer: to follow one may wait for its file system.
        """
        with self._lock:
            self._read_events()
            wanted = set(folders)
            if self._numbers.keys() == wanted:
                return  # as in nearly every tick over thousands of folders
            self._forget({number for folder, number in self._numbers.items() if folder not in wanted})
            for folder in wanted - self._numbers.keys():
                self._number_of(folder)

    def complete(self, folder: str, files: Mapping[str, FileVersion]) -> set[str]:
        """Which files of a folder are complete.

        Args:
            folder: The path of a folder that is followed.
            files: Files by name, in the versions in which they were found.
        """
        with self._lock:
            self._read_events()
            renamed = self._renamed.get(self._numbers.get(folder, -1), set())
            found = {
                name
                for name, version in files.items()
                if version.size and os.fsencode(name) in renamed and self._kernel.is_at_rest(folder, name, version)
            }
            if not found:
                return found
            # The path may lead to another folder by now. Somebody may have written to the file and closed it again.
            number = self._number_of(folder)
            self._read_events()
            still = self._renamed.get(number, set()) if number is not None else set()
            return {name for name in found if os.fsencode(name) in still}

    def _number_of(self, folder: str) -> int | None:
        number, before = self._kernel.follow(folder), self._numbers.get(folder)
        if before is not None and number != before:
            self._forget({before})
        if number is not None:
            self._numbers[folder] = number
            self._renamed.setdefault(number, set())
        return number

    def _read_events(self) -> None:
        self._forget(note_events(self._kernel.events(), self._renamed))

    def _forget(self, numbers: Collection[int]) -> None:
        if not numbers:
            return
        for number in numbers:
            self._kernel.unfollow(number)
            self._renamed.pop(number, None)
        self._numbers = {folder: number for folder, number in self._numbers.items() if number not in numbers}


def note_events(events: Iterable[Event], renamed: dict[int, set[bytes]]) -> set[int]:
    """Note what has happened to the names in some folders.

    Args:
        events: What has happened, in order.
        renamed: For each folder that is followed, the names of which the last event is a rename to that name. Changed.

    Returns:
        The folders that no longer are at their place.
    """
    gone = set()
    for number, kind, name in events:
        if kind & inotify.EVENTS_LOST:
            for names in renamed.values():
                names.clear()
        elif kind & _FOLDER_IS_GONE:
            gone.add(number)
        elif kind & inotify.MOVED_TO:
            renamed.get(number, set()).add(name)
        else:
            renamed.get(number, set()).discard(name)
    return gone
