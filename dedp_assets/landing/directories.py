"""Many directories that files arrive in: what lies in each of them now.

A directory that can't be read, or does not answer at all (a network mount whose server is gone), costs the others
nothing: it is reported, and the scan goes on without it.
"""

import os
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import translate
from functools import cache, cached_property
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple
from zlib import crc32

from dedp_assets.errors import ErrorNote
from dedp_assets.landing.versions import DRAFT_ENDINGS, FileVersion
from dedp_assets.wording import shown_name

# When a file counts as complete:
# settled: we have seen it unchanged for `settle_seconds`.
# marker: a marker file that is not older than the file says so.
# renamed: at first sight. Its writer promises to write under a draft's name, or elsewhere, and to rename.
Completeness = Literal["settled", "marker", "renamed"]


@dataclass(frozen=True)
class ObjectFolder:
    """What is below a prefix in an object store, up to the next slash. `uri`: without a slash at its end."""

    uri: str

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True)
class Directory:
    """One watched directory.

    Attributes:
        client: Whose directory it is. A client has one directory, and a directory one client.
        path: Where it is: a folder, or a prefix in an object store.
        patterns: Shell patterns of the names of files to take, such as `*.csv`. The first that matches counts.
        completeness: When a file is complete.
        settle_seconds: For `settled`: how long a file must have been seen unchanged, in s.
        marker: For `marker`: the name of the marker. `_SUCCESS` is one for all files; in `{file}.done`, `{file}` stands
            for the name of the file that it is for.
        priority: Of several complete files, those of a higher priority are taken first.
        timeout_seconds: Report the directory when nothing has arrived for so long, in s. None: never.
        gives_up: Whether the directory is not watched any more after that.
    """

    client: str
    path: Path | ObjectFolder
    patterns: tuple[str, ...] = ("*.csv",)
    completeness: Completeness = "settled"
    settle_seconds: float = 2.0
    marker: str = "_SUCCESS"
    priority: int = 0
    timeout_seconds: float | None = None
    gives_up: bool = False

    def pattern_of(self, name: str) -> str | None:
        """The pattern that a file's name matches, or None if the file is not meant to be taken."""
        if name.startswith(".") or name.endswith(DRAFT_ENDINGS):
            return None
        match = _matcher(self.patterns)(name)
        return self.patterns[(match.lastindex or 1) - 1] if match else None

    def marker_of(self, name: str) -> str:
        """The name of the marker that says that a file is complete."""
        return self.marker.replace("{file}", name)

    @cached_property
    def key(self) -> str:
        """A short name for the directory and its settings. New settings make a new key, and so a new beginning."""
        settings = (self.client, str(self.path), self.patterns, self.timeout_seconds, self.gives_up)
        return blake2b(repr(settings).encode(errors="surrogateescape"), digest_size=6).hexdigest()

    @cached_property
    def place(self) -> str:
        """Its path as text, which the system takes faster."""
        return str(self.path)

    @cached_property
    def marker_ending(self) -> str | None:
        """How the names of the markers end if each file has its own; None if there is one for all."""
        _, braces, ending = self.marker.partition("{file}")
        return ending if braces else None

    def is_marker(self, name: str) -> bool:
        """Whether a name is that of a marker."""
        return name == self.marker if self.marker_ending is None else name.endswith(self.marker_ending)


@cache
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    # One group for each pattern: which one has matched tells the pattern.
    return re.compile("|".join(f"({translate(pattern)})" for pattern in patterns)).match


class Scan(NamedTuple):
    """What a directory held when it was scanned.

    Attributes:
        files: The version of each file whose name matches a pattern, by name.
        markers: When each marker was changed last, in ns since the epoch, by name.
        problems: What is wrong with single files, in words.
        failure: Why the directory could not be scanned, in words, or "". An `ErrorNote`, unless it just is not there.
    """

    files: Mapping[str, FileVersion] = MappingProxyType({})
    markers: Mapping[str, int] = MappingProxyType({})
    problems: tuple[str, ...] = ()
    failure: str = ""


# The scan of a directory in which nothing lies that matters.
NOTHING = Scan()
# The scan of a directory whose files are all as they were before. To keep the files of thousands of such directories
# takes longer than to list them.
UNCHANGED = Scan(files=MappingProxyType({}))


def _never(directory: Directory, scan: Scan) -> bool:
    return False


def scan_directory(directory: Directory) -> Scan:
    """List one directory. What is wrong with one file hides no other file.

    Args:
        directory: The directory, which need not exist.

    Returns:
        Its files, or why it can't be read.
    """
    if isinstance(directory.path, ObjectFolder):
        raise TypeError(f"{directory.path} is no folder")
    try:
        entries = os.scandir(directory.place)
        first = next(entries, None)
        if first is None:
            return NOTHING  # as most of thousands of directories; at its end a scan is closed
        with entries:
            return _listed(directory, directory.path, chain([first], entries))
    except FileNotFoundError:
        return Scan(failure=f"{directory.path} does not exist")
    except OSError as error:
        return Scan(failure=ErrorNote(f"{directory.path} can't be read: {error.strerror}"))


def _listed(directory: Directory, folder: Path, entries: Iterable[os.DirEntry[str]]) -> Scan:
    files: dict[str, FileVersion] = {}
    markers: dict[str, int] = {}
    problems: list[str] = []
    has_markers = directory.completeness == "marker"
    matches = _matcher(directory.patterns)
    for entry in entries:
        name = entry.name
        if has_markers and directory.is_marker(name):
            with suppress(FileNotFoundError):  # deleted a moment ago, or a link to nothing
                markers[name] = entry.stat().st_ctime_ns
        elif not name.startswith(".") and not name.endswith(DRAFT_ENDINGS) and matches(name):
            try:
                status = entry.stat()
                problem = _problem(entry, status, folder)
            except OSError as error:
                # A file that has just been deleted or renamed is no problem; a link to nothing is.
                problem = _problem_of_broken(entry, error)
            else:
                if not problem:
                    files[name] = FileVersion.of(status)
            if problem:
                problems.append(f"{shown_name(name)} {problem}")
    return Scan(files, markers, tuple(problems)) if files or markers or problems else NOTHING


def _problem(entry: os.DirEntry[str], status: os.stat_result, root: Path) -> str:
    """Why a file can't be taken, or "". A folder is no file, and nobody expects it to be taken."""
    name = entry.name
    if not name.isascii() and not is_text(name):
        return "has a name that is not UTF-8; rename it"
    if entry.is_symlink() and not _leads_inside(Path(entry.path), root):
        return f"is a link that leads out of {root}; put the file itself there"
    if stat.S_ISREG(status.st_mode):
        return ""
    return "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file"


def _problem_of_broken(entry: os.DirEntry[str], error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is a link to nothing" if os.path.islink(entry.path) else ""
    return f"can't be read: {error.strerror}"


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8. Other names can't be stored in a table or in a run's config."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leads_inside(link: Path, root: Path) -> bool:
    return link.resolve().is_relative_to(root.resolve())


class Scanner:
    """Scans directories one after the other, and leaves those behind that do not answer.

    Nothing can end a thread that hangs in the file system. So the thread stays, and its directory counts as failing
    until the thread returns; other threads scan the rest. Keep one scanner for the life of the process.

    Args:
        scan: Scans one directory.
        patience_seconds: A directory that does not answer for so long is left behind, in s. An object store gets five
            times as long: it lists 1,000 objects per request.
    """

    def __init__(self, scan: Callable[[Directory], Scan] = scan_directory, patience_seconds: float = 2.0) -> None:
        self._scan, self._patience_seconds = scan, patience_seconds
        self._stuck: dict[Path | ObjectFolder, _Worker] = {}

    def scan_all(
        self,
        directories: Iterable[Directory],
        budget_seconds: float = 20.0,
        is_unchanged: Callable[[Directory, Scan], bool] = _never,
    ) -> dict[str, Scan]:
        """Scan directories, in this order.

        Args:
            directories: What to scan.
            budget_seconds: Stop after so long, in s.
            is_unchanged: Whether the files of a directory are as they were before. Threads call it.

        Returns:
            What was found, by client: UNCHANGED if the files are as they were before. A client whose directory was not
            reached in time is missing.
        """
        self._stuck = {path: worker for path, worker in self._stuck.items() if worker.is_alive()}
        found: dict[str, Scan] = {}
        queue = deque(directories)
        if self._stuck:
            for directory in [each for each in queue if each.path in self._stuck]:
                found[directory.client] = self._does_not_answer(directory)
            queue = deque(each for each in queue if each.path not in self._stuck)
        began = time.monotonic()
        workers = [_Worker(self._scan, is_unchanged, queue)]
        # One is enough as long as all directories answer.
        workers[0].start()
        while workers:
            workers[0].join(timeout=min(0.2, self._patience_seconds / 4))
            for worker in [worker for worker in workers if not worker.is_alive()]:
                found |= worker.found
                workers.remove(worker)
            is_over = time.monotonic() - began > budget_seconds
            if is_over:
                queue.clear()
            for worker in list(workers):
                silent = worker.stuck_on(self._patience_with)
                if silent is not None:
                    found |= worker.abandon()
                    found[silent.client] = self._does_not_answer(silent)
                    self._stuck[silent.path] = worker
                    workers.remove(worker)
                    # Twice as many each time: a mount with hundreds of directories hangs for all of them.
                    for _ in range(2 if queue else 0):
                        workers.append(_Worker(self._scan, is_unchanged, queue))
                        workers[-1].start()
        return found

    def _does_not_answer(self, directory: Directory) -> Scan:
        where = "store" if isinstance(directory.path, ObjectFolder) else "mount"
        seconds = self._patience_with(directory)
        return Scan(failure=ErrorNote(f"{directory.path} has not answered for {seconds:g} s; is its {where} alive?"))

    def _patience_with(self, directory: Directory) -> float:
        return self._patience_seconds * (5 if isinstance(directory.path, ObjectFolder) else 1)


class _Worker(threading.Thread):
    """Scans directories from a queue that it shares with other workers."""

    def __init__(
        self,
        scan: Callable[[Directory], Scan],
        is_unchanged: Callable[[Directory, Scan], bool],
        queue: deque[Directory],
    ) -> None:
        super().__init__(name="directory scan", daemon=True)
        self.found: dict[str, Scan] = {}
        self._scan, self._is_unchanged, self._queue = scan, is_unchanged, queue
        self._current: tuple[Directory, float] | None = None
        self._is_abandoned = False

    def run(self) -> None:
        scan, is_unchanged, next_of = self._scan, self._is_unchanged, self._queue.popleft
        found, now = self.found, time.monotonic
        while not self._is_abandoned:
            try:
                directory = next_of()
            except IndexError:
                break
            self._current = directory, now()
            scanned = scan(directory)
            if scanned.files and is_unchanged(directory, scanned):
                scanned = UNCHANGED
            if not self._is_abandoned:
                found[directory.client] = scanned
        self._current = None

    def stuck_on(self, patience_with: Callable[[Directory], float]) -> Directory | None:
        """The directory that has not answered for longer than our patience with it, if there is one."""
        current = self._current
        if current is None or time.monotonic() - current[1] < patience_with(current[0]):
            return None
        return current[0]

    def abandon(self) -> dict[str, Scan]:
        """Do not scan any more after the directory that is being scanned. Returns what was found before."""
        self._is_abandoned = True
        return dict(self.found)


def digest_of(files: Mapping[str, FileVersion], without: Iterable[str] = ()) -> int:
    """A number of 64 bits that changes when any of the files does, whatever their order.

    It may differ between releases of Python. Then each directory is compared once more, which changes nothing.

    Args:
        files: The files by name.
        without: Names to leave out.
    """
    left_out, total = set(without), 0
    for name, version in files.items():
        if name not in left_out:
            # hash() of numbers is the same in every process; of text it is not.
            total += hash((crc32(name.encode("utf-8", "surrogateescape")), *version))
    return total & 0xFFFFFFFFFFFFFFFF
