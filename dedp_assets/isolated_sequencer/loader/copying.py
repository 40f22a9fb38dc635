"""Copies a landed file to its own place, so that nobody ever sees half of it there.

The source may be replaced or written to at any moment. What is copied is one opened file that nobody has
written to for a while, from before the copy until after it; a file that takes its name meanwhile is another
version and waits for its own turn.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20


class NotCopied(RuntimeError):
    """The file can't be taken. The message names it, what was found, and what was expected."""


class StillBeingWritten(NotCopied):
    """The file did not come to rest in the time allowed. Worth another try later."""


@dataclass(frozen=True)
class CopiedFile:
    """One complete version of a file: where it came from, its size in bytes, its lines and its SHA-256."""

    source: Path
    size_bytes: int
    line_count: int
    sha256: str


def copy_when_settled(source: Path, destination: Path, *, settle_seconds: float, patience: float = 60) -> CopiedFile:
    """Copy one complete version of `source` to `destination`, which is replaced as a whole or not at all.

    Waits until the opened file has not changed for `settle_seconds`, and gives up after `patience` seconds
    with StillBeingWritten. Raises NotCopied if there is no such file, it is empty, or not a file.
    """
    give_up = time.monotonic() + patience
    while True:
        with _open(source) as stream:
            before = _wait_until_settled(stream, source, settle_seconds, give_up)
            if before.st_size == 0:
                raise NotCopied(f"{source} is empty; expected a header and at least one line")
            with _private_draft(destination) as draft:
                copied = _copy(stream, draft, source)
                # Compared before it gets its name: what changed under the copy may be half old and half new.
                if _same(before, os.fstat(stream.fileno())):
                    os.replace(draft, destination)
                    _sync_folder(destination.parent)
                    return copied


def _open(source: Path) -> BinaryIO:
    try:
        if not source.is_file():
            found = "a folder or a special file" if source.exists() else "nothing"
            raise NotCopied(f"expected a file at {source}, found {found}")
        return open(source, "rb")
    except OSError as error:
        raise NotCopied(f"{source} can't be read: {error.strerror}") from error


def _wait_until_settled(stream: BinaryIO, source: Path, settle_seconds: float, give_up: float) -> os.stat_result:
    """The state of the opened file once it has been unchanged for long enough."""
    last = os.fstat(stream.fileno())
    # A clock that is wrong (a time of change in the future) makes this wait the full time, and not for ever.
    quiet_since = time.monotonic() - max(0.0, time.time() - last.st_mtime)
    while (remaining := quiet_since + settle_seconds - time.monotonic()) > 0:
        if time.monotonic() + remaining > give_up:
            raise StillBeingWritten(
                f"{source} is still being written: it never stayed unchanged for {settle_seconds:g} s. "
                "Let its writer finish, or have it write under another name and rename"
            )
        time.sleep(min(remaining, 0.2))
        now = os.fstat(stream.fileno())
        if not _same(last, now):
            last, quiet_since = now, time.monotonic()
    return last


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


@contextmanager
def _private_draft(destination: Path) -> Iterator[Path]:
    """A path beside `destination` for this process alone, and nothing left there by those that were killed."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with open(destination.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        draft = destination.with_name(f".{destination.name}.part")
        draft.unlink(missing_ok=True)
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)


def _copy(stream: BinaryIO, draft: Path, source: Path) -> CopiedFile:
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
    return CopiedFile(source, size, lines + (last != b"\n"), sha256.hexdigest())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
