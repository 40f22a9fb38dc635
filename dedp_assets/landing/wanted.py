"""Chooses which landed file a day's copy should come from. It compares states, so missed events do not matter.

A day with a file of its own takes that file whenever the copy does not have the file's content. The undated file is
taken by a day

- that has no copy yet;
- that took the same file while it was shorter, and more has been written to it since;
- that took an earlier version of it which could not be loaded.

The undated file is never taken by a day that has, or had, a file of its own, nor by a day that has loaded an earlier
version of the undated file.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from dedp_assets.landing.copies import CopyRecord, StorageFailed, is_refused, lock_of, read_record, write_record
from dedp_assets.landing.dated import UNDATED, DatedFolder, is_dated
from dedp_assets.landing.versions import FileVersion, begins_with, sha256_of

# How much of the landed files one tick may read to find out whether their content is new. A run finds it out for the
# rest. A tick may take 60 s, and one that is cut off would begin anew.
MAX_READ_BYTES = 1 << 30


class Copies(Protocol):
    """What is known of the copies of the days."""

    def record_of(self, day: str) -> CopyRecord | None:
        """Where the day's copy comes from; None if there is no copy, or it has no record."""

    def exists(self, day: str) -> bool:
        """Whether the day has a copy, with or without a record."""

    def is_refused(self, day: str) -> bool:
        """Whether the day's copy could not be loaded."""

    def has_content_of(self, day: str, landed: str, version: FileVersion) -> bool:
        """Whether the copy has the content of this version of a landed file. `landed` is a day, or UNDATED."""

    def is_beginning_of(self, day: str, version: FileVersion) -> bool:
        """Whether the undated file is the one that was copied, and in this version has got longer since."""


def choose_sources(
    days: Collection[str],
    files: Mapping[str, FileVersion],
    copies: Copies,
    *,
    unusable: Collection[str],
    undated_days: Collection[str],
    taken_in: Collection[str],
) -> dict[str, str]:
    """Choose the landed file of each day that needs another copy.

    Args:
        days: The days to decide about.
        files: The complete landed files with their versions, by day; UNDATED for the undated file.
        copies: The present copies.
        unusable: Days that have a file of their own, complete or not. They must not take the undated file.
        undated_days: Days that may take the undated file.
        taken_in: Days that Dagster has a materialization of.

    Returns:
        The days that need another copy, each with its file: that day, or UNDATED.
    """
    sources = {}
    for day in days:
        if day in files:
            if not copies.has_content_of(day, day, files[day]):
                sources[day] = day
        else:
            may_take_undated = day in undated_days and day not in unusable and UNDATED in files
            if may_take_undated and _needs_undated(day, files[UNDATED], copies, day in taken_in):
                sources[day] = UNDATED
    return sources


def _needs_undated(day: str, undated: FileVersion, copies: Copies, is_taken_in: bool) -> bool:
    record = copies.record_of(day)
    if record is None:
        # A copy without a record is older than such records. Nobody knows its source, so it stays.
        return not is_taken_in and not copies.exists(day)
    if is_dated(record.source, day) or record.version == undated:
        return False
    if copies.is_refused(day):
        return not copies.has_content_of(day, UNDATED, undated)
    return copies.is_beginning_of(day, undated)


def required_beginning(day: str, copies: Copies) -> CopyRecord | None:
    """The copy that a new version of the undated file must begin with; None if the day may take any content.

    A day that took the undated file and loaded it takes no other file of that name. It only takes what has been
    written to the same file since.
    """
    record = copies.record_of(day)
    if record is None or is_dated(record.source, day) or copies.is_refused(day):
        return None
    return record


class StoredCopies:
    """The copies in internal storage, compared with the files in the landing folder. Made anew for each tick or run.

    Args:
        landing: The landing folder.
        copy_of: Gives the path of a day's copy.
    """

    def __init__(self, landing: DatedFolder, copy_of: Callable[[str], Path]) -> None:
        self._landing, self._copy_of = landing, copy_of
        self._may_read = MAX_READ_BYTES
        self._begins: dict[tuple[int, str], bool] = {}

    def record_of(self, day: str) -> CopyRecord | None:
        return read_record(self._copy_of(day))

    def exists(self, day: str) -> bool:
        return _size(self._copy_of(day)) is not None

    def is_refused(self, day: str) -> bool:
        return is_refused(self._copy_of(day))

    def has_content_of(self, day: str, landed: str, version: FileVersion) -> bool:
        """As in `Copies`. If the content is the same, the version is recorded, so that the file is read only once."""
        record, copy = self.record_of(day), self._copy_of(day)
        if record is not None and record.version == version:
            return True
        if _size(copy) != version.size or version.size > self._may_read:
            return False
        self._may_read -= version.size
        path = self._landing.file_of(landed)
        sha256 = record.sha256 if record else sha256_of(copy)
        if sha256 is None or sha256_of(path) != sha256:
            return False
        # If a run holds the lock, it is replacing the copy and will write the record. If the record can't be written,
        # the next tick reads the file again.
        with suppress(BlockingIOError, StorageFailed), lock_of(copy.parent, waits=False):
            if self.record_of(day) == record:
                write_record(copy, CopyRecord(str(path), version, sha256))
        return True

    def is_beginning_of(self, day: str, version: FileVersion) -> bool:
        record = self.record_of(day)
        if record is None or record.version.inode != version.inode or record.version.size >= version.size:
            return False
        # Many days may have taken the same file. It is read once for all of them.
        beginning = record.version.size, record.sha256
        if beginning not in self._begins:
            self._begins[beginning] = begins_with(self._landing.file_of(UNDATED), *beginning)
        return self._begins[beginning]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
