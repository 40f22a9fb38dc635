"""Copies a landed file into internal storage, where nobody ever sees half of it.

The source may be replaced or written to at any moment. The copier opens one file and copies it only if it stays
unchanged from the settle time before the copy until after the copy. A file that takes the same name meanwhile is
another version, and is copied in its turn. `landing.versions` says when a version is complete.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dedp_assets.errors import PermanentError, TransientError
from dedp_assets.landing.copies import CopyRecord, lock_of, named_storage_errors, replacing
from dedp_assets.landing.links import LEADS_OUT, leads_out, place_of
from dedp_assets.landing.versions import FileVersion, stream_begins_with

_CHUNK_BYTES = 1 << 20


class NotCopied(PermanentError):
    """The file can't be copied until somebody acts. The message names it, what was found, and what was expected."""


class StillBeingWritten(TransientError):
    """The file was still changing when the time allowed for the copy was over."""


class AnotherFile(PermanentError):
    """The file does not begin with the content that was copied before: somebody has replaced it."""


@dataclass(frozen=True)
class CopiedFile:
    """One complete version of a file, as it was copied.

    `source` is its path, or the URI of an object. `line_count` includes the header.
    """

    source: Path | str
    version: FileVersion
    size_bytes: int
    line_count: int
    sha256: str


class SeenSince:
    """When this process first saw each file in its present version. With it, many files settle at the same time.

    Args:
        complete: Versions that the sensor which requested the run has seen unchanged for the settle time, by path.
    """

    def __init__(self, complete: dict[Path, FileVersion] | None = None) -> None:
        self._complete = complete or {}
        self._since: dict[Path, tuple[FileVersion, float]] = {}

    def unchanged_since(self, path: Path, version: FileVersion | None = None) -> float:
        """Note the version of a file, and tell since when it has been unchanged.

        Args:
            path: The file.
            version: Its present version, if the caller knows it.

        Returns:
            A time of `time.monotonic`; minus infinity for a version that is known to be complete.
        """
        if version is None:
            try:
                version = FileVersion.of(path.stat())
            except OSError:
                return time.monotonic()
        if self._complete.get(path) == version:
            return float("-inf")
        known = self._since.get(path)
        if known is None or known[0] != version:
            known = self._since[path] = version, time.monotonic()
        return known[1]


def copy_when_settled(
    source: Path,
    destination: Path,
    *,
    settle_seconds: float,
    patience: float = 60,
    seen: SeenSince | None = None,
    beginning: CopyRecord | None = None,
    root: Path | None = None,
) -> CopiedFile:
    """Copy one complete version of a file. The destination is replaced as a whole or not at all.

    The record beside the destination (`landing.copies`) is replaced together with it.

    Args:
        source: The landed file.
        destination: The path of the copy.
        settle_seconds: How long the file must be unchanged before it counts as complete, in s.
        patience: When to give up on a file that does not come to rest, in s.
        seen: What this process has seen of the file before.
        beginning: An earlier copy, if the file must begin with its content.
        root: The folder that the file's writers write to; by default the folder that it lies in.

    Returns:
        What was copied.

    Raises:
        NotCopied: There is no such file, it is empty, it is not a regular file, or it can't be opened.
        StillBeingWritten: The file did not come to rest in time.
        AnotherFile: The file does not begin with the content of `beginning`.
        StorageFailed: Reading the file or writing the copy failed.
    """
    with named_storage_errors(f"copy {source} to {destination}"):
        return _copy_when_settled(
            source, destination, settle_seconds, patience, seen if seen is not None else SeenSince(), beginning, root
        )


def _copy_when_settled(
    source: Path,
    destination: Path,
    settle_seconds: float,
    patience: float,
    seen: SeenSince,
    beginning: CopyRecord | None,
    root: Path | None,
) -> CopiedFile:
    give_up = time.monotonic() + patience
    while True:
        with open_landed(source, root) as stream:
            before = _wait_until_settled(stream, source, settle_seconds, give_up, seen)
            if before.size == 0:
                raise NotCopied(f"{source} is empty; expected a header and at least one line")
            if beginning and not stream_begins_with(stream, beginning.version.size, beginning.sha256):
                raise AnotherFile(f"{source} is not the file that was copied before: its beginning is another")
            with private_draft(destination) as draft:
                copied = copy_stream(stream, draft, source, before)
                # Checked before the copy gets its name: a file that changed meanwhile may be half old and half new.
                if is_unchanged(stream, before):
                    with replacing(destination, CopyRecord(str(source), before, copied.sha256)):
                        os.replace(draft, destination)
                    sync_folder(destination.parent)
                    return copied
        if time.monotonic() > give_up:
            raise _still_being_written(source, f"it changed during every copy for {patience:g} s")


def open_landed(source: Path, root: Path | None = None) -> BinaryIO:
    """Open a landed file to copy it.

    Args:
        source: The file.
        root: The folder that its writers write to; by default the folder that it lies in.

    Raises:
        NotCopied: It is no regular file, can't be opened, or is reached by a link of somebody else out of `root`.
    """
    try:
        # A pipe that has just taken the file's place would hold us up for ever.
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotCopied(f"expected a file at {source}, found nothing") from None
    except OSError as error:
        is_special = error.errno == errno.ENXIO  # a socket, for example
        found = "a folder or a special file" if is_special else ""
        problem = (
            f"expected a file at {source}, found {found}" if found else f"{source} can't be read: {error.strerror}"
        )
        raise NotCopied(problem) from error
    problem = ""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        problem = f"expected a file at {source}, found a folder or a special file"
    elif leads_out(source, source.parent if root is None else root, place_of(descriptor, source)):
        problem = f"{source} {LEADS_OUT}"
    if problem:
        os.close(descriptor)
        raise NotCopied(problem)
    return open(descriptor, "rb")


def _version(stream: BinaryIO) -> FileVersion:
    return FileVersion.of(os.fstat(stream.fileno()))


def is_unchanged(stream: BinaryIO, before: FileVersion) -> bool:
    """Whether an opened file still is in this version, also if it was deleted or replaced meanwhile."""
    now = os.fstat(stream.fileno())
    if now.st_nlink == 0:
        # The file was deleted, or another file took its name. That alone changes the ctime.
        return FileVersion.of(now)._replace(changed_ns=before.changed_ns) == before
    return FileVersion.of(now) == before


def _wait_until_settled(
    stream: BinaryIO, source: Path, settle_seconds: float, give_up: float, seen: SeenSince
) -> FileVersion:
    """Wait until the opened file has been unchanged for long enough, and give its version."""
    while True:
        version = _version(stream)
        remaining = seen.unchanged_since(source, version) + settle_seconds - time.monotonic()
        if remaining <= 0:
            return version
        if time.monotonic() + remaining > give_up:
            raise _still_being_written(source, f"it never stayed unchanged for {settle_seconds:g} s")
        time.sleep(min(remaining, 0.2))


def _still_being_written(source: Path, what: str) -> StillBeingWritten:
    return StillBeingWritten(
        f"{source} is still being written: {what}. "
        "Let its writer finish, or have the writer write under another name and rename the file at the end"
    )


@contextmanager
def private_draft(destination: Path) -> Iterator[Path]:
    """A path beside the destination that only this process writes to. Drafts of killed processes are deleted."""
    with lock_of(destination.parent):
        draft = destination.with_name(f".{destination.name}.part")
        draft.unlink(missing_ok=True)
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)


def copy_stream(stream: BinaryIO, draft: Path, source: Path, version: FileVersion) -> CopiedFile:
    """Copy an opened file from its first byte on, until the disk has it. The caller checks `is_unchanged` after it."""
    sha256, size, lines, last = hashlib.sha256(), 0, 0, b"\n"
    stream.seek(0)
    with open(draft, "wb") as target:
        while chunk := stream.read(_CHUNK_BYTES):
            target.write(chunk)
            sha256.update(chunk)
            size += len(chunk)
            lines += chunk.count(b"\n")
            last = chunk[-1:]
        target.flush()
        os.fsync(target.fileno())
    return CopiedFile(source, version, size, lines + (last != b"\n"), sha256.hexdigest())


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
