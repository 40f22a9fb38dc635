"""Copies folders into a backup: our own files, which are replaced as a whole, and landed files, which others write."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from dedp_assets.backup.archive import Draft, chunks_of
from dedp_assets.landing.copies import lock_of
from dedp_assets.landing.versions import DRAFT_ENDINGS, FileVersion

_LOCK = ".lock"
# How long to wait for a landed file that is being written, in s.
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.2


def size_of(root: Path, is_skipped: Callable[[Path], bool] = lambda _: False) -> int:
    """How many bytes the files below a folder have; 0 if it does not exist."""
    return sum(path.lstat().st_size for folder in _folders(root, is_skipped) for path in _files(folder, is_skipped))


def copy_own(root: Path, part: str, draft: Draft, is_skipped: Callable[[Path], bool] = lambda _: False) -> None:
    """Copy a folder of ours. A copy of a landed file and the record beside it are copied under their lock.

    Args:
        root: the folder; it may not exist.
        part: the name of its folder in the backup.
        draft: the backup.
        is_skipped: whether to leave out a file, or a folder with all that is in it.
    """
    for folder in _folders(root, is_skipped):
        with ExitStack() as held:
            # Whoever writes here makes the lock first. A folder without it has no content that needs one.
            if (folder / _LOCK).exists():
                held.enter_context(lock_of(folder))
            for path in _files(folder, is_skipped):
                _copy(path, root, part, draft)


def copy_landed(
    root: Path,
    part: str,
    draft: Draft,
    settle_seconds: float,
    patience_seconds: float = _PATIENCE_SECONDS,
) -> None:
    """Copy a folder that others write to. A file that is being written is waited for, or left out: no half file stays.

    Args:
        root: the folder; it may not exist.
        part: the name of its folder in the backup.
        draft: the backup. It is told what was left out.
        settle_seconds: how long a file must not have changed, in s.
        patience_seconds: how long to wait for all such files together, in s.
    """
    restless = [
        path
        for folder in _folders(root, lambda _: False)
        for path in _files(folder, _is_draft)
        if not _copy_at_rest(path, root, part, draft, settle_seconds)
    ]
    give_up = time.monotonic() + patience_seconds
    while restless and time.monotonic() < give_up:
        time.sleep(_PAUSE_SECONDS)
        restless = [path for path in restless if not _copy_at_rest(path, root, part, draft, settle_seconds)]
    draft.left_out += [f"{path}: it is still being written; deliver it again after a restore" for path in restless]


def _copy_at_rest(path: Path, root: Path, part: str, draft: Draft, settle_seconds: float) -> bool:
    """Copy a file if it is at rest. Returns False if it is not, and True also if there is no such file any more."""
    try:
        before = FileVersion.of(path.lstat())
    except FileNotFoundError:
        return True
    ages = (time.time() - changed_ns / 1e9 for changed_ns in (before.modified_ns, before.changed_ns))
    if any(abs(age) < settle_seconds for age in ages):  # clocks differ a little
        return False

    def content() -> Iterator[bytes]:
        yield from chunks_of(path)
        if FileVersion.of(path.lstat()) != before:
            raise _Changed

    try:
        _copy(path, root, part, draft, content)
    except _Changed:
        return False
    return True


class _Changed(Exception):
    """A file was written to while it was copied."""


def _copy(
    path: Path, root: Path, part: str, draft: Draft, content: Callable[[], Iterator[bytes]] | None = None
) -> None:
    try:
        status = path.lstat()
        target = f"{part}/{path.relative_to(root).as_posix()}"
        draft.add(target, content() if content else chunks_of(path), stat.S_IMODE(status.st_mode), status.st_mtime_ns)
    except FileNotFoundError:
        pass  # it was deleted, or replaced by another name, since it was listed


def _folders(root: Path, is_skipped: Callable[[Path], bool]) -> Iterator[Path]:
    for folder, below, _ in os.walk(root):  # links are not followed
        below[:] = sorted(name for name in below if not is_skipped(Path(folder, name)))
        yield Path(folder)


def _files(folder: Path, is_skipped: Callable[[Path], bool]) -> Iterator[Path]:
    """The regular files in a folder, without our locks and drafts."""
    try:
        with os.scandir(folder) as found:
            names = sorted(each.name for each in found if each.is_file(follow_symlinks=False))
    except FileNotFoundError:
        return
    for name in names:
        is_own_draft = name.startswith(".") and name.endswith(".part")
        if name != _LOCK and not is_own_draft and not is_skipped(folder / name):
            yield folder / name


def _is_draft(path: Path) -> bool:
    return path.name.endswith(DRAFT_ENDINGS)
