"""The real running system on a home of its own, for tests that bring it up, disturb it and stop it."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
import requests

from dedp_assets import local_stack

# Generous: the machine may be slow and busy. No test waits longer than what it waits for takes.
PATIENCE_SECONDS = 300

DEDP = str(Path(sys.executable).with_name("dedp"))


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A home that is removed at the end."""
    # Not below pytest's own temporary folder: that is closed to the user whom a server under root runs as.
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "home"


class System:
    """PostgreSQL, Spark, the daemon, the UI and the code locations on one home; up and down as a test needs it."""

    def __init__(self, home, **own_settings):
        self.home = home
        self.stop = None
        self._own_settings = {"DEDP_HOME": str(home), **own_settings}
        self._attached = ExitStack()

    def up(self):
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
            time.sleep(0.5)

        def stop():
            self.dedp("down")
            assert shell.wait() == 130

        self.stop = stop
        self._attach(port)

    def up_with_workspace_of(self, folder):
        """The same in this process, with another workspace.yaml than the repository's."""
        port = local_stack.free_port()
        running = ExitStack()
        with self.settings_in_force() as patch:
            patch.setattr(local_stack, "WORKSPACE", folder / "workspace.yaml")
            running.enter_context(local_stack.running(port))
        self.stop = running.close
        self._attach(port)

    def down(self):
        """Stop it, if it runs. PostgreSQL ends with its last user, so that must not be this process."""
        self._attached.close()
        if self.stop:
            self.stop()
            self.stop = None

    def dedp(self, *arguments):
        """The command `dedp`, for this home."""
        subprocess.run([DEDP, *arguments], env=self._environment, check=True)

    @property
    def _environment(self):
        return {**os.environ, **self._own_settings}

    @contextmanager
    def settings_in_force(self):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._own_settings.items():
                patch.setenv(name, value)
            yield patch

    def _attach(self, port):
        self.url = f"http://{local_stack.HOST}:{port}"
        with self.settings_in_force() as patch:
            shared = self._attached.enter_context(local_stack.environment())
            patch.setenv("DEDP_DAGSTER_STORAGE", shared["DEDP_DAGSTER_STORAGE"])
            self.dsn = shared["DEDP_POSTGRES_DSN"]
            self.instance = self._attached.enter_context(dg.DagsterInstance.from_config(shared["DAGSTER_HOME"]))

    def attach_again(self):
        """After the database was away: connections that were open to it are of no use any more."""
        self._attached.close()
        self._attached = ExitStack()
        self._attach(int(self.url.rpartition(":")[2]))

    def connect(self):
        return psycopg2.connect(self.dsn)

    def graphql(self, query, **variables):
        with requests.Session() as session:
            session.trust_env = False
            body = {"query": query, "variables": variables}
            answer = session.post(f"{self.url}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def materialized(self, key):
        return self.instance.get_materialized_partitions(key)

    def process_of(self, run):
        """The process that executes a run, as the run's own log has it; waits until it does."""

        def found():
            messages = " ".join(record.user_message for record in self.instance.all_logs(run.run_id))
            return re.findall(r"pid: (\d+)", messages)

        return int(self.wait_until(found)[-1])

    def wait_until(self, condition):
        """Wait until `condition` gives what counts as true, and return that."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            assert time.monotonic() < give_up, (
                f"waited in vain.\n{local_stack.log_tail(self.home / 'logs' / 'dagster.log', 60)}"
            )
            time.sleep(0.5)
        return found
