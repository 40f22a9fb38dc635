"""Copies the lake into a backup and back: each Delta table as of one version, and the small files beside the tables.

Of a table, the log is copied up to its latest version N, and then the files in its folder: all files that the log names
are written before their commit. Commits after N are left out, so the files of these are not in the table. Older files
that nobody has vacuumed are copied, too; with them, earlier versions can be read.
"""

import json
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dedp_assets.backup.archive import Draft, chunks_of
from dedp_assets.backup.errors import BackupError
from dedp_assets.backup.folders import files_below
from dedp_assets.delta.actions import place_of
from dedp_assets.delta.log_files import LOG, LogNames
from dedp_assets.resources import object_store

_HINT = "_last_checkpoint"
# A cleaned log or a vacuum may take away files of a version while it is copied. The next try copies a later version.
_TRIES = 5


class Found(NamedTuple):
    """A file of a lake: its path below the lake, with `/`, its size in bytes, and its time of modification in ns."""

    path: str
    size: int
    modified_ns: int


class Lake(ABC):
    """The files of a lake, by their paths below it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @abstractmethod
    def files(self, folder: str = "") -> Iterator[Found]:
        """Every file below a folder of the lake; none if there is no such folder."""

    @abstractmethod
    def chunks(self, found: Found) -> Iterator[bytes]:
        """The content of a file. Raises FileNotFoundError if it is gone, or is another one now."""

    @abstractmethod
    def put(self, path: str, source: Path, modified_ns: int) -> None:
        """Write a file, as a whole. `modified_ns` is its time of modification, where others can set that."""


class _Folder(Lake):
    def files(self, folder: str = "") -> Iterator[Found]:
        for path in files_below(Path(self.uri, folder)):
            with suppress(FileNotFoundError):  # it was deleted since it was listed
                status = path.lstat()
                yield Found(path.relative_to(self.uri).as_posix(), status.st_size, status.st_mtime_ns)

    def chunks(self, found: Found) -> Iterator[bytes]:
        return chunks_of(Path(self.uri, found.path))

    def put(self, path: str, source: Path, modified_ns: int) -> None:
        target = Path(self.uri, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        # Delta takes the times of commits without commit information from the files of its log.
        os.utime(target, ns=(modified_ns, modified_ns))


class _ObjectStore(Lake):
    def files(self, folder: str = "") -> Iterator[Found]:
        # Not by a listing below the folder: its pages are asked for with names after which to begin.
        uri = f"{self.uri}/{folder}" if folder else self.uri
        after = ""
        while True:
            page = object_store.list_page(uri, after)
            for name, found in page.objects.items():
                yield Found(f"{folder}/{name}" if folder else name, found.size, found.modified_ns)
                after = name
            if page.is_last:
                return

    def chunks(self, found: Found) -> Iterator[bytes]:
        folder, _, name = f"{self.uri}/{found.path}".rpartition("/")
        now = object_store.stat_object(folder, name)
        if now is None:
            raise FileNotFoundError(f"{self.uri}/{found.path}")
        try:
            yield from object_store.read_object(folder, name, now)
        except object_store.ObjectChanged as error:
            raise FileNotFoundError(f"{self.uri}/{found.path}") from error

    def put(self, path: str, source: Path, modified_ns: int) -> None:
        object_store.upload(self.uri, path, source)


def lake_at(uri: str) -> Lake:
    """The lake in a folder or in an object store."""
    return _ObjectStore(uri) if object_store.is_object_store(uri) else _Folder(uri)


def size_of(lake: Lake) -> int:
    """How many bytes the files of a lake have."""
    return sum(found.size for found in lake.files())


def copy_lake(lake: Lake, part: str, draft: Draft, last: Sequence[str]) -> None:
    """Copy a lake into a backup.

    Args:
        lake: where it is.
        part: the name of its folder in the backup.
        draft: the backup. It is told which tables could not be checked.
        last: the tables from which others are made. They are copied last, in this order, and are then at least as new
            as what was made from them.

    Raises:
        BackupError: files of a table are missing.
    """
    tables, beside = _sorted(lake)
    for found in beside:
        _add(lake, found, part, draft)
    for table in sorted(tables, key=lambda name: (last.index(name) if name in last else -1, name)):
        _copy_table(lake, table, part, draft)


def _sorted(lake: Lake) -> tuple[set[str], list[Found]]:
    """The folders of the tables, and the files that are in none of them."""
    tables = {found.path.partition(f"/{LOG}/")[0] for found in lake.files() if f"/{LOG}/" in found.path}
    is_of_table = re.compile("|".join(re.escape(f"{table}/") for table in tables) or "(?!)")
    return tables, [found for found in lake.files() if not is_of_table.match(found.path)]


class _Vanished(Exception):
    """Files of a version were taken away while it was copied."""


def _copy_table(lake: Lake, table: str, part: str, draft: Draft) -> None:
    for attempt in range(_TRIES):
        try:
            with draft.all_or_nothing(f"{part}/{table}"):
                _copy_log(lake, table, part, draft)
                for found in lake.files(table):
                    if not found.path.startswith(f"{table}/{LOG}/"):
                        _add(lake, found, part, draft)
                _check_copy(lake, table, draft.folder / part / table, draft)
                return
        except (_Vanished, FileNotFoundError) as problem:
            if attempt == _TRIES - 1:
                raise BackupError(
                    f"the table {lake.uri}/{table} can't be copied: {problem} is missing. Is it being vacuumed? Try "
                    "again later; if it stays so, the table is damaged"
                ) from problem


def _copy_log(lake: Lake, table: str, part: str, draft: Draft) -> None:
    """Copy the log up to its latest version."""
    log = {found.path.removeprefix(f"{table}/{LOG}/"): found for found in lake.files(f"{table}/{LOG}")}
    latest = LogNames.of(log).latest
    for name, found in log.items():
        if name == _HINT:
            _copy_hint(lake, found, part, draft, latest)
        elif not _is_draft(name):
            if latest is None:
                raise _Vanished(found.path)
            draft.add(f"{part}/{found.path}", lake.chunks(found), 0o666, found.modified_ns)


def _copy_hint(lake: Lake, found: Found, part: str, draft: Draft, latest: int | None) -> None:
    """Copy the hint at the last checkpoint, unless it is newer than the log was when it was listed."""
    content = b"".join(lake.chunks(found))
    with suppress(ValueError, TypeError, KeyError):
        if int(json.loads(content)["version"]) <= (-1 if latest is None else latest):
            draft.add(f"{part}/{found.path}", [content], 0o666, found.modified_ns)


def _is_draft(name: str) -> bool:
    return name.startswith(("_commit_", ".")) or name.endswith(".tmp")


def _check_copy(lake: Lake, table: str, copy: Path, draft: Draft) -> None:
    """See that the files of the copied version are there. Raises _Vanished if one is missing."""
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        paths: list[str] = pa.table(DeltaTable(str(copy)).get_add_actions())["path"].to_pylist()
    except (DeltaError, OSError) as problem:
        said = object_store.reason(problem)
        draft.left_out.append(f"{lake.uri}/{table} was copied, but deltalake can't read it, nor its copy: {said}")
        return
    for path in paths:
        place = place_of(path, f"{lake.uri}/{table}")
        if place is None:
            draft.left_out.append(f"{path}: this file of the table {lake.uri}/{table} is in another folder")
        elif not (copy / place).exists():
            raise _Vanished(path)


def _add(lake: Lake, found: Found, part: str, draft: Draft) -> None:
    # A file that is gone was replaced, or removed by a vacuum. `_check_copy` sees whether it was needed.
    with suppress(FileNotFoundError):
        draft.add(f"{part}/{found.path}", lake.chunks(found), 0o666, found.modified_ns)
