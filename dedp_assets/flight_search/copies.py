"""The copies of landed files that a run works on: whoever rewrites a landed file meanwhile does not change them.

Each run has a folder of its own, which it removes when it ends. The next run removes the folder of one that was killed.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from dedp_assets.flight_search import contract
from dedp_assets.landing.copies import lock_of, named_storage_errors
from dedp_assets.landing.copying import NotCopied, SeenSince, StillBeingWritten, copy_when_settled
from dedp_assets.landing.versions import FileVersion

# A file that does not come to rest in so many seconds, beyond the settle time, is left for a later run.
_PATIENCE_SECONDS = 3.0


class Copy(NamedTuple):
    """A copy of a landed file.

    Attributes:
        name: the name of the landed file.
        version: the version of it that was copied.
        sha256: the hash of its content.
        path: the copy, in a folder of its own.
    """

    name: str
    version: FileVersion
    sha256: str
    path: Path

    def remove(self) -> None:
        """Remove the copy: it is not needed any more."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


@contextmanager
def copies_of(
    landing: Path, names: Sequence[str], settle_seconds: float, seen: SeenSince, notes: list[str]
) -> Iterator[Iterator[Copy]]:
    """Copy landed files, one after the other, as the caller asks for them.

    Args:
        landing: the folder of the files.
        names: the names of the files.
        settle_seconds: how long a file must be unchanged, in s.
        seen: what is known of how long files have been unchanged.
        notes: gets a sentence about each file that is left for a later run.

    Yields:
        An iterator over the copies. They exist until the block ends.

    Raises:
        StorageFailed: a folder can't be made, or a copy can't be written.
    """
    for name in names:  # all of them settle at the same time
        seen.unchanged_since(landing / name)
    with _own_folder(contract.copies_folder()) as folder:
        yield _copy_each(landing, names, folder, settle_seconds, seen, notes)


def _copy_each(
    landing: Path, names: Sequence[str], folder: Path, settle_seconds: float, seen: SeenSince, notes: list[str]
) -> Iterator[Copy]:
    for number, name in enumerate(names):
        path = folder / f"{number:06}" / "content"
        try:
            copied = copy_when_settled(
                landing / name,
                path,
                settle_seconds=settle_seconds,
                patience=settle_seconds + _PATIENCE_SECONDS,
                seen=seen,
            )
        except (NotCopied, StillBeingWritten) as problem:
            notes.append(str(problem))
            continue
        yield Copy(name, copied.version, copied.sha256, path)


@contextmanager
def _own_folder(root: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        # Under a lock, so that nobody takes the new folder for one of a killed run before it has its own lock.
        with lock_of(root), named_storage_errors(f"make a folder in {root}"):
            for left in root.glob("run-*"):
                _remove_left_behind(left)
            own = Path(tempfile.mkdtemp(prefix="run-", dir=root))
            own.chmod(0o755)  # Spark may run as another user
            stack.callback(shutil.rmtree, own, ignore_errors=True)
            stack.enter_context(lock_of(own))
        yield own


def _remove_left_behind(folder: Path) -> None:
    with contextlib.suppress(BlockingIOError), lock_of(folder, waits=False):
        shutil.rmtree(folder, ignore_errors=True)
