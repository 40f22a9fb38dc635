"""One embedded Spark Connect server for every process that works in a folder, replaced when it dies."""

import contextlib
import fcntl
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from dedp_assets.resources import embedded_spark

_LOOK_SECONDS = 1.0


@contextlib.contextmanager
def shared_server(folder: Path) -> Iterator[Callable[[], None]]:
    """Share a server until the block ends: `shared_url` tells the others where it is.

    It starts while the block goes on. The function that the block gets waits for that; it raises
    embedded_spark.ServerError if the server does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    first: queue.Queue[Exception | None] = queue.Queue()
    keeper = threading.Thread(target=_keep, args=(folder, ended, first), name="shared spark", daemon=True)

    def wait_until_started() -> None:
        problem = first.get()
        if problem is not None:
            raise problem

    with open(folder / "shared.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _record(folder).unlink(missing_ok=True)  # of one that was killed
        keeper.start()
        try:
            yield wait_until_started
        finally:
            ended.set()
            keeper.join()
            _record(folder).unlink(missing_ok=True)


def shared_url(folder: Path) -> str | None:
    """Where the server is that somebody shares in this folder; None if nobody does. Holds its token: never log it.

    Waits for one that is starting.
    """
    while _is_shared(folder):
        with contextlib.suppress(FileNotFoundError):
            return _record(folder).read_text(encoding="utf-8")
        time.sleep(0.1)
    return None


def _is_shared(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), open(folder / "shared.lock") as lock:
        try:
            # The kernel drops a dead process's lock, so what such a one has recorded is nobody's.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _keep(folder: Path, ended: threading.Event, first: "queue.Queue[Exception | None]") -> None:
    while not ended.is_set():
        try:
            with embedded_spark.server(folder) as url:
                _write(_record(folder), url)
                first.put(None)
                while not ended.wait(_LOOK_SECONDS) and _answers(url):
                    pass
        except embedded_spark.ServerError as problem:
            first.put(problem)
            ended.wait(_LOOK_SECONDS)


def _answers(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=10).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True  # busy is not dead
    return True


def _record(folder: Path) -> Path:
    return folder / "remote"


def _write(path: Path, text: str) -> None:
    """As a whole, and for this user's eyes only: it holds a token."""
    draft = path.with_name(f".{path.name}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
