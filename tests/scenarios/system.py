"""The real running system on a home of its own, for tests that bring it up, disturb it and stop it."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import psycopg2
import pytest
import requests
from psycopg2.extensions import connection as Connection

from dedp_assets import local_stack
from tests.dedp_command import DEDP

# Long, because the machine may be slow and busy. A test ends its wait as soon as it can.
PATIENCE_SECONDS = 300

T = TypeVar("T")


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A home that is removed at the end."""
    # Not below pytest's own temporary folder: that is closed to the user whom a server under root runs as.
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "home"


class System:
    """PostgreSQL, Spark, the daemon, the UI and the code locations on one home; up and down as a test needs it."""

    def __init__(self, home: Path, **own_settings: str) -> None:
        self.home = home
        self.stop: Callable[[], None] | None = None
        self._own_settings = {"DEDP_HOME": str(home), **own_settings}
        self._attached = ExitStack()

    def up(self) -> None:
        """`dedp up` as a background job of a shell that is not interactive, which has it ignore SIGINT."""
        port = local_stack.free_port()
        said = self.home.with_name("said by dedp up")
        with open(said, "w") as output:
            shell = subprocess.Popen(
                ["sh", "-c", '"$@" & wait $!', "sh", DEDP, "up", "--port", str(port)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        while "Dagster is up" not in said.read_text():
            assert shell.poll() is None, said.read_text()
            time.sleep(0.1)

        def stop() -> None:
            self.dedp("down")
            assert shell.wait() == 130

        self.stop = stop
        self._attach(port)

    def up_with_workspace_of(self, folder: Path) -> None:
        """Bring it up in this process, with the workspace.yaml of a folder."""
        port = local_stack.free_port()
        running = ExitStack()
        with self.settings_in_force():
            running.enter_context(local_stack.running(port, workspace=folder / "workspace.yaml"))
        self.stop = running.close
        self._attach(port)

    def down(self) -> None:
        """Stop it, if it runs. PostgreSQL ends with its last user, so this process has to disconnect first."""
        self._attached.close()
        if self.stop:
            self.stop()
            self.stop = None

    def dedp(self, *arguments: str) -> None:
        """Run the command `dedp` for this home."""
        subprocess.run([DEDP, *arguments], env=self._environment, check=True)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self._own_settings}

    @contextmanager
    def settings_in_force(self) -> Iterator[pytest.MonkeyPatch]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._own_settings.items():
                patch.setenv(name, value)
            yield patch

    def _attach(self, port: int) -> None:
        self.url = f"http://{local_stack.HOST}:{port}"
        with self.settings_in_force() as patch:
            shared = self._attached.enter_context(local_stack.environment())
            patch.setenv("DEDP_DAGSTER_STORAGE", shared["DEDP_DAGSTER_STORAGE"])
            self.dsn = shared["DEDP_POSTGRES_DSN"]
            self.instance = self._attached.enter_context(dg.DagsterInstance.from_config(shared["DAGSTER_HOME"]))

    def attach_again(self) -> None:
        """Connect again, after the database was away and all connections to it were lost."""
        self._attached.close()
        self._attached = ExitStack()
        self._attach(int(self.url.rpartition(":")[2]))

    def connect(self) -> Connection:
        return psycopg2.connect(self.dsn)

    def graphql(self, query: str, **variables: object) -> dict[str, Any]:
        with requests.Session() as session:
            session.trust_env = False
            body = {"query": query, "variables": variables}
            answer = session.post(
                f"{self.url}/graphql", json=body, auth=("dedp", "dedp"), timeout=PATIENCE_SECONDS
            ).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def materialized(self, key: dg.AssetKey) -> set[str]:
        return self.instance.get_materialized_partitions(key)

    def process_of(self, run: dg.DagsterRun) -> int:
        """The id of the process that executes a run. Waits until the log of the run names it."""

        def found() -> list[str]:
            messages = " ".join(record.user_message for record in self.instance.all_logs(run.run_id))
            return re.findall(r"pid: (\d+)", messages)

        return int(self.wait_until(found)[-1])

    def wait_until(self, condition: Callable[[], T]) -> T:
        """Wait until the condition returns something that is true; returns that."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            assert time.monotonic() < give_up, (
                f"waited in vain.\n{local_stack.log_tail(self.home / 'logs' / 'dagster.log', 60)}"
            )
            time.sleep(0.1)
        return found
