"""Our copies of deliveries, which readers see as a whole: the old version or the new one.

    internal/promotions/supermarket1/2024-01-05/delivery.json    the version, and which content each file has
                                                <sha256>.csv     a content
                                                refused.json     nothing of this version can be loaded, and why

`delivery.json` is replaced last, by a rename. Contents that it does not name any more are deleted after that.
"""

import json
import os
import time
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from dedp_assets.errors import PermanentError
from dedp_assets.landing.copies import lock_of, named_storage_errors
from dedp_assets.landing.copying import StillBeingWritten, copy_stream, is_unchanged, open_landed, sync_folder
from dedp_assets.landing.deliveries import DATA_FILES, MARKER, look_of, state_of, version_of
from dedp_assets.landing.directories import Directory, Scan, scan_directory
from dedp_assets.landing.versions import FileVersion
from dedp_assets.whole_files import write_whole

_RECORD = "delivery.json"
_WAIT_SECONDS = 0.2


class NotDelivered(PermanentError):
    """The delivery is not complete, or can't be read. The message says what is missing."""


class DamagedCopy(PermanentError):
    """Our copy of a delivery is not there, or is not what was copied."""


class CopiedContent(NamedTuple):
    """A data file of a delivery as it was copied: its name, the SHA-256 of its content, its size, its version."""

    name: str
    sha256: str
    size_bytes: int
    source: FileVersion


class Copy(NamedTuple):
    """Our copy of a delivery.

    Attributes:
        version: Of the delivery (`version_of`).
        files: In the order of their names.
        ready_at: When it was first seen complete in this version, in UTC.
        is_late: Whether its first version was seen complete only after the window had closed.
        folder: Where it was copied from.
    """

    version: str
    files: tuple[CopiedContent, ...]
    ready_at: datetime
    is_late: bool
    folder: str

    @property
    def sources(self) -> dict[str, FileVersion]:
        """The version of each landed file that was copied, by name."""
        return {file.name: file.source for file in self.files}


class Seen(NamedTuple):
    """What is known of a delivery that was found complete.

    Attributes:
        look: What it looked like then (`look_of`), or "" if nobody has looked.
        ready_at: Since when it was seen so, in UTC.
    """

    look: str
    ready_at: datetime


def record_file(folder: Path) -> Path:
    """The record of a copy. `landing.copies.write_refusal` takes it as the copy."""
    return folder / _RECORD


def content_file(folder: Path, sha256: str) -> Path:
    """Where the content of a copied file is."""
    return folder / f"{sha256}.csv"


def read_copy(folder: Path) -> Copy | None:
    """Read what our copy of a delivery is; None if there is none, or its record is damaged."""
    path = f"{folder}/{_RECORD}"
    try:
        return _read_record(path, FileVersion.of(os.stat(path)))
    except OSError:
        return None


@lru_cache(maxsize=1024)
def _read_record(path: str, version: FileVersion) -> Copy | None:
    """Read a record once in each of its versions: ticks ask for those of the last days again and again."""
    content = Path(path).read_bytes()
    try:
        stored = json.loads(content)
        files = tuple(
            CopiedContent(str(name), str(sha256), int(size), FileVersion(*map(int, source)))
            for name, sha256, size, source in stored["files"]
        )
        ready_at = datetime.fromisoformat(stored["ready_at"]).astimezone(timezone.utc)
        return Copy(str(stored["version"]), files, ready_at, bool(stored["is_late"]), str(stored["folder"]))
    except (KeyError, TypeError, ValueError):
        return None


def copy_delivery(
    directory: Directory,
    folder: Path,
    seen: Seen,
    *,
    window_closes: datetime,
    settle_seconds: float,
    patience_seconds: float = 60,
) -> Copy:
    """Copy a complete delivery. The copy is replaced as a whole or not at all.

    The delivery that lies there when it is copied counts, also if it is another one than was seen. It has to be
    complete, and to stay as it is until everything is copied.

    Args:
        directory: The landed folder.
        folder: Where our copy is.
        seen: What is known of the delivery.
        window_closes: When its window closes, in UTC.
        settle_seconds: How long a folder that changed after its marker must be unchanged, in s.
        patience_seconds: When to give up on a folder that does not come to rest, in s.

    Returns:
        The copy that is there now.

    Raises:
        NotDelivered: The delivery is not complete.
        NotCopied: One of its files can't be opened.
        StillBeingWritten: It did not come to rest in time.
        StorageFailed: Reading it or writing the copy failed.
    """
    with lock_of(folder), named_storage_errors(f"copy {directory.path} to {folder}"):
        before = read_copy(folder)
        contents = _copy_at_rest(directory, folder, before, seen.look, settle_seconds, patience_seconds)
        version = version_of({content.name: content.sha256 for content in contents})
        is_same = before is not None and before.version == version
        copy = Copy(
            version,
            tuple(contents),
            before.ready_at if before is not None and is_same else seen.ready_at,
            before.is_late if before is not None else seen.ready_at > window_closes,
            str(directory.path),
        )
        if copy != before:
            sync_folder(folder)
            write_whole(record_file(folder), json.dumps(_to_json(copy)).encode(), is_only_writer=True)
        _delete_others(folder, copy)
        return copy


def _to_json(copy: Copy) -> dict[str, Any]:
    files = [[file.name, file.sha256, file.size_bytes, list(file.source)] for file in copy.files]
    return {**copy._asdict(), "files": files, "ready_at": copy.ready_at.isoformat()}


def _copy_at_rest(
    directory: Directory,
    folder: Path,
    before: Copy | None,
    seen_look: str,
    settle_seconds: float,
    patience_seconds: float,
) -> list[CopiedContent]:
    give_up = time.monotonic() + patience_seconds
    look, since = "", 0.0
    while True:
        scan = scan_directory(directory)
        state = state_of(scan)
        if state in ("unreadable", "no marker", "no data"):
            raise NotDelivered(_problem(directory, scan))
        if look_of(scan.files) != look:
            look, since = look_of(scan.files), time.monotonic()
        if state == "complete" or look == seen_look or time.monotonic() - since >= settle_seconds:
            contents = _copy_contents(directory, folder, scan, before)
            # A file that came, went or changed meanwhile may be half of something.
            if contents is not None and _is_still(directory, scan):
                return contents
        if time.monotonic() > give_up:
            raise StillBeingWritten(
                f"{directory.path} is still being written to: it was not left alone for {settle_seconds:g} s; write "
                f"{MARKER} when all files are complete"
            )
        time.sleep(min(_WAIT_SECONDS, settle_seconds))


def _problem(directory: Directory, scan: Scan) -> str:
    if scan.failure:
        return f"{scan.failure}; expected data files {DATA_FILES} and the marker {MARKER} in it"
    found = ", ".join(sorted(scan.files)[:5]) or f"no data file {DATA_FILES}"
    lacking = "a data file that is not empty" if MARKER in scan.markers else f"the marker {MARKER}"
    return f"{directory.path} has {found}, and is no delivery yet: it lacks {lacking}"


def _is_still(directory: Directory, before: Scan) -> bool:
    scan = scan_directory(directory)
    return scan.files == before.files and MARKER in scan.markers


def _copy_contents(directory: Directory, folder: Path, scan: Scan, before: Copy | None) -> list[CopiedContent] | None:
    """Copy the content of each file that is not copied yet; None if one has changed."""
    known = {file.name: file for file in before.files} if before is not None else {}
    contents = []
    for name, version in sorted(scan.files.items()):
        file = known.get(name)
        if file is None or file.source != version or not content_file(folder, file.sha256).is_file():
            file = _copy_content(Path(str(directory.path)) / name, folder, version)
        if file is None:
            return None
        contents.append(file)
    return contents


def _copy_content(source: Path, folder: Path, version: FileVersion) -> CopiedContent | None:
    draft = folder / ".content.part"
    draft.unlink(missing_ok=True)  # of a run that was killed
    try:
        # The supplier makes the folder of the day, too.
        with open_landed(source, source.parent.parent) as stream:
            copied = copy_stream(stream, draft, source, version)
            if copied.size_bytes != version.size or not is_unchanged(stream, version):
                return None
        draft.replace(content_file(folder, copied.sha256))
    finally:
        draft.unlink(missing_ok=True)
    return CopiedContent(source.name, copied.sha256, copied.size_bytes, version)


def _delete_others(folder: Path, copy: Copy) -> None:
    """Delete contents that the record does not name. Whoever reads one of them has it open, or begins again."""
    ours = {content_file(folder, file.sha256).name for file in copy.files}
    for path in folder.glob("*.csv"):
        if path.name not in ours:
            path.unlink(missing_ok=True)
