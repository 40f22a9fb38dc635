"""Copies folders into a backup: our own files, which are replaced as a whole, and landed files, which others write."""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeAlias

from dedp_assets.backup.archive import LOST_AND_FOUND, Draft, chunks_of
from dedp_assets.landing.copies import lock_of
from dedp_assets.landing.versions import DRAFT_ENDINGS, FileVersion

IsSkipped: TypeAlias = Callable[[Path], bool]

_LOCK = ".lock"
# How long to wait for a landed file that is being written, in s.
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.2
# A file that others closed to us, or have replaced by a link since it was listed.
_NOT_OURS_TO_READ = (errno.EACCES, errno.EPERM, errno.ELOOP)


def _nothing(path: Path) -> bool:
    return False


def _fail(error: OSError) -> None:
    raise error


def files_below(
    root: Path, is_skipped: IsSkipped = _nothing, on_error: Callable[[OSError], None] = _fail
) -> Iterator[Path]:
    """The regular files below a folder, without our locks and drafts; none if it does not exist.

    Args:
        root: the folder.
        is_skipped: whether to leave out a file, or a folder with all that is in it.
        on_error: is told of folders that can't be read.
    """
    for folder in _folders(root, is_skipped, on_error):
        yield from _files(folder, is_skipped)


def size_of(root: Path, is_skipped: IsSkipped = _nothing) -> int:
    """How many bytes the files below a folder have, as far as they can be read; 0 if it does not exist."""
    total = 0
    for path in files_below(root, is_skipped, lambda _: None):
        with suppress(FileNotFoundError):  # it was deleted since it was listed
            total += path.lstat().st_size
    return total


def copy_own(root: Path, part: str, draft: Draft, is_skipped: IsSkipped = _nothing) -> None:
    """Copy a folder of ours. A copy of a landed file and the record beside it are copied under their lock.

    Args:
        root: the folder; it may not exist.
        part: the name of its folder in the backup.
        draft: the backup.
        is_skipped: whether to leave out a file, or a folder with all that is in it.

    Raises:
        OSError: a file or folder can't be read.
    """
    for folder in _folders(root, is_skipped, _fail):
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

    Empty folders are copied, too: whoever delivers into them need not make them.

    Args:
        root: the folder; it may not exist.
        part: the name of its folder in the backup.
        draft: the backup. It is told what was left out.
        settle_seconds: how long a file must not have changed, in s.
        patience_seconds: how long to wait for all such files together, in s.
    """

    def leave_out(error: OSError) -> None:
        draft.left_out.append(f"{error.filename}: {error.strerror}")

    def is_copied(path: Path) -> bool:
        try:
            return _copy_at_rest(path, root, part, draft, settle_seconds)
        except OSError as error:
            if error.errno not in _NOT_OURS_TO_READ:
                raise
            leave_out(error)
            return True

    restless = []
    for folder in _folders(root, _nothing, leave_out):
        (draft.folder / part / folder.relative_to(root)).mkdir(parents=True, exist_ok=True)
        restless += [path for path in _files(folder, _is_draft) if not is_copied(path)]
    give_up = time.monotonic() + patience_seconds
    while restless and time.monotonic() < give_up:
        time.sleep(_PAUSE_SECONDS)
        restless = [path for path in restless if not is_copied(path)]
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


def _folders(root: Path, is_skipped: IsSkipped, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """A folder and all below it. `on_error` is told of those that can't be read."""

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # it was deleted since it was listed
            on_error(error)

    for folder, below, _ in os.walk(root, onerror=failed):  # links are not followed
        below[:] = sorted(name for name in below if name != LOST_AND_FOUND and not is_skipped(Path(folder, name)))
        yield Path(folder)


def _files(folder: Path, is_skipped: IsSkipped) -> Iterator[Path]:
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
