"""Our copy of a landed file, and the records beside it in internal storage.

    internal/devices/20240103/dataset.csv    the copy: one version of a landed file, complete
                              source.json    the record: the landed file, its version, and the SHA-256 of its content
                              refused.json   written by the aggregating team: this content can't be loaded, and why

Both teams compare `source.json` with the landed files, whatever events say. While the copy is being replaced,
`source.json` names the old content and the new one, and the SHA-256 of the copy tells which of them is there. The
record is therefore right at any moment, also when a process is killed. A copy that was made before there were such
records has none; then nobody knows where it came from.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dedp_assets.errors import TransientError
from dedp_assets.landing.versions import FileVersion, sha256_of
from dedp_assets.whole_files import write_whole

_SOURCE, _REFUSED = "source.json", "refused.json"


class StorageFailed(TransientError):
    """A file or a folder can't be read or written: a full disk, a missing right, a file system that is away."""


@contextlib.contextmanager
def named_storage_errors(doing: str) -> Iterator[None]:
    """Turn an OSError of the block into an error of ours.

    Args:
        doing: What the block does, for the message, such as "copy /landing/a to /internal/a".

    Raises:
        StorageFailed: The block raised an OSError, except BlockingIOError, which stays as it is.
    """
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise StorageFailed(
            f"failed to {doing}: {error.strerror or error}{where}; check the disk, and the rights on files and folders"
        ) from error


class CopyRecord(NamedTuple):
    """Where a copy comes from: the path of the landed file, its version, and the SHA-256 of the content."""

    source: str
    version: FileVersion
    sha256: str


class Refusal(NamedTuple):
    """Content that can't be loaded, by its SHA-256, and the reason."""

    sha256: str
    reason: str


def read_record(copy: Path) -> CopyRecord | None:
    """Read where a copy comes from.

    Args:
        copy: The path of the copy.

    Returns:
        Its record. None if there is no copy, or if its record is missing or damaged.
    """
    stored = _read(copy.with_name(_SOURCE))
    if not isinstance(stored, dict) or not copy.exists():
        return None
    if "after" in stored:
        before, after = _from_json(stored.get("before")), _from_json(stored["after"])
        return after if after is not None and sha256_of(copy) == after.sha256 else before
    return _from_json(stored)


@contextlib.contextmanager
def replacing(copy: Path, record: CopyRecord) -> Iterator[None]:
    """Keep the record right while the block replaces a copy. The caller holds `lock_of` its folder.

    Args:
        copy: The path of the copy.
        record: Where the new copy comes from.

    Raises:
        StorageFailed: The record can't be written.
    """
    before = read_record(copy)
    both = {"before": _to_json(before) if before else None, "after": _to_json(record)}
    _write(copy.with_name(_SOURCE), both)
    yield
    write_record(copy, record)


def write_record(copy: Path, record: CopyRecord) -> None:
    """Record where a copy comes from. The caller holds `lock_of` its folder.

    Raises:
        StorageFailed: The record can't be written.
    """
    _write(copy.with_name(_SOURCE), _to_json(record))


def _from_json(stored: Any) -> CopyRecord | None:
    try:
        return CopyRecord(str(stored["source"]), FileVersion(*map(int, stored["version"])), str(stored["sha256"]))
    except (KeyError, TypeError, ValueError):
        return None


def _to_json(record: CopyRecord) -> dict[str, Any]:
    return {**record._asdict(), "version": list(record.version)}


def read_refusal(copy: Path) -> Refusal | None:
    """Read which content could not be loaded from this place; None if the last content could be loaded."""
    try:
        stored = _read(copy.with_name(_REFUSED))
        return Refusal(str(stored["sha256"]), str(stored["reason"]))
    except (KeyError, TypeError, ValueError):
        return None


def write_refusal(copy: Path, refusal: Refusal | None) -> None:
    """Record that the content of a copy can't be loaded, or that it was loaded. Takes the lock of the folder.

    Args:
        copy: The path of the copy.
        refusal: The content and the reason. None if the content was loaded.

    Raises:
        StorageFailed: The record can't be written.
    """
    path = copy.with_name(_REFUSED)
    if refusal is None and not path.exists():
        return
    with lock_of(copy.parent):
        if refusal is not None:
            _write(path, refusal._asdict())
            return
        with named_storage_errors(f"delete {path}"):
            path.unlink(missing_ok=True)


def is_refused(copy: Path) -> bool:
    """Whether the content that a copy has now could not be loaded."""
    refusal, record = read_refusal(copy), read_record(copy)
    return refusal is not None and record is not None and record.sha256 == refusal.sha256


@contextlib.contextmanager
def lock_of(folder: Path, *, waits: bool = True) -> Iterator[None]:
    """Hold the right to write in a load's folder. One process at a time has it.

    Args:
        folder: The folder. It is made if it does not exist.
        waits: Wait while another process holds the lock, or raise BlockingIOError.

    Raises:
        BlockingIOError: Another process holds the lock, and `waits` is False.
        StorageFailed: The folder or the lock file in it can't be made.
    """
    path = folder / ".lock"
    with named_storage_errors(f"lock {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(path, "w")  # noqa: SIM115  the block may raise an OSError of its own, which is not ours to name
    with lock:
        with named_storage_errors(f"lock {folder}"):
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        yield


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None  # missing or damaged: treated like a copy from before there were records


def _write(path: Path, content: dict[str, Any]) -> None:
    # Every caller holds the lock, so there is no other writer.
    with named_storage_errors(f"write {path}"):
        write_whole(path, json.dumps(content).encode(), is_only_writer=True)
