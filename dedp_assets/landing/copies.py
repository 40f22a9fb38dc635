"""What lies in a load's folder of internal storage, beside the copied file.

    internal/devices/20240103/dataset.csv    the copy: of one version of a landed file, whole
                              source.json    which file and version that is, and its SHA-256
                              refused.json   the aggregating team: this content can't be loaded, and why

`source.json` is what the copy reflects: both teams compare it with what it should reflect, whatever events say. While
the copy is replaced it holds both, what it was and what it will be, and the content tells which: so it is right at any
moment, whoever dies when. A copy from before there was such a file has none; then nobody knows where it came from.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dedp_assets.landing.versions import FileVersion, sha256_of
from dedp_assets.whole_files import write_whole

_SOURCE, _REFUSED = "source.json", "refused.json"


class Copied(NamedTuple):
    """What a copy reflects: the landed file, its version, and the SHA-256 of its content."""

    source: str
    version: FileVersion
    sha256: str


class Refusal(NamedTuple):
    """Content that can't be loaded, by its SHA-256, and why not."""

    sha256: str
    reason: str


def read_copied(file: Path) -> Copied | None:
    """What a copy reflects, by the path of the copy; None if there is none, or nobody knows."""
    stored = _read(file.with_name(_SOURCE))
    if not isinstance(stored, dict) or not file.exists():
        return None
    if "after" in stored:
        before, after = _copied(stored.get("before")), _copied(stored["after"])
        return after if after is not None and sha256_of(file) == after.sha256 else before
    return _copied(stored)


@contextlib.contextmanager
def replacing(file: Path, copied: Copied) -> Iterator[None]:
    """The block replaces the copy by one that reflects `copied`. Hold `lock_of` its folder."""
    before = read_copied(file)
    both = {"before": _stored(before) if before else None, "after": _stored(copied)}
    _write(file.with_name(_SOURCE), both)
    yield
    write_copied(file, copied)


def write_copied(file: Path, copied: Copied) -> None:
    """Say what a copy reflects. Hold `lock_of` its folder."""
    _write(file.with_name(_SOURCE), _stored(copied))


def _copied(stored: Any) -> Copied | None:
    try:
        return Copied(str(stored["source"]), FileVersion(*map(int, stored["version"])), str(stored["sha256"]))
    except (KeyError, TypeError, ValueError):
        return None


def _stored(copied: Copied) -> dict[str, Any]:
    return {**copied._asdict(), "version": list(copied.version)}


def read_refusal(file: Path) -> Refusal | None:
    """The content that could not be loaded from this copy's place; None if the last one could be."""
    try:
        stored = _read(file.with_name(_REFUSED))
        return Refusal(str(stored["sha256"]), str(stored["reason"]))
    except (KeyError, TypeError, ValueError):
        return None


def write_refusal(file: Path, refusal: Refusal | None) -> None:
    """Say that the content of a copy can't be loaded, or with None that all is well. Takes the lock."""
    path = file.with_name(_REFUSED)
    if refusal is None and not path.exists():
        return
    with lock_of(file.parent):
        if refusal is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, refusal._asdict())


def is_refused(file: Path) -> bool:
    """Whether a copy is content that could not be loaded."""
    refusal, copied = read_refusal(file), read_copied(file)
    return refusal is not None and copied is not None and copied.sha256 == refusal.sha256


@contextlib.contextmanager
def lock_of(folder: Path, *, waits: bool = True) -> Iterator[None]:
    """The right to write in a load's folder, which is made if it is not there: one process at a time.

    Waits for it, or raises BlockingIOError if it is somebody else's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        yield


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None  # not there, or damaged: then nobody knows, as with a copy that never had one


def _write(path: Path, content: dict[str, Any]) -> None:
    # Whoever writes holds the lock.
    write_whole(path, json.dumps(content).encode(), is_only_writer=True)
