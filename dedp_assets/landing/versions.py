"""What a version of a file is, when it is complete, and whether it has to be loaded: one rule for every watcher.

1. A version is told by size, time of modification (mtime), time of change (ctime) and inode, all of them as the file
   system says. A writer can set the mtime to whatever it likes; the ctime it can't, and every write, rename and
   `touch` changes it. So no rewrite goes unseen, also not one that keeps size, mtime and inode.
2. A version is complete when *we* have seen it unchanged for the settle time, by our clock. How old a file claims to
   be does not count: copies keep old times, and other machines' clocks are wrong. An empty file is a placeholder, and
   never complete. A writer that pauses for longer makes us take too little; as soon as it goes on, that is a new
   version.
3. The content has the last word. A version whose SHA-256 is the one that was loaded is not loaded again: a folder that
   was copied, mounted anew or touched costs no load.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

_CHUNK_BYTES = 1 << 20


class FileVersion(NamedTuple):
    """One version of a file: size in bytes, times of modification and of change in ns since the epoch, inode."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileVersion":
        """The version that a file is in by its `stat`."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def to_text(self) -> str:
        """As one word, for run config and cursors."""
        return ":".join(map(str, self))

    @classmethod
    def from_text(cls, text: str) -> "FileVersion":
        """What `to_text` gave. Raises ValueError for anything else."""
        size, modified_ns, changed_ns, inode = map(int, text.split(":"))
        return cls(size, modified_ns, changed_ns, inode)


class Seen(NamedTuple):
    """A version of a file, and since when we have seen it unchanged, in s since the epoch by our clock."""

    version: FileVersion
    since: float

    def is_complete(self, now: float, settle_seconds: float) -> bool:
        """Whether it may be taken. `now`: s since the epoch."""
        return self.version.size > 0 and now - self.since >= settle_seconds


def watch(found: Mapping[str, FileVersion], before: Mapping[str, Seen], now: float) -> dict[str, Seen]:
    """Since when each of the files that were found has been unchanged. `before`: what the last look knew.

    A clock that was set back starts the wait anew: else a file would wait until the clock is where it was.
    """
    seen = {}
    for name, version in found.items():
        known = before.get(name)
        unchanged = known is not None and known.version == version and known.since <= now
        seen[name] = known if known is not None and unchanged else Seen(version, now)
    return seen


def sha256_of(path: Path) -> str | None:
    """The SHA-256 of a file's content, or None if there is no file that can be read."""
    try:
        with open(path, "rb") as stream:
            return _sha256(stream, None)
    except OSError:
        return None


def begins_with(path: Path, size: int, sha256: str) -> bool:
    """Whether the first `size` bytes of a file have this SHA-256: it is that content, and perhaps more."""
    try:
        with open(path, "rb") as stream:
            return stream_begins_with(stream, size, sha256)
    except OSError:
        return False


def stream_begins_with(stream: BinaryIO, size: int, sha256: str) -> bool:
    """The same of a file that has been opened; it is read from its beginning."""
    stream.seek(0)
    return _sha256(stream, size) == sha256


def _sha256(stream: BinaryIO, size: int | None) -> str:
    found = hashlib.sha256()
    left = size
    while chunk := stream.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left)):
        found.update(chunk)
        left = None if left is None else left - len(chunk)
    return found.hexdigest()
