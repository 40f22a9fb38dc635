"""A PostgreSQL server of the world outside, which can crash and come back."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg2

from dagster_scenario.errors import ScenarioError
from dedp_assets.resources import embedded_postgres

# When this process is killed, nobody else would ever end the server. Its end closes the pipe, and `read` returns.
_WATCH = 'read -r _; kill -QUIT "$(head -n 1 "$1/data/postmaster.pid")"; sleep 1; rm -rf "$1"'


class PostgresServer:
    """A PostgreSQL server with data of its own, running from the moment it is made.

    It is a process of its own, so `now()` in SQL is real time, not the scenario's.
    """

    def __init__(self, happened: Callable[[str], None], name: str) -> None:
        self._happened, self._name = happened, name
        # Not in the scenario's folder, which may be closed to the user whom a server under root runs as.
        self._folder = Path(tempfile.mkdtemp(prefix="dagster-scenario-postgres-"))
        self._closed = False
        self._watch: subprocess.Popen[bytes] | None = None
        self._lease: ExitStack | None = None
        try:
            self._run()
            self._watch = self._watched()
            # The machine does not lose power during a scenario; that the server crashes, these settings survive.
            for setting in ("fsync = off", "full_page_writes = off"):
                self._cursor(f"ALTER SYSTEM SET {setting}")
            self._cursor("SELECT pg_reload_conf()")
        except BaseException:
            self.close()
            raise

    @property
    def dsn(self) -> str:
        """Its URL, for psycopg and SQLAlchemy alike; the same for as long as the scenario lasts."""
        return self._dsn

    def stop(self) -> None:
        """It crashes: connections and what was not committed are lost. ScenarioError when it is down already."""
        self._open()
        if self._lease is None:
            raise ScenarioError(f"{self._name} is down already; start() brings it back")
        self._crash()
        self._release()
        self._happened(f"{self._name} crashes")

    def start(self) -> None:
        """It comes back at the same URL and recovers what was committed. ScenarioError when it is up."""
        self._open()
        if self._lease is not None:
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
            if self._lease is not None:
                self._crash()
                self._release()
        finally:
            if self._watch is not None:
                self._watch.kill()
                self._watch.communicate()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self) -> None:
        if self._closed:
            raise ScenarioError(f"{self._name} has ended with its scenario; make one in the scenario that is open")

    def _run(self) -> None:
        lease = ExitStack()
        self._dsn = lease.enter_context(embedded_postgres.server_lease(self._folder))
        self._lease = lease

    def _release(self) -> None:
        assert self._lease is not None
        lease, self._lease = self._lease, None
        lease.close()

    def _crash(self) -> None:
        data = self._folder / "data"
        command: list[str | Path] = [embedded_postgres.binary("pg_ctl"), "stop", "-D", data, "-m", "immediate"]
        # pg_ctl is for the owner of the data only, who is another user when this is root.
        owner: dict[str, Any] = {"user": data.stat().st_uid, "group": data.stat().st_gid} if os.geteuid() == 0 else {}
        # It fails when somebody has killed the server already; what runs in spite of it, the lease stops.
        subprocess.run(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, **owner)

    def _watched(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            ["sh", "-c", _WATCH, "sh", self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # the Ctrl-C that ends this process would end it too
        )

    def _cursor(self, sql: str, *params: Any) -> tuple[list[tuple[Any, ...]] | None, str]:
        self._open()
        if self._lease is None:
            raise ScenarioError(f"{self._name} is down; start() brings it back")
        with closing(psycopg2.connect(self._dsn)) as connection:
            # What begins its own transactions, such as CREATE DATABASE, works too.
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, params or None)
                return (cursor.fetchall() if cursor.description else None), cursor.statusmessage or ""


def _short(sql: str) -> str:
    line = " ".join(sql.split())
    return line if len(line) <= 80 else f"{line[:77]}..."
