"""A file system that really does not answer: a FUSE mount whose server never says a word.

The kernel holds each call on it until the server answers or is gone, as it does with a network mount whose server is
away. A test module gets the fixture by `pytest_plugins = ["tests.stuck_mounts"]`. Where nobody may mount, tests are
skipped.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_DETACH = 2  # MNT_DETACH: also while calls are held


class StuckMount:
    """A mount on a folder, from now on until `end`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._server},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        if self._libc.mount(b"stuck", os.fsencode(folder), b"fuse", 0, options.encode()):
            error = ctypes.get_errno()
            os.close(self._server)
            raise OSError(error, os.strerror(error))

    def end(self) -> None:
        """Unmount it. Calls that are held fail, and the folder is what it was before."""
        if self._server >= 0:
            os.close(self._server)
            self._server = -1
            self._libc.umount2(os.fsencode(self._folder), _DETACH)


@pytest.fixture
def stuck_mount() -> Iterator[Callable[[Path], StuckMount]]:
    """Mounts a file system that does not answer on a folder."""
    mounts: list[StuckMount] = []

    def mount(folder: Path) -> StuckMount:
        try:
            mounts.append(StuckMount(folder))
        except OSError as error:
            pytest.skip(f"no FUSE mount here: {error.strerror}")
        return mounts[-1]

    yield mount
    for each in mounts:
        each.end()
