"""Servers for the whole session. With xdist, the workers of a session share them."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of the session. Under xdist, each worker has a folder of its own inside of it."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def one_for_all_workers(folder: Path, name: str, start: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """The first worker that needs a server starts it. The same worker stops it, after all others have left.

    The kernel releases the locks of a worker that was killed. So nobody waits for such a worker, and its successor
    starts a new server. No two workers wait for each other, because each leaves its servers in reverse order.

    Args:
        folder: the same for all workers of a session, and for no other session.
        name: tells the servers of a session apart.
        start: runs a server while its block lasts. Its value is the URL of the server.

    Yields:
        The URL of the server.
    """
    url = folder / f"{name}.url"
    with (
        open(folder / f"{name}.door", "w") as door,  # held while the server starts or stops
        open(folder / f"{name}.owner", "w") as owner,
        open(folder / f"{name}.guests", "w") as guests,
    ):
        fcntl.flock(door, fcntl.LOCK_EX)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(guests, fcntl.LOCK_SH)
            fcntl.flock(door, fcntl.LOCK_UN)
            yield url.read_text()
            return
        with start() as started:
            url.touch(0o600)  # some URLs hold a token
            url.write_text(started)
            fcntl.flock(door, fcntl.LOCK_UN)
            yield started
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(guests, fcntl.LOCK_EX)
