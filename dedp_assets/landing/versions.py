"""What a version of a file is, when it is complete, and whether it has to be loaded: one rule for every sensor and run.

1. A version is identified by size, time of modification (mtime), time of change (ctime) and inode, all as the file
   system reports them. A writer can set the mtime to any value. It can't set the ctime, and every write, rename and
   `touch` changes it. Therefore no rewrite goes unnoticed, not even one that keeps size, mtime and inode.
2. A version is complete when *we* have seen it unchanged for the settle time, by our clock. The age that a file claims
   does not count: copies keep old times, and other machines' clocks are wrong. An empty file is a placeholder, and
   never complete. If a writer pauses for longer than the settle time, we take too little; when it goes on, that is a
   new version. A file that was renamed into place is complete at once, if we know that it was (`landing.renames`).
3. The content decides. A version whose SHA-256 has been loaded already is not loaded again: copying, touching or
   mounting a folder anew costs no load.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

_CHUNK_BYTES = 1 << 20

# Names with these ends are drafts. Their writer renames them when they are complete.
DRAFT_ENDINGS = (".part", ".partial", ".filepart", ".tmp", ".temp", "~")


class FileVersion(NamedTuple):
    """One version of a file: size in bytes, times of modification and of change in ns since the epoch, inode.

    Of an object in a store, the inode is a number made of its ETag.
    """

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileVersion":
        """The version that `stat` shows."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def to_text(self) -> str:
        """The version as one word, for run config and cursors."""
        return ":".join(map(str, self))

    @classmethod
    def from_text(cls, text: str) -> "FileVersion":
        """Read what `to_text` gave.

        Raises:
            ValueError: The text is not four whole numbers with colons between them.
        """
        size, modified_ns, changed_ns, inode = map(int, text.split(":"))
        return cls(size, modified_ns, changed_ns, inode)


class Seen(NamedTuple):
    """A version of a file, and since when we have seen it unchanged, in s since the epoch by our clock."""

    version: FileVersion
    since: float

    def is_complete(self, now: float, settle_seconds: float, *, is_renamed: bool = False) -> bool:
        """Whether the version may be copied.

        Args:
            now: In s since the epoch.
            settle_seconds: How long the version must have been seen unchanged, in s.
            is_renamed: Whether it was renamed into place (`landing.renames`), so that it need not settle.
        """
        return self.version.size > 0 and (is_renamed or now - self.since >= settle_seconds)


def track_versions(found: Mapping[str, FileVersion], before: Mapping[str, Seen], now: float) -> dict[str, Seen]:
    """Note since when each file has been unchanged.

    Args:
        found: The version of each file now, by the file's name.
        before: What the previous call returned.
        now: The time, in s since the epoch. If the clock was set back, the wait begins anew: otherwise a file would
            wait until the clock is where it was.

    Returns:
        Every file of `found` with the time since which it has been unchanged.
    """
    seen = {}
    for name, version in found.items():
        known = before.get(name)
        unchanged = known is not None and known.version == version and known.since <= now
        seen[name] = known if known is not None and unchanged else Seen(version, now)
    return seen


def sha256_of(path: Path) -> str | None:
    """The SHA-256 of a file's content; None if there is no file that can be read."""
    try:
        with open(path, "rb") as stream:
            return _sha256(stream, None)
    except OSError:
        return None


def begins_with(path: Path, size: int, sha256: str) -> bool:
    """Whether a file begins with known content.

    Args:
        path: The file.
        size: How many bytes the known content has.
        sha256: The SHA-256 of the known content.

    Returns:
        True if the first `size` bytes are that content. False also if the file can't be read.
    """
    try:
        with open(path, "rb") as stream:
            return stream_begins_with(stream, size, sha256)
    except OSError:
        return False


def stream_begins_with(stream: BinaryIO, size: int, sha256: str) -> bool:
    """Whether an opened file begins with known content, as `begins_with`. Reads it from its first byte on."""
    stream.seek(0)
    return _sha256(stream, size) == sha256


def _sha256(stream: BinaryIO, size: int | None) -> str:
    found = hashlib.sha256()
    left = size
    while chunk := stream.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left)):
        found.update(chunk)
        left = None if left is None else left - len(chunk)
    return found.hexdigest()
