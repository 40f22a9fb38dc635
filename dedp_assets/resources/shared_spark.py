"""One embedded Spark Connect server for every process that works in a folder, replaced when it dies."""

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

_LOOK_SECONDS = 1.0
# A server that is not there by then has failed, and whoever shares it could not say so.
_PATIENCE_SECONDS = embedded_spark.START_SECONDS + 30


@contextlib.contextmanager
def shared_server(folder: Path) -> Iterator[Callable[[], None]]:
    """Share a server until the block ends: `shared_url` tells the others where it is.

    It starts while the block goes on. The function that the block gets waits for that; it raises
    embedded_spark.SparkNotStarted if the server does not start, for whatever reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    first: Future[None] = Future()
    keeper = threading.Thread(target=_keep, args=(folder, ended, first), name="shared spark", daemon=True)

    with open(folder / "shared.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _forget(folder)  # what one that was killed has left
        keeper.start()
        try:
            yield first.result
        finally:
            ended.set()
            keeper.join()
            _forget(folder)


def shared_url(folder: Path) -> str | None:
    """Where the server is that somebody shares in this folder; None if nobody does. Holds its token: never log it.

    Waits for one that is starting. Raises embedded_spark.SparkNotStarted if it fails to.
    """
    pause = 0.1
    # Turns are counted, not the time: that may be simulated.
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
        "look at the output of `dedp up`, and start that again"
    )


def _is_shared(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), open(folder / "shared.lock") as lock:
        try:
            # The kernel drops a dead process's lock, so what such a one has recorded is nobody's.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _keep(folder: Path, ended: threading.Event, first: "Future[None]") -> None:
    while not ended.is_set():
        try:
            with embedded_spark.server(folder) as url:
                _write(_record(folder), url)
                _problem(folder).unlink(missing_ok=True)
                if not first.done():
                    first.set_result(None)
                while not ended.wait(_LOOK_SECONDS) and _answers(url):
                    pass
            _record(folder).unlink(missing_ok=True)
        except BaseException as error:  # somebody may be waiting, and nobody sees how this thread ends
            problem = embedded_spark.not_started(error)
            if not first.done():
                first.set_exception(problem)
            with contextlib.suppress(OSError):  # what is wrong may be the disk
                _record(folder).unlink(missing_ok=True)
                _write(_problem(folder), str(problem))
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


def _problem(folder: Path) -> Path:
    """Why there is no server at the moment."""
    return folder / "problem"


def _forget(folder: Path) -> None:
    _record(folder).unlink(missing_ok=True)
    _problem(folder).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    # For this user's eyes only: it holds a token. Whoever keeps the server is the only writer.
    write_whole(path, text.encode(), mode=0o600, is_only_writer=True)
