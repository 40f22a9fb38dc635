"""The files of a table's folder, local or in an object store, and what their names in the log say.

What is in a commit's file is read in `actions`.
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

# The log's folder, in the table's.
LOG = "_delta_log"

# So many files are read at a time from an object store.
_AT_ONCE = 16

_CHECKPOINTS = r"checkpoint\..*parquet|checkpoint\..*json"

_Found = TypeVar("_Found")


def commit_file(version: int) -> str:
    """The path of a commit's file, in the table's folder."""
    return f"{LOG}/{version:020}.json"


def commit_version(name: str) -> int | None:
    """The version of the commit that a file in the log is, by its name; None if it is none."""
    return _version(name, "json")


def version_of(name: str) -> int | None:
    """The version that a file in the log belongs to, by its name: of a commit, or of a checkpoint in any form."""
    return _version(name, rf"json|{_CHECKPOINTS}")


def _version(name: str, kind: str) -> int | None:
    match = re.fullmatch(rf"(\d{{20}})\.(?:{kind})", name)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class LogNames:
    """The names in a log, its commits, and its checkpoints in whatever form."""

    names: tuple[str, ...]
    commits: frozenset[int]
    checkpoints: frozenset[int]

    @classmethod
    def of(cls, names: Iterable[str]) -> "LogNames":
        known = tuple(sorted(names))
        commits = frozenset(found for name in known if (found := commit_version(name)) is not None)
        every = frozenset(found for name in known if (found := _version(name, _CHECKPOINTS)) is not None)
        return cls(known, commits, every)

    @property
    def latest(self) -> int | None:
        """The table's latest version; None for a log without commits and checkpoints."""
        return max(self.commits | self.checkpoints, default=None)

    def checkpoints_up_to(self, version: int) -> list[int]:
        """The versions of the checkpoints up to this one, the newest first."""
        return sorted((found for found in self.checkpoints if found <= version), reverse=True)

    def missing(self, checkpoint: int, version: int) -> list[int]:
        """The commits after a checkpoint, up to a version, that are not there; -1 for from the beginning on."""
        return [number for number in range(checkpoint + 1, version + 1) if number not in self.commits]

    def whole_from(self, checkpoint: int | None, version: int) -> list[str]:
        """The files from which alone the table can be read as of a version; none if one of them is missing."""
        start = -1 if checkpoint is None else checkpoint
        if self.missing(start, version):
            return []
        commits = [f"{number:020}.json" for number in range(start + 1, version + 1)]
        return commits if checkpoint is None else [*self.parts(checkpoint), *commits]

    def parts(self, checkpoint: int) -> list[str]:
        """The names of a checkpoint's files."""
        return [name for name in self.names if name.startswith(f"{checkpoint:020}.checkpoint")]


class Files(ABC):
    """The files of a table's folder, by their paths in it.

    Every method raises TableProblem if the folder or the store can't be read.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def read(self, path: str) -> bytes | None:
        """The file's content, or None if it is not there."""
        found = self._tried(path, lambda: self._read(path, None))
        return found[1] if found else None

    def head(self, path: str, length: int) -> tuple[int, bytes] | None:
        """The file's size and so many bytes from its beginning, or None if it is not there."""
        return self._tried(path, lambda: self._read(path, length))

    def read_all(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        """The contents of files, in order; None for one that is not there."""
        return map(self.read, paths)

    def modified(self, path: str) -> datetime | None:
        """When the file was written (UTC), or None if it is not there."""
        return self._tried(path, lambda: self._modified(path))

    def names(self, folder: str) -> list[str]:
        """The names in a folder; none if it is not there."""
        return self._tried(folder, lambda: self._names(folder)) or []

    def _tried(self, path: str, work: Callable[[], _Found]) -> _Found | None:
        try:
            return work()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreachable(f"{self.uri}/{path}", error) from error

    # Each of these raises OSError, FileNotFoundError for what is not there.

    @abstractmethod
    def _read(self, path: str, length: int | None) -> tuple[int, bytes]:
        """The file's size, and so many bytes from its beginning; all with None."""

    @abstractmethod
    def _modified(self, path: str) -> datetime:
        """When the file was written (UTC)."""

    @abstractmethod
    def _names(self, folder: str) -> list[str]:
        """The names in a folder."""


class LocalFiles(Files):
    """Of a folder."""

    def _read(self, path: str, length: int | None) -> tuple[int, bytes]:
        with open(f"{self.uri}/{path}", "rb") as file:
            return os.fstat(file.fileno()).st_size, file.read(length)

    def _modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(os.stat(f"{self.uri}/{path}").st_mtime, timezone.utc)

    def _names(self, folder: str) -> list[str]:
        return os.listdir(f"{self.uri}/{folder}")


class ObjectStoreFiles(Files):
    """Of an object store, with delta-rs' storage options for it."""

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
        return self._store.get_file_info(path).mtime

    def _names(self, folder: str) -> list[str]:
        found = self._store.get_file_info(pa.fs.FileSelector(folder, allow_not_found=True))
        return [os.path.basename(info.path) for info in found]


def last_checkpoint(files: Files) -> int | None:
    """The version of the last checkpoint, as the log's hint has it; None without a hint that can be read.

    By the protocol it is only a hint: the checkpoint need not be there, and there may be a later one.
    """
    content = files.read(f"{LOG}/_last_checkpoint")
    with suppress(ValueError, TypeError, KeyError):
        return int(json.loads(content or b"null")["version"])
    return None
