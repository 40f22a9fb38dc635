"""What lies in a load's folder of internal storage, beside the copied file.

    internal/devices/20240103/dataset.csv    the copy: of one version of a landed file, whole
                              source.json    which file and version that is, and its SHA-256
                              refused.json   the aggregating team: this content can't be loaded, and why

`source.json` is what the copy reflects: both teams compare it with what it should reflect, whatever events say. While
the copy is replaced it says that this was begun, so that it never speaks of another copy, whoever dies when. A copy
from before there was such a file has none; then nobody knows where it came from.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dedp_assets.file_versions import FileVersion

_SOURCE, _REFUSED = "source.json", "refused.json"


class Copied(NamedTuple):
    """What a copy reflects: the landed file, its version, and the SHA-256 of its content.

    The SHA-256 is "" while the copy is being replaced, and for ever if the process that did so was killed.
    """

    source: str
    version: FileVersion
    sha256: str

    @property
    def is_cut_off(self) -> bool:
        """Whether nobody knows what the copy is: it was being replaced."""
        return not self.sha256


class Refusal(NamedTuple):
    """Content that can't be loaded, by its SHA-256, and why not."""

    sha256: str
    reason: str


def read_copied(folder: Path) -> Copied | None:
    """What the copy in a load's folder reflects; None if there is none, or nobody knows."""
    try:
        stored = _read(folder / _SOURCE)
        return Copied(str(stored["source"]), FileVersion(*map(int, stored["version"])), str(stored["sha256"]))
    except (KeyError, TypeError, ValueError):
        return None


def write_copied(folder: Path, copied: Copied) -> None:
    """Say what the copy reflects, or with a SHA-256 of "" that it is being replaced. Hold `lock_of` meanwhile."""
    _write(folder / _SOURCE, {**copied._asdict(), "version": list(copied.version)})


def read_refusal(folder: Path) -> Refusal | None:
    """The content that could not be loaded from this folder; None if the last one could be."""
    try:
        stored = _read(folder / _REFUSED)
        return Refusal(str(stored["sha256"]), str(stored["reason"]))
    except (KeyError, TypeError, ValueError):
        return None


def write_refusal(folder: Path, refusal: Refusal | None) -> None:
    """Say that content can't be loaded, or with None that all is well. Takes the lock."""
    if refusal is None and not (folder / _REFUSED).exists():
        return
    with lock_of(folder):
        if refusal is None:
            (folder / _REFUSED).unlink(missing_ok=True)
        else:
            _write(folder / _REFUSED, refusal._asdict())


def is_refused(folder: Path) -> bool:
    """Whether the copy in this folder is content that could not be loaded."""
    refusal = read_refusal(folder)
    if refusal is None:
        return False
    copied = read_copied(folder)
    return copied is not None and copied.sha256 == refusal.sha256 and not copied.is_cut_off


@contextlib.contextmanager
def lock_of(folder: Path) -> Iterator[None]:
    """The right to write in a load's folder, which is made if it is not there: one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError:
        return None


def _write(path: Path, content: dict[str, Any]) -> None:
    """As a whole or not at all. Whoever writes holds the lock, so the draft has one name, and none is left behind."""
    draft = path.with_name(f".{path.name}.part")
    with open(draft, "w", encoding="utf-8") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, path)
