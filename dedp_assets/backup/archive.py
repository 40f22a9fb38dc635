"""The folder of a backup: its files, a list of them with their SHA-256, and the manifest, which is written last.

    manifest.json     what the backup is, and the SHA-256 of the list
    manifest.sha256   that of manifest.json, as `sha256sum --check` reads it
    files.jsonl       a line for each file
    postgres.dump     the database
    home/ internal/ lake/ landing/ logs/

A backup is written under another name, `DIR.part`, and renamed when it is complete and on the disk. So a folder with
the name DIR is a whole backup, also if the process or the machine dies at any moment.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from dedp_assets.backup.errors import BackupError
from dedp_assets.landing.copying import sync_folder
from dedp_assets.whole_files import write_whole
from dedp_assets.wording import printable

# Raised when a restore has to do more than this version knows.
FORMAT = 1

DUMP = "postgres.dump"
_MANIFEST, _LIST = "manifest.json", "files.jsonl"
_SUM = "manifest.sha256"  # missing in backups of version 0.1.0
# The root of some file systems has this folder, which is nobody's.
LOST_AND_FOUND = "lost+found"
_CHUNK_BYTES = 1 << 20


class Entry(NamedTuple):
    """A file of a backup.

    Attributes:
        path: its path in the backup, with `/`.
        size: in bytes.
        sha256: of its content.
        mode: its permissions.
        modified_ns: its time of modification, in ns since the epoch.
    """

    path: str
    size: int
    sha256: str
    mode: int
    modified_ns: int


@dataclass(frozen=True)
class Manifest:
    """What a backup is.

    Attributes:
        made_at: when it was begun: ISO 8601, UTC.
        versions: of dedp, Dagster and the PostgreSQL server. The last is a number such as 180004.
        migrations: the file names of each pipeline's migrations that the database has.
        schemas: the schemas of the database.
        parts: the folders of this backup.
        database_bytes: how large the database was.
        files: how many files there are.
        bytes: how large they are together.
        left_out: what is not in the backup although it might be expected, in words.
        list_sha256: of the list of the files.
        format: of the backup.
    """

    made_at: str
    versions: dict[str, Any]
    migrations: dict[str, list[str]]
    schemas: list[str]
    parts: list[str]
    database_bytes: int
    files: int = 0
    bytes: int = 0
    left_out: list[str] = field(default_factory=list)
    list_sha256: str = ""
    format: int = FORMAT


class Draft:
    """A backup that is being written. Only `finish` makes it one."""

    def __init__(self, folder: Path, listed: BinaryIO) -> None:
        self.folder, self._list = folder, listed
        self.files, self.bytes = 0, 0
        self.left_out: list[str] = []

    def add(self, path: str, chunks: Iterable[bytes], mode: int, modified_ns: int) -> None:
        """Write a file of the backup.

        Args:
            path: its path in the backup.
            chunks: its content. If this raises an error, no part of the file stays.
            mode: the permissions of the original.
            modified_ns: when the original was modified, in ns since the epoch.
        """
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        try:
            with open(target, "xb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
        except BaseException as error:
            target.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno and error.filename is None:
                error.filename = str(target)  # a write does not say to which file
            raise
        self._note(Entry(path, size, digest.hexdigest(), mode, modified_ns))

    def adopt(self, path: str) -> None:
        """Take in a file that somebody else has written into the folder of the backup."""
        status = (self.folder / path).stat()
        size, sha256 = _measure(self.folder / path)
        self._note(Entry(path, size, sha256, 0o600, status.st_mtime_ns))

    @contextmanager
    def all_or_nothing(self, folder: str) -> Iterator[None]:
        """Write a folder of the backup. If the block raises an error, the backup is as it was before."""
        before = self._list.tell(), self.files, self.bytes, len(self.left_out)
        try:
            yield
        except BaseException:
            shutil.rmtree(self.folder / folder, ignore_errors=True)
            self._list.seek(before[0])
            self._list.truncate()
            self.files, self.bytes = before[1:3]
            del self.left_out[before[3] :]
            raise

    def _note(self, entry: Entry) -> None:
        self._list.write(json.dumps(entry._asdict()).encode() + b"\n")
        self.files += 1
        self.bytes += entry.size

    def finish(self, manifest: Manifest) -> Manifest:
        """Write the list and the manifest, after everything else is on the disk."""
        self._list.flush()
        os.sync()
        _, list_sha256 = _measure(self.folder / _LIST)
        complete = Manifest(
            **{
                **asdict(manifest),
                "files": self.files,
                "bytes": self.bytes,
                "left_out": self.left_out,
                "list_sha256": list_sha256,
            }
        )
        content = json.dumps(asdict(complete), indent=2).encode()
        write_whole(self.folder / _SUM, f"{hashlib.sha256(content).hexdigest()}  {_MANIFEST}\n".encode())
        write_whole(self.folder / _MANIFEST, content)
        return complete


@contextmanager
def drafting(target: Path) -> Iterator[Draft]:
    """Write a backup. It gets its name when the block ends without an error; with one, nothing of it stays.

    Args:
        target: the folder of the backup. It must not exist, or be empty.

    Raises:
        BackupError: there is something, or another process is writing a backup there.
    """
    if target.is_mount():
        raise BackupError(
            f"a disk is mounted at {target}, and a backup is renamed when it is whole; name a folder in it"
        )
    draft = target.with_name(f"{target.name}.part")
    with _lock_beside(target):
        check_is_empty(target, "the folder of the backup")
        if draft.exists():
            shutil.rmtree(draft)  # of a process that was killed
        before = os.umask(0o077)  # a backup has everything that the database has
        try:
            draft.mkdir(parents=True)
            try:
                with open(draft / _LIST, "xb") as listed:
                    yield Draft(draft, listed)
                sync_folder(draft)
                os.rename(draft, target)
                sync_folder(target.parent)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        finally:
            os.umask(before)


@contextmanager
def _lock_beside(target: Path) -> Iterator[None]:
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.lock")
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(
                f"another process is writing a backup to {target}; wait for it, or choose another folder"
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def check_is_empty(folder: Path, what: str) -> None:
    """Raise BackupError if there is something in a folder, or if it is none. It may be missing."""
    try:
        with os.scandir(folder) as found:
            first = next((each for each in found if each.name != LOST_AND_FOUND), None)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise BackupError(f"{what}, {folder}, is a file; name a folder that is empty, or does not exist") from None
    if first is not None:
        raise BackupError(
            f"{what}, {folder}, is not empty: it has {printable(first.name)}, for example. Name a folder that is empty "
            "or does not exist"
        )


def read_manifest(folder: Path) -> Manifest:
    """Read what a backup is, and check its list of files.

    Raises:
        BackupError: the folder is no whole backup, its manifest or its list is damaged, or a newer version has made it.
    """
    try:
        content = (folder / _MANIFEST).read_bytes()
    except FileNotFoundError:
        hint = "it was not completed; make another one" if folder.name.endswith(".part") else "name another folder"
        raise BackupError(f"{folder} is no backup: it has no {_MANIFEST}; {hint}") from None
    sha256 = hashlib.sha256(content).hexdigest().encode()
    if (folder / _SUM).exists() and not (folder / _SUM).read_bytes().startswith(sha256):
        raise _damaged(folder / _MANIFEST, f"its SHA-256 is not the one in {_SUM}")
    try:
        stored = json.loads(content)
    except ValueError:
        raise _damaged(folder / _MANIFEST, "it is not JSON") from None
    if not isinstance(stored, dict) or not isinstance(stored.get("format"), int):
        raise _damaged(folder / _MANIFEST, "it has no format")
    if stored["format"] > FORMAT:
        raise BackupError(
            f"a newer version has made the backup {folder}: it has format {stored['format']}, and this version knows "
            f"{FORMAT}; update this installation"
        )
    try:
        known = {each.name for each in fields(Manifest)}  # a later version may have added some
        manifest = Manifest(**{name: value for name, value in stored.items() if name in known})
    except TypeError as error:
        raise _damaged(folder / _MANIFEST, str(error)) from None
    if not (folder / _LIST).exists() or _measure(folder / _LIST)[1] != manifest.list_sha256:
        raise _damaged(folder / _LIST, "it is not what was written")
    return manifest


def entries(folder: Path) -> Iterator[Entry]:
    """The files of a backup, as its list names them.

    Raises:
        BackupError: one has a path that leads out of the backup.
    """
    with open(folder / _LIST, "rb") as stream:
        for line in stream:
            entry = Entry(**json.loads(line))
            path = PurePosixPath(entry.path)
            if path.is_absolute() or ".." in path.parts:
                raise _damaged(folder / _LIST, f"it names {entry.path!r}")
            yield entry


def verify(folder: Path) -> None:
    """Read every file of a backup.

    Raises:
        BackupError: a file is missing, or is not what was written. The message names it.
    """
    for entry in entries(folder):
        path = folder / entry.path
        try:
            found = _measure(path)
        except OSError as error:
            raise _damaged(path, error.strerror or str(error)) from None
        if found != (entry.size, entry.sha256):
            raise _damaged(
                path,
                f"it has {found[0]} bytes with SHA-256 {found[1][:12]}; {entry.size} bytes with "
                f"{entry.sha256[:12]} were written",
            )


def chunks_of(path: Path) -> Iterator[bytes]:
    """The content of a regular file, in parts. A link is an error, and so is anything else that is no file."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _measure(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks_of(path):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def _damaged(path: Path, why: str) -> BackupError:
    return BackupError(
        f"the backup is damaged: {printable(str(path))}: {why}. Nothing was restored; use another backup"
    )
