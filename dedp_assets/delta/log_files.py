"""The files of a table's folder, local or in an object store, and what the file names in its log say.

`actions` reads the content of a commit's file.
"""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs
from deltalake.fs import DeltaStorageHandler

from dedp_assets.delta.problems import unreachable

# The name of the log's folder in the table's folder.
LOG = "_delta_log"

# How many files we read at the same time from an object store.
_AT_ONCE = 16

_CHECKPOINTS = r"checkpoint\..*parquet|checkpoint\..*json"

_Found = TypeVar("_Found")


def commit_file(version: int) -> str:
    """The path of a commit's file inside the table's folder."""
    return f"{LOG}/{version:020}.json"


def commit_version(name: str) -> int | None:
    """The version of a commit, from its file name in the log; None if the file is not a commit."""
    return _version(name, "json")


def version_of(name: str) -> int | None:
    """The version of a commit or of a checkpoint in any form, from its file name in the log; None for other files."""
    return _version(name, rf"json|{_CHECKPOINTS}")


def _version(name: str, kind: str) -> int | None:
    match = re.fullmatch(rf"(\d{{20}})\.(?:{kind})", name)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class LogNames:
    """The file names in a log, with the versions of its commits and of its checkpoints in any form."""

    names: tuple[str, ...]
    commits: frozenset[int]
    checkpoints: frozenset[int]

    @classmethod
    def of(cls, names: Iterable[str]) -> "LogNames":
        """Sort the file names of a log."""
        known = tuple(sorted(names))
        commits = frozenset(found for name in known if (found := commit_version(name)) is not None)
        every = frozenset(found for name in known if (found := _version(name, _CHECKPOINTS)) is not None)
        return cls(known, commits, every)

    @property
    def latest(self) -> int | None:
        """The latest version of the table; None if the log has no commits and no checkpoints."""
        return max(self.commits | self.checkpoints, default=None)

    def checkpoints_up_to(self, version: int) -> list[int]:
        """The versions of the checkpoints up to this version, the newest first."""
        return sorted((found for found in self.checkpoints if found <= version), reverse=True)

    def missing(self, checkpoint: int, version: int) -> list[int]:
        """The versions after a checkpoint (-1: from the beginning) and up to `version` whose commits are missing."""
        return [number for number in range(checkpoint + 1, version + 1) if number not in self.commits]

    def whole_from(self, checkpoint: int | None, version: int) -> list[str]:
        """The files that are enough to read the table as of a version; empty if one of them is missing.

        Args:
            checkpoint: the version of the checkpoint to begin with, or None to begin with the first commit.
            version: the version to read.
        """
        start = -1 if checkpoint is None else checkpoint
        if self.missing(start, version):
            return []
        commits = [f"{number:020}.json" for number in range(start + 1, version + 1)]
        return commits if checkpoint is None else [*self.parts(checkpoint), *commits]

    def parts(self, checkpoint: int) -> list[str]:
        """The names of a checkpoint's files."""
        return [name for name in self.names if name.startswith(f"{checkpoint:020}.checkpoint")]


class Files(ABC):
    """The files of a table's folder, by their paths inside it.

    Every public method raises TableUnreachable if the folder or the store can't be read.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def read(self, path: str) -> bytes | None:
        """The content of a file, or None if there is no such file."""
        found = self._tried(path, lambda: self._read(path, None))
        return found[1] if found else None

    def head(self, path: str, length: int) -> tuple[int, bytes] | None:
        """The size of a file and its first `length` bytes, or None if there is no such file."""
        return self._tried(path, lambda: self._read(path, length))

    def read_all(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        """The contents of files, in order; None for a missing file."""
        return map(self.read, paths)

    def modified(self, path: str) -> datetime | None:
        """When a file was written (UTC), or None if there is no such file."""
        return self._tried(path, lambda: self._modified(path))

    def names(self, folder: str) -> list[str]:
        """The file names in a folder; empty if there is no such folder."""
        return self._tried(folder, lambda: self._names(folder)) or []

    def _tried(self, path: str, work: Callable[[], _Found]) -> _Found | None:
        try:
            return work()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreachable(f"{self.uri}/{path}", error) from error

    # Each of these raises OSError, and FileNotFoundError if there is no such file or folder.

    @abstractmethod
    def _read(self, path: str, length: int | None) -> tuple[int, bytes]:
        """The size of the file, and its first `length` bytes; all bytes if `length` is None."""

    @abstractmethod
    def _modified(self, path: str) -> datetime:
        """When the file was written (UTC)."""

    @abstractmethod
    def _names(self, folder: str) -> list[str]:
        """The names in a folder."""


class LocalFiles(Files):
    """The files of a table in a local folder."""

    def _read(self, path: str, length: int | None) -> tuple[int, bytes]:
        with open(f"{self.uri}/{path}", "rb") as file:
            return os.fstat(file.fileno()).st_size, file.read(length)

    def _modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(os.stat(f"{self.uri}/{path}").st_mtime, timezone.utc)

    def _names(self, folder: str) -> list[str]:
        return os.listdir(f"{self.uri}/{folder}")


class ObjectStoreFiles(Files):
    """The files of a table in an object store, which delta-rs reaches with these storage options."""

    def __init__(self, uri: str, storage_options: dict[str, str] | None) -> None:
        super().__init__(uri)
        self._store = pa.fs.PyFileSystem(DeltaStorageHandler(uri, storage_options))

    def read_all(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(self.read, paths)

    def _read(self, path: str, length: int | None) -> tuple[int, bytes]:
        with self._store.open_input_file(path) as file:
            return file.size(), file.read(length)

    def _modified(self, path: str) -> datetime:
        modified: datetime = self._store.get_file_info(path).mtime
        return modified

    def _names(self, folder: str) -> list[str]:
        found = self._store.get_file_info(pa.fs.FileSelector(folder, allow_not_found=True))
        return [os.path.basename(info.path) for info in found]


def last_checkpoint(files: Files) -> int | None:
    """The version of the last checkpoint according to `_last_checkpoint`; None without a readable file of that name.

    The protocol calls it a hint: that checkpoint may be missing, and there may be a later one.
    """
    content = files.read(f"{LOG}/_last_checkpoint")
    with suppress(ValueError, TypeError, KeyError):
        return int(json.loads(content or b"null")["version"])
    return None
