"""One embedded Spark Connect server that all processes of a home share. A server that dies is replaced."""

import contextlib
import fcntl
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urlsplit

from dedp_assets.resources import embedded_spark
from dedp_assets.whole_files import write_whole

_CHECK_SECONDS = 1.0
# A server that has not started by then has failed, and its process could not report it.
_PATIENCE_SECONDS = embedded_spark.START_SECONDS + 30


@contextlib.contextmanager
def shared_server(folder: Path, size: embedded_spark.Size | None = None) -> Iterator[Callable[[], None]]:
    """Share a server until the block ends. Other processes find it with `shared_url`.

    The server starts in the background. Its size is that of `embedded_spark.server`.

    Yields:
        A function that waits until the server has started. It raises SparkNotStarted if the server does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    first: Future[None] = Future()
    keeper = threading.Thread(target=_keep, args=(folder, size, ended, first), name="shared spark", daemon=True)

    with open(folder / "shared.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _forget(folder)  # the records of a process that was killed
        keeper.start()
        try:
            yield first.result
        finally:
            ended.set()
            keeper.join()
            _forget(folder)


def shared_url(folder: Path) -> str | None:
    """Return the URL of the server that a process shares in this folder, or None if no process does.

    If the server is starting, this waits for it. The URL holds a token: never log it.

    Raises:
        SparkNotStarted: the server does not start.
    """
    pause = 0.1
    # Count the attempts and not the time: a test may simulate the clock.
    for _ in range(round(_PATIENCE_SECONDS / pause)):
        if not _is_shared(folder):
            return None
        with contextlib.suppress(FileNotFoundError):
            return _record(folder).read_text(encoding="utf-8")
        with contextlib.suppress(FileNotFoundError):
            raise embedded_spark.SparkNotStarted(_problem(folder).read_text(encoding="utf-8"))
        time.sleep(pause)
    raise embedded_spark.SparkNotStarted(
        f"the Spark server that is shared in {folder} has not started within {_PATIENCE_SECONDS} s; "
        "read the output of `dedp up`, and start it again"
    )


def _is_shared(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), open(folder / "shared.lock") as lock:
        try:
            # The kernel releases the lock of a dead process. A record without a lock counts for nothing.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _keep(folder: Path, size: embedded_spark.Size | None, ended: threading.Event, first: "Future[None]") -> None:
    while not ended.is_set():
        try:
            with embedded_spark.server(folder, size) as url:
                _write(_record(folder), url)
                _problem(folder).unlink(missing_ok=True)
                if not first.done():
                    first.set_result(None)
                while not ended.wait(_CHECK_SECONDS) and _answers(url):
                    pass
            _record(folder).unlink(missing_ok=True)
        except BaseException as error:  # another thread may wait for the result, and nobody sees how this thread ends
            problem = embedded_spark.not_started(error)
            if not first.done():
                first.set_exception(problem)
            with contextlib.suppress(OSError):  # the disk itself may be the problem
                _record(folder).unlink(missing_ok=True)
                _write(_problem(folder), str(problem))
            ended.wait(_CHECK_SECONDS)


def _answers(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=10).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True  # it is busy, and not dead
    return True


def _record(folder: Path) -> Path:
    return folder / "remote"


def _problem(folder: Path) -> Path:
    """Return the file with the reason why no server runs at the moment."""
    return folder / "problem"


def _forget(folder: Path) -> None:
    _record(folder).unlink(missing_ok=True)
    _problem(folder).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    # Only this user may read it: it holds a token. The process that shares the server is the only writer.
    write_whole(path, text.encode(), mode=0o600, is_only_writer=True)
