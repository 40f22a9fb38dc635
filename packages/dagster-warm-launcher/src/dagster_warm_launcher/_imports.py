"""What an import does besides importing: threads that it starts, files that it reads.

Only the standard library is imported here, so that everything else is watched.
"""

from __future__ import annotations

import importlib.machinery
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dagster_warm_launcher import _proc

Signature = tuple[Any, ...] | None
UNTRACKED = ("/proc/", "/sys/", "/dev/")


class WatchedImports:
    """The record of `watched_imports()`.

    Attributes:
        threads: For each module whose import started threads: how many, and the chain of modules that imported it.
        files: For each file and directory that was read: what it was then.
    """

    def __init__(self) -> None:
        self.threads: dict[str, tuple[int, list[str]]] = {}
        self.files: dict[str, Signature] = {}
        self._chain: list[str] = []
        self._counted = 0

    def add_file(self, path: str | None) -> None:
        """Remember a file as it is now, unless it is known."""
        if path and path.startswith("/") and path not in self.files and not path.startswith(UNTRACKED):
            self.files[path] = signature(path)

    def changed_file(self) -> str | None:
        """Return the first file or directory that is not as it was when it was read."""
        return next((path for path, known in self.files.items() if signature(path) != known), None)

    def executing(self, name: str, execute: Callable[[], Any]) -> Any:
        """Execute a module, and charge it with the threads that neither it had before nor its own imports started."""
        self._charge()
        self._chain.append(name)
        try:
            return execute()
        finally:
            self._charge()
            self._chain.pop()

    def _charge(self) -> None:
        now = _proc.threads()
        if self._chain and now > self._counted:
            count, chain = self.threads.get(self._chain[-1], (0, list(self._chain)))
            self.threads[self._chain[-1]] = (count + now - self._counted, chain)
        self._counted = now


def signature(path: str) -> Signature:
    """Return what changes when a file's content or a directory's list of files does; `None` if there is nothing."""
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return tuple(sorted(name for name in os.listdir(path) if name != "__pycache__"))
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


@contextmanager
def watched_imports() -> Iterator[WatchedImports]:
    """Watch what is imported in the block."""
    watched = WatchedImports()
    active = True

    def on_event(event: str, args: tuple[Any, ...]) -> None:
        if not active:
            return
        if event == "open":
            _opened(watched, *args)
        elif event in ("os.listdir", "os.scandir") and args and not _by_import_system():
            watched.add_file(_absolute(args[0] if args[0] is not None else "."))

    # An audit hook can't be removed. When it is not active it costs a call.
    sys.addaudithook(on_event)
    restore = _watch_loaders(watched)
    try:
        yield watched
    finally:
        active = False
        restore()
        # A file that was only there for a moment is not the code's.
        watched.files = {path: known for path, known in watched.files.items() if known is not None}


def _opened(watched: WatchedImports, path: object, mode: str | None, flags: int) -> None:
    absolute = _absolute(path)
    if absolute and flags & os.O_ACCMODE == os.O_RDONLY and not absolute.endswith(".pyc"):
        watched.add_file(absolute)


def _absolute(path: object) -> str | None:
    return os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else None


def _by_import_system() -> bool:
    # Python lists the directories of sys.path. A file that appears beside an imported one is not a change of the code.
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith(("importlib", "_frozen_importlib"))


def _watch_loaders(watched: WatchedImports) -> Callable[[], None]:
    loaders = (importlib.machinery.SourceFileLoader, importlib.machinery.ExtensionFileLoader)
    methods = [(loader, name) for loader in loaders for name in ("create_module", "exec_module")]
    originals = [(loader, name, getattr(loader, name)) for loader, name in methods]

    def watching(original: Any) -> Any:
        def watch(self: Any, subject: Any) -> Any:
            watched.add_file(getattr(self, "path", None))
            # `create_module` gets the spec, `exec_module` the module.
            name = getattr(subject, "__name__", None) or subject.name
            return watched.executing(name, lambda: original(self, subject))

        return watch

    for loader, name, original in originals:
        setattr(loader, name, watching(original))

    def restore() -> None:
        for loader, name, original in originals:
            setattr(loader, name, original)

    return restore
