"""One embedded Spark Connect server that all processes of a home share. A server that dies is replaced.

It starts with its first use, and ends after an hour without any.
"""

import contextlib
import fcntl
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from dedp_assets.resources import embedded_spark
from dedp_assets.whole_files import write_whole

# How long a server stays that nobody uses.
IDLE_SECONDS = 3600.0
_CHECK_SECONDS = 1.0
# How long somebody may wait until the start of a server begins.
_ASKED_SECONDS = 0.2
_CONNECTIONS = Path("/proc/net/tcp")
# A server that has not started by then has failed, and its process could not report it.
_PATIENCE_SECONDS = embedded_spark.START_SECONDS + 30


@contextlib.contextmanager
def shared_server(
    folder: Path,
    size: embedded_spark.Size | None = None,
    at_once: bool = False,
    idle_seconds: float = IDLE_SECONDS,
) -> Iterator[None]:
    """Share a server until the block ends. Other processes find it with `shared_url`.

    The server starts in the background when somebody asks for it, and ends when nobody has used it for a while. Whoever
    asks next starts it again.

    Args:
        folder: where others find it, and where it has its folder.
        size: its size; None for that of `embedded_spark.server`.
        at_once: start it before anybody asks for it.
        idle_seconds: how long it stays when no client is connected and nobody asks for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    keep = threading.Thread(target=_keep, args=(folder, size, ended, idle_seconds), name="shared spark", daemon=True)

    with open(folder / "shared.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _forget(folder)  # the records of a process that was killed
        if at_once:
            _wanted(folder).touch()
        keep.start()
        try:
            yield
        finally:
            ended.set()
            keep.join()
            _forget(folder)


def shared_url(folder: Path) -> str | None:
    """Return the URL of the server that a process shares in this folder, or None if no process does.

    If the server is starting, this waits for it. The URL holds a token: never log it.

    Raises:
        SparkNotStarted: the server does not start.
    """
    pause = 0.1
    if _is_shared(folder):
        _wanted(folder).touch()
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


def _keep(folder: Path, size: embedded_spark.Size | None, ended: threading.Event, idle_seconds: float) -> None:
    asked: int | None = None
    while not ended.is_set():
        if _asked(folder) == asked:
            ended.wait(_ASKED_SECONDS)
            continue
        try:
            with embedded_spark.server(folder, size) as url:
                _write(_record(folder), url)
                _problem(folder).unlink(missing_ok=True)
                # If it has died, those who use it want another one.
                asked = _asked(folder) if _until_unused(folder, url, ended, idle_seconds) else None
            _record(folder).unlink(missing_ok=True)
        except BaseException as error:  # another process may wait for the result, and nobody sees how this thread ends
            with contextlib.suppress(OSError):  # the disk itself may be the problem
                _record(folder).unlink(missing_ok=True)
                _write(_problem(folder), str(embedded_spark.not_started(error)))
            ended.wait(_CHECK_SECONDS)


def _until_unused(folder: Path, url: str, ended: threading.Event, idle_seconds: float) -> bool:
    """Wait until nobody uses the server any more, and take its address away. Returns False if it has died before."""
    asked, used = _asked(folder), time.monotonic()
    while not ended.wait(_CHECK_SECONDS):
        if not _answers(url):
            return False
        if _asked(folder) != asked or _is_connected(url):
            asked, used = _asked(folder), time.monotonic()
        if time.monotonic() - used > idle_seconds:
            _record(folder).unlink(missing_ok=True)
            # Somebody may have read the address just before, and connects now.
            ended.wait(_CHECK_SECONDS)
            if _asked(folder) == asked and not _is_connected(url):
                return True
            _write(_record(folder), url)
            used = time.monotonic()
    return True


def _asked(folder: Path) -> int | None:
    """Return what changes when somebody asks for the server; None if nobody has."""
    with contextlib.suppress(FileNotFoundError):
        return _wanted(folder).stat().st_mtime_ns
    return None


def _is_connected(url: str) -> bool:
    """Whether a client is connected to the server. A session keeps its connection."""
    port, established = urlsplit(url).port or 0, "01"
    try:
        lines = _CONNECTIONS.read_text().splitlines()[1:]
    except OSError:
        return True  # nobody knows
    connections = (line.split() for line in lines)
    return any(fields[1].endswith(f":{port:04X}") and fields[3] == established for fields in connections)


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


def _wanted(folder: Path) -> Path:
    """Return the file that is touched when somebody asks for the server."""
    return folder / "wanted"


def _problem(folder: Path) -> Path:
    """Return the file with the reason why no server runs at the moment."""
    return folder / "problem"


def _forget(folder: Path) -> None:
    for left in (_record(folder), _problem(folder), _wanted(folder)):
        left.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    # Only this user may read it: it holds a token. The process that shares the server is the only writer.
    write_whole(path, text.encode(), mode=0o600, is_only_writer=True)
