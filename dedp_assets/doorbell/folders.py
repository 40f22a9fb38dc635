"""The directories that sensors watch, and whether their file systems tell of changes."""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from dedp_assets.errors import DedpError, SettingError

# The kernel of this machine does not see what others write there.
_REMOTE = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fakeowner", "gfs2", "gpfs", "grpcfuse", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "osxfs", "prl_fs", "pvfs2", "smb", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs",
    "vmhgfs", "fuse.cephfs", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.grpcfuse",
    "fuse.juicefs", "fuse.mount-s3", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "fuse.vmhgfs-fuse",
})  # fmt: skip


@dataclass(frozen=True)
class Watch:
    """A directory whose changes wake a sensor. It need not exist yet.

    Attributes:
        path: the directory.
        depth: how many levels of directories below it are watched, too; 0 for none.
        settle_seconds: a file that is written in place is complete after so long; the sensor is evaluated again then.
        name: of the one file in it that matters; None for every file.
        draft_endings: the endings of names that files have while they are written. Until they get another name, they
            ring no more than files whose name begins with a dot.
    """

    path: Path
    depth: int = 0
    settle_seconds: float = 0.0
    name: str | None = None
    draft_endings: tuple[str, ...] = ()

    def is_told_of(self, name: str) -> bool:
        """Whether a file of this name can be one that matters."""
        return name == self.name if self.name else not name.startswith(".") and not name.endswith(self.draft_endings)


@dataclass(frozen=True)
class Polled:
    """Something that a sensor looks at, and that tells nobody of changes. The sensor is polled.

    Attributes:
        what: it is, such as "s3://bucket/uploads is an object store".
    """

    what: str


class Place(NamedTuple):
    """A directory that exists, and how it stands to a watch.

    Attributes:
        path: the directory.
        levels: how many levels below it are watched; -1 for a directory above one that does not exist yet.
    """

    path: str
    levels: int


def places(watch: Watch) -> Iterator[Place]:
    """The directories to watch now: those of the watch, or the nearest one above it while it does not exist."""
    if not watch.path.is_dir():
        above = next((each for each in watch.path.parents if each.is_dir()), None)
        if above is not None:
            yield Place(str(above), -1)
        return
    yield from places_below(str(watch.path), watch.depth)


def places_below(path: str, levels: int) -> Iterator[Place]:
    """A directory, and those below it up to so many levels. What can't be read is left out.

    A directory is listed only after the caller has taken it. What is made in between is then in the list, or told.
    """
    yield Place(path, levels)
    if levels <= 0:
        return
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if _is_directory(entry):
                yield from places_below(entry.path, levels - 1)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def function_named(name: str) -> Callable[[], Iterable[Watch | Polled]]:
    """The function that a sensor names for its directories, such as `sensors.watched_folders:devices`.

    Raises:
        SettingError: there is none with this name.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(
            f"{name} should name a function that returns the directories to watch, as `module:name`, and can't be "
            f"imported by the daemon: {error}"
        ) from None


def watches_of(name: str) -> list[Watch | Polled]:
    """The directories that a sensor watches now. Raises DedpError if its function fails."""
    function = function_named(name)
    try:
        return list(function())
    except DedpError:
        raise
    except Exception as error:
        raise SettingError(f"{name} failed and named no directories: {type(error).__name__}: {error}") from error


def mounted() -> list[tuple[str, str]]:
    """Where file systems are mounted, and their types."""
    return [(each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)]


def file_system_of(path: str, mounts: Sequence[tuple[str, str]]) -> str:
    """The type of the file system that a path is on; "" if it is not known.

    Args:
        path: absolute, without links.
        mounts: where file systems are mounted, and their types. Of two at one place, the later one counts.
    """
    found, longest = "", -1
    for point, kind in mounts:
        is_above = path == point or path.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def tells_changes(kind: str) -> bool:
    """Whether the kernel tells of every change on a file system of this type, whoever makes it."""
    return kind.lower() not in _REMOTE
