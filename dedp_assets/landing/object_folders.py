"""Watched directories in an object store: the same rules as for folders, by listing and by download.

An object is never half there: a store shows it when it is whole. Its version is its size, its time and its ETag. Stores
tell the time in whole seconds, and the ETag tells apart what is written within one of them.
"""

import hashlib
import os
import threading
import time
from pathlib import Path

from dedp_assets.errors import DedpError, ErrorNote
from dedp_assets.landing.copies import CopyRecord, named_storage_errors, replacing
from dedp_assets.landing.copying import CopiedFile, NotCopied, StillBeingWritten, private_draft, sync_folder
from dedp_assets.landing.directories import NOTHING, Directory, ObjectFolder, Scan, scan_directory
from dedp_assets.landing.object_listing import Listing, NoOrder
from dedp_assets.landing.versions import FileVersion
from dedp_assets.resources.object_store import (
    PAGE,
    ObjectChanged,
    Page,
    StoredObject,
    list_objects,
    list_page,
    lists_from_a_name,
    read_object,
    stat_object,
)


def version_of(stored: StoredObject) -> FileVersion:
    """The version of an object. Stores know one time, and in place of an inode stands a number made of the ETag."""
    number = int.from_bytes(hashlib.blake2b(stored.etag.encode(), digest_size=7).digest(), "big") if stored.etag else 0
    return FileVersion(stored.size, stored.modified_ns, stored.modified_ns, number)


class AnyFolders:
    """Scans folders wherever they are. Keep one: it remembers large prefixes of object stores, to list them in part.

    Only where that is safe: of a store that lists by name and from a name on, without folders below the prefix, and
    without markers, which say nothing of a file that was listed at another time.
    """

    def __init__(self) -> None:
        self._remembered: dict[str, _Remembered] = {}

    def scan(self, directory: Directory) -> Scan:
        """Scan a directory. A prefix below which nothing lies is an empty directory."""
        if not isinstance(directory.path, ObjectFolder):
            return scan_directory(directory)
        remembered = self._remembered.setdefault(directory.path.uri, _Remembered(directory.path.uri))
        try:
            found = remembered.objects(directory)
        except DedpError as error:
            return Scan(failure=ErrorNote(error))
        return _scan_of(directory, found)


class _Remembered:
    """What is known of one prefix."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._listing: Listing | None = None

    def objects(self, directory: Directory) -> dict[str, StoredObject]:
        # Whoever tries the sensor by hand scans beside the daemon.
        with self._lock:
            if self._listing is not None and directory.completeness != "marker":
                try:
                    self._listing.refresh(self._page, time.monotonic(), directory.settle_seconds)
                except NoOrder:
                    self._listing = None
                else:
                    return dict(self._listing.objects)
            objects, has_folders = list_objects(self._uri)
            is_large = len(objects) > PAGE
            if is_large and not has_folders and lists_from_a_name(self._uri) and list(objects) == sorted(objects):
                self._listing = Listing(objects, time.monotonic())
            return objects

    def _page(self, after: str) -> Page:
        return list_page(self._uri, after)


def scan_anywhere(directory: Directory) -> Scan:
    """Scan a directory, wherever it is, with all that lies there now."""
    return AnyFolders().scan(directory)


def _scan_of(directory: Directory, found: dict[str, StoredObject]) -> Scan:
    files = {name: version_of(stored) for name, stored in found.items() if directory.pattern_of(name)}
    markers = {}
    if directory.completeness == "marker":
        markers = {name: stored.modified_ns for name, stored in found.items() if directory.is_marker(name)}
        files = {name: version for name, version in files.items() if name not in markers}
    return Scan(files, markers) if files or markers else NOTHING


def sha256_of_object(folder: ObjectFolder, name: str) -> str | None:
    """The SHA-256 of an object's content, or None if it can't be read or changes meanwhile."""
    sha256 = hashlib.sha256()
    try:
        stored = stat_object(folder.uri, name)
        if stored is None:
            return None
        for part in read_object(folder.uri, name, stored):
            sha256.update(part)
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
        StillBeingWritten: It changed during every download. What is copied is always one version, never a mixture.
        StorageProblem: The store does not answer.
        StorageFailed: The copy can't be written.
    """
    source = f"{folder}/{name}"
    give_up = time.monotonic() + patience
    with named_storage_errors(f"copy {source} to {destination}"):
        while True:
            stored = _stored(folder, name)
            if version_of(stored) != complete:
                time.sleep(settle_seconds)
            try:
                with private_draft(destination) as draft:
                    copied = _download(folder, name, draft, stored)
                    with replacing(destination, CopyRecord(source, copied.version, copied.sha256)):
                        os.replace(draft, destination)
                    sync_folder(destination.parent)
                    return copied
            except ObjectChanged:
                if time.monotonic() > give_up:
                    raise StillBeingWritten(
                        f"{source} is written again and again: it changed during every download"
                    ) from None


def _stored(folder: ObjectFolder, name: str) -> StoredObject:
    stored = stat_object(folder.uri, name)
    if stored is None:
        raise NotCopied(f"expected an object at {folder}/{name}, found nothing")
    if not stored.size:
        raise NotCopied(f"{folder}/{name} is empty; expected a header and at least one line")
    return stored


def _download(folder: ObjectFolder, name: str, draft: Path, stored: StoredObject) -> CopiedFile:
    sha256, lines, last = hashlib.sha256(), 0, b"\n"
    with open(draft, "wb") as target:
        for part in read_object(folder.uri, name, stored):
            target.write(part)
            sha256.update(part)
            lines += part.count(b"\n")
            last = part[-1:]
        target.flush()
        os.fsync(target.fileno())
    version = version_of(stored)
    return CopiedFile(f"{folder}/{name}", version, stored.size, lines + (last != b"\n"), sha256.hexdigest())
