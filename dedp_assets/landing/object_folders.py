"""Watched directories in an object store: the same rules as for folders, by listing and by download.

An object is never half there: a store shows it when it is whole. But a store tells the time of a version in whole
seconds, so two versions of the same size in one second look the same. Whoever waits until a version has been seen
unchanged for more than a second misses none, and that is what `settled` is for here.
"""

import hashlib
import os
import time
from pathlib import Path

from dedp_assets.errors import DedpError
from dedp_assets.landing.copies import CopyRecord, named_storage_errors, replacing
from dedp_assets.landing.copying import CopiedFile, NotCopied, StillBeingWritten, private_draft, sync_folder
from dedp_assets.landing.directories import NOTHING, Directory, ObjectFolder, Scan, scan_directory
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources.object_store import StoredObject, list_objects, read_object, stat_object

# In s. Less would miss a version that was written in the same second as the one before it.
SHORTEST_SETTLE_OF_OBJECTS = 2.0


def version_of(stored: StoredObject) -> FileVersion:
    """The version of an object. Stores know one time, and no inode."""
    return FileVersion(stored.size, stored.modified_ns, stored.modified_ns, 0)


def scan_object_store(directory: Directory) -> Scan:
    """List one directory in an object store.

    Args:
        directory: Its path is a URI. A prefix below which nothing lies is an empty directory.

    Returns:
        Its files, or why it can't be listed.
    """
    try:
        found = list_objects(str(directory.path))
    except DedpError as error:
        return Scan(failure=str(error))
    files = {name: version_of(stored) for name, stored in found.items() if directory.pattern_of(name)}
    markers = {}
    if directory.completeness == "marker":
        markers = {name: stored.modified_ns for name, stored in found.items() if directory.is_marker(name)}
        files = {name: version for name, version in files.items() if name not in markers}
    return Scan(files, markers) if files or markers else NOTHING


def scan_anywhere(directory: Directory) -> Scan:
    """Scan a directory, wherever it is."""
    return scan_object_store(directory) if isinstance(directory.path, ObjectFolder) else scan_directory(directory)


def sha256_of_object(folder: ObjectFolder, name: str) -> str | None:
    """The SHA-256 of an object's content, or None if it can't be read."""
    sha256 = hashlib.sha256()
    try:
        for chunk in read_object(folder.uri, name):
            sha256.update(chunk)
    except DedpError:
        return None
    return sha256.hexdigest()


def copy_object(
    folder: ObjectFolder,
    name: str,
    destination: Path,
    *,
    settle_seconds: float,
    complete: FileVersion,
    patience: float = 60,
) -> CopiedFile:
    """Download one version of an object. The destination is replaced as a whole or not at all, with its record.

    Args:
        folder: Where the object is.
        name: Its name there.
        destination: The path of the copy.
        settle_seconds: How long a version must have been seen unchanged, in s.
        complete: A version that has been seen unchanged for so long already.
        patience: When to give up on an object that changes again and again, in s.

    Raises:
        NotCopied: There is no such object, or it is empty.
        StillBeingWritten: It changed during every download.
        StorageProblem: The store does not answer.
        StorageFailed: The copy can't be written.
    """
    source = f"{folder}/{name}"
    give_up = time.monotonic() + patience
    with named_storage_errors(f"copy {source} to {destination}"):
        while True:
            before = _version(folder, name)
            if before != complete:
                time.sleep(settle_seconds)
            with private_draft(destination) as draft:
                copied = _download(folder, name, draft, before)
                if _version(folder, name) == before:
                    with replacing(destination, CopyRecord(source, before, copied.sha256)):
                        os.replace(draft, destination)
                    sync_folder(destination.parent)
                    return copied
            if time.monotonic() > give_up:
                raise StillBeingWritten(f"{source} is written again and again: it changed during every download")


def _version(folder: ObjectFolder, name: str) -> FileVersion:
    stored = stat_object(folder.uri, name)
    if stored is None:
        raise NotCopied(f"expected an object at {folder}/{name}, found nothing")
    if not stored.size:
        raise NotCopied(f"{folder}/{name} is empty; expected a header and at least one line")
    return version_of(stored)


def _download(folder: ObjectFolder, name: str, draft: Path, version: FileVersion) -> CopiedFile:
    sha256, size, lines, last = hashlib.sha256(), 0, 0, b"\n"
    with open(draft, "wb") as target:
        for chunk in read_object(folder.uri, name):
            target.write(chunk)
            sha256.update(chunk)
            size += len(chunk)
            lines += chunk.count(b"\n")
            last = chunk[-1:]
        target.flush()
        os.fsync(target.fileno())
    return CopiedFile(f"{folder}/{name}", version, size, lines + (last != b"\n"), sha256.hexdigest())
