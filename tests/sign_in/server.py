"""The real web server behind the sign-in, on a real PostgreSQL, for the tests of this folder."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests

from dedp_assets import local_stack
from dedp_assets.local_stack.environment import in_schema
from dedp_assets.sign_in import audit, users
from dedp_assets.sign_in.database import connected
from dedp_assets.sign_in.roles import Role

WORLD = Path(__file__).with_name("world.py")
PASSWORDS = {"vera": "a viewer's password", "lars": "a launcher's password", "anna": "an admin's password"}
ROLES = {"vera": Role.viewer, "lars": Role.launcher, "anna": Role.admin}
SELECTOR = {"repositoryLocationName": "world.py", "repositoryName": "__repository__"}
LAUNCH = """
    mutation Launch($run: ExecutionParams!) {
        launchRun(executionParams: $run) {
            __typename
            ... on LaunchRunSuccess { run { runId } }
            ... on UnauthorizedError { message }
            ... on PythonError { message }
        }
    }
"""
RUN: dict[str, Any] = {"selector": {**SELECTOR, "jobName": "nightly"}, "runConfigData": {}}


class Server:
    """A running web server with three users, and its instance."""

    def __init__(self, url: str, dsn: str, instance: dg.DagsterInstance, log: Path) -> None:
        self.url, self.dsn, self.instance, self.log = url, dsn, instance, log

    def session(self) -> requests.Session:
        """A browser that has no cookies yet."""
        session = requests.Session()
        session.trust_env = False
        # After a fault of a request, the server closes its connection. The next one might still be sent on it.
        session.headers["Connection"] = "close"
        return session

    def signed_in(self, name: str, password: str | None = None) -> requests.Session:
        """A browser in which a user has signed in."""
        session = self.session()
        answer = self.sign_in(session, name, password or PASSWORDS[name])
        assert answer.status_code == 303, answer.text
        return session

    def sign_in(self, session: requests.Session, name: str, password: str, **fields: str) -> requests.Response:
        form = {"username": name, "password": password, **fields}
        return session.post(f"{self.url}/sign-in", data=form, allow_redirects=False, timeout=60)

    def ask(self, session: requests.Session, query: str, **variables: Any) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        return dict(session.post(f"{self.url}/graphql", json=body, timeout=60).json())

    def runs(self) -> int:
        return self.instance.get_runs_count()

    def log_of(self, **filters: Any) -> list[audit.Entry]:
        with connected(self.dsn) as cursor:
            return audit.entries(cursor, **filters)

    def do(self, statement: str, *values: object) -> None:
        with connected(self.dsn) as cursor:
            cursor.execute(statement, values)


@contextmanager
def serving(home: Path, database: str, prefix: str = "", *options: str, **settings: str) -> Iterator[Server]:
    """Start the web server, and end it.

    Args:
        home: Becomes DAGSTER_HOME.
        database: The URL of a database.
        prefix: The path below which the web server is.
        options: More options of it.
        settings: More environment variables.
    """
    dsn = in_schema(database, "dagster")
    with connected(dsn) as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS dagster")
        for name, password in PASSWORDS.items():
            users.add(cursor, name, password, ROLES[name])
    (home / "dagster.yaml").write_text(json.dumps(_instance()))
    port = local_stack.free_port()
    url = f"http://127.0.0.1:{port}{prefix}"
    log = home / "web server.log"
    environment = {**os.environ, "DAGSTER_HOME": str(home), "DEDP_DAGSTER_STORAGE": dsn, **settings}
    command = [sys.executable, "-m", "dedp_assets.sign_in", "-h", "127.0.0.1", "-p", str(port), "-f", str(WORLD)]
    with open(log, "wb") as output:
        server = subprocess.Popen(
            [*command, "--path-prefix", prefix, *options],
            stdout=output,
            stderr=output,
            env=environment,
            preexec_fn=local_stack.react_to_interrupts,
        )
    try:
        give_up = time.monotonic() + 300
        while not _is_up(f"{url}/healthz"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DEDP_DAGSTER_STORAGE", dsn)
            with dg.DagsterInstance.from_config(str(home)) as instance:
                yield Server(url, dsn, instance, log)
    finally:
        server.terminate()
        server.wait(300)


def _instance() -> Mapping[str, Any]:
    storage = {"module": "dedp_assets.resources.dagster_storage", "class": "PooledPostgresStorage"}
    return {
        "storage": {"custom": {**storage, "config": {"postgres_url": {"env": "DEDP_DAGSTER_STORAGE"}}}},
        # There is no daemon: a run that is launched waits in the queue. That is enough here.
        "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "QueuedRunCoordinator"},
        "telemetry": {"enabled": False},
    }


def _is_up(url: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=5).ok
        except requests.RequestException:
            return False
