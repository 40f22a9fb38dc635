"""Which landed file a day should be taken in from, by what its copy reflects: a level, whatever events were missed.

A day's own file is wanted whenever the copy does not have its content. The undated file is wanted

- by a day for which nothing has been taken in;
- by a day that took it while it was shorter: the same file, of which more has been written since;
- by a day that took it in an earlier version which could not be loaded.

Never by a day that has, or had, a file of its own, nor by one that took an earlier version and loaded it.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from dedp_assets.landing.copies import Copied, is_refused, lock_of, read_copied, write_copied
from dedp_assets.landing.dated import UNDATED, DatedFolder, is_dated
from dedp_assets.landing.versions import FileVersion, begins_with, sha256_of

# So much of landed files one look may read, to see whether their content is new; beyond, a run finds that out. A tick
# may take 60 s, and one that is cut off would begin anew.
MAX_READ_BYTES = 1 << 30


class Copies(Protocol):
    """What is known of the days' copies."""

    def copied(self, day: str) -> Copied | None:
        """What the day's copy reflects; None if there is none, or if it does not say."""

    def exists(self, day: str) -> bool:
        """Whether the day has a copy, whether or not it says where it came from."""

    def is_refused(self, day: str) -> bool:
        """Whether the day's copy could not be loaded."""

    def has_content_of(self, day: str, landed: str, version: FileVersion) -> bool:
        """Whether the copy has the content that the landed file (a day, or UNDATED) has in this version."""

    def is_beginning_of(self, day: str, version: FileVersion) -> bool:
        """Whether the copy is of the undated file, of which this version is a longer one, written on since."""


def wanted(
    days: Collection[str],
    files: Mapping[str, FileVersion],
    copies: Copies,
    *,
    unusable: Collection[str],
    undated_days: Collection[str],
    taken_in: Collection[str],
) -> dict[str, str]:
    """Which of the days want which file: day -> that day, or UNDATED.

    files: the landed files that are complete. unusable: days that have a file of their own, complete or not, which must
    not take the undated one. undated_days: those that may. taken_in: days that Dagster has a materialization of.
    """
    found = {}
    for day in days:
        if day in files:
            if not copies.has_content_of(day, day, files[day]):
                found[day] = day
        elif day in undated_days and day not in unusable and UNDATED in files:
            found |= {day: UNDATED} if _wants_undated(day, files[UNDATED], copies, day in taken_in) else {}
    return found


def _wants_undated(day: str, undated: FileVersion, copies: Copies, is_taken_in: bool) -> bool:
    copied = copies.copied(day)
    if copied is None:
        # A copy that does not say where it came from was made before copies did: nobody knows better than it.
        return not is_taken_in and not copies.exists(day)
    if is_dated(copied.source, day) or copied.version == undated:
        return False
    if copies.is_refused(day):
        return not copies.has_content_of(day, UNDATED, undated)
    return copies.is_beginning_of(day, undated)


def may_only_grow(day: str, copies: Copies) -> Copied | None:
    """The day's copy, if it is one that only a longer version of the same undated file may replace; else None."""
    copied = copies.copied(day)
    if copied is None or is_dated(copied.source, day) or copies.is_refused(day):
        return None
    return copied


class StoredCopies:
    """The copies in internal storage, held against the files in the landing folder, for one look.

    copy_of: where a day's copy is.
    """

    def __init__(self, landing: DatedFolder, copy_of: Callable[[str], Path]) -> None:
        self._landing, self._copy_of = landing, copy_of
        self._may_read = MAX_READ_BYTES
        self._begins: dict[tuple[int, str], bool] = {}

    def copied(self, day: str) -> Copied | None:
        return read_copied(self._copy_of(day))

    def exists(self, day: str) -> bool:
        return _size(self._copy_of(day)) is not None

    def is_refused(self, day: str) -> bool:
        return is_refused(self._copy_of(day))

    def has_content_of(self, day: str, landed: str, version: FileVersion) -> bool:
        """Also records that the copy reflects this version, so that the file is read once and not at every look."""
        copied, copy = self.copied(day), self._copy_of(day)
        if copied is not None and copied.version == version:
            return True
        if _size(copy) != version.size or version.size > self._may_read:
            return False
        self._may_read -= version.size
        path = self._landing.file_of(landed)
        sha256 = copied.sha256 if copied else sha256_of(copy)
        if sha256 is None or sha256_of(path) != sha256:
            return False
        # Not where a run is just replacing the copy: that will record what it reflects.
        with suppress(BlockingIOError), lock_of(copy.parent, waits=False):
            if self.copied(day) == copied:
                write_copied(copy, Copied(str(path), version, sha256))
        return True

    def is_beginning_of(self, day: str, version: FileVersion) -> bool:
        copied = self.copied(day)
        if copied is None or copied.version.inode != version.inode or copied.version.size >= version.size:
            return False
        # Many days took the same file, which is read once for all of them.
        beginning = copied.version.size, copied.sha256
        if beginning not in self._begins:
            self._begins[beginning] = begins_with(self._landing.file_of(UNDATED), *beginning)
        return self._begins[beginning]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
