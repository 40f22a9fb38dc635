"""Copies a landed file to its own place, so that nobody ever sees half of it there.

The source may be replaced or written to at any moment. What is copied is one opened file that nobody has
written to for a while, from before the copy until after it; a file that takes its name meanwhile is another
version and waits for its own turn. When it is complete, the rule in `landing.versions` says.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dedp_assets.errors import PermanentError, TransientError
from dedp_assets.landing.copies import Copied, lock_of, replacing
from dedp_assets.landing.versions import FileVersion, stream_begins_with

_CHUNK_BYTES = 1 << 20


class NotCopied(PermanentError):
    """The file can't be copied until somebody acts. The message names it, what was found, and what was expected."""


class StillBeingWritten(TransientError):
    """The file was still changing when the time allowed for the copy was over."""


class AnotherFile(NotCopied):
    """The file is not the one of which more was to be copied: it has been replaced."""


@dataclass(frozen=True)
class CopiedFile:
    """One complete version of a file: where it came from, its size in bytes, its lines and its SHA-256."""

    source: Path
    version: FileVersion
    size_bytes: int
    line_count: int
    sha256: str


class SeenSince:
    """When this process first saw each file in its present version: many files settle at the same time.

    `complete`: versions that somebody else has seen unchanged for long enough, the sensor that requested the run.
    """

    def __init__(self, complete: dict[Path, FileVersion] | None = None) -> None:
        self._complete = complete or {}
        self._since: dict[Path, tuple[FileVersion, float]] = {}

    def look(self, path: Path, version: FileVersion | None = None) -> float:
        """Since when (by `time.monotonic`) the file has been unchanged; looks at it unless told its version."""
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
    beginning: Copied | None = None,
) -> CopiedFile:
    """Copy one complete version of `source` to `destination`, which is replaced as a whole or not at all.

    Waits until the opened file has been seen unchanged for `settle_seconds`, and gives up after `patience` seconds with
    StillBeingWritten. `seen`: what was seen before this call. `beginning`: an earlier copy, of which the file must be a
    longer version, or AnotherFile is raised. Raises NotCopied if there is no such file, it is empty, or not a file.
    Beside the destination it records which version was copied (copies).
    """
    give_up = time.monotonic() + patience
    seen = seen or SeenSince()
    while True:
        with _open(source) as stream:
            before = _wait_until_settled(stream, source, settle_seconds, give_up, seen)
            if before.size == 0:
                raise NotCopied(f"{source} is empty; expected a header and at least one line")
            if beginning and not stream_begins_with(stream, beginning.version.size, beginning.sha256):
                raise AnotherFile(f"{source} is another file than the one that was copied before")
            with _private_draft(destination) as draft:
                copied = _copy(stream, draft, source, before)
                # Compared before it gets its name: what changed under the copy may be half old and half new.
                if _is_unchanged(stream, before):
                    with replacing(destination, Copied(str(source), before, copied.sha256)):
                        os.replace(draft, destination)
                    _sync_folder(destination.parent)
                    return copied
        if time.monotonic() > give_up:
            raise _still_being_written(source, f"it changed during every copy for {patience:g} s")


def _open(source: Path) -> BinaryIO:
    try:
        if not source.is_file():
            found = "a folder or a special file" if source.exists() else "nothing"
            raise NotCopied(f"expected a file at {source}, found {found}")
        return open(source, "rb")
    except OSError as error:
        raise NotCopied(f"{source} can't be read: {error.strerror}") from error


def _version(stream: BinaryIO) -> FileVersion:
    return FileVersion.of(os.fstat(stream.fileno()))


def _is_unchanged(stream: BinaryIO, before: FileVersion) -> bool:
    now = os.fstat(stream.fileno())
    if now.st_nlink == 0:
        # It was deleted, or another version took its name: that alone has changed its ctime.
        return FileVersion.of(now)._replace(changed_ns=before.changed_ns) == before
    return FileVersion.of(now) == before


def _wait_until_settled(
    stream: BinaryIO, source: Path, settle_seconds: float, give_up: float, seen: SeenSince
) -> FileVersion:
    """The version of the opened file once it has been unchanged for long enough."""
    while True:
        version = _version(stream)
        remaining = seen.look(source, version) + settle_seconds - time.monotonic()
        if remaining <= 0:
            return version
        if time.monotonic() + remaining > give_up:
            raise _still_being_written(source, f"it never stayed unchanged for {settle_seconds:g} s")
        time.sleep(min(remaining, 0.2))


def _still_being_written(source: Path, what: str) -> StillBeingWritten:
    return StillBeingWritten(
        f"{source} is still being written: {what}. "
        "Let its writer finish, or have it write under another name and rename"
    )


@contextmanager
def _private_draft(destination: Path) -> Iterator[Path]:
    """A path beside `destination` for this process alone, and nothing left there by those that were killed."""
    with lock_of(destination.parent):
        draft = destination.with_name(f".{destination.name}.part")
        draft.unlink(missing_ok=True)
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)


def _copy(stream: BinaryIO, draft: Path, source: Path, version: FileVersion) -> CopiedFile:
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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
