"""A real web server of Dagster, with code locations of a test."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import requests

import dedp_assets
from dedp_assets import local_stack
from dedp_assets.sign_in import users
from dedp_assets.sign_in.database import connected

REPOSITORY = Path(dedp_assets.__file__).parent.parent


@contextmanager
def web_server(home: Path, database: str, *locations: str) -> Iterator[tuple[str, dg.DagsterInstance]]:
    """The address of a web server, and its instance. There is no daemon: a run starts as soon as it is launched.

    The user dedp may sign in with the password dedp, as under `dedp up`.

    Args:
        home: becomes DAGSTER_HOME.
        database: the URL of the database of the users. The instance is in `home`.
        locations: options that name the code locations, such as "-m", "jobs.client_uploads".
    """
    coordinator = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    (home / "dagster.yaml").write_text(json.dumps({"telemetry": {"enabled": False}, "run_coordinator": coordinator}))
    port = local_stack.free_port()
    url = f"http://127.0.0.1:{port}"
    with connected(database) as cursor:
        users.add_local(cursor)
    command = [sys.executable, "-m", "dedp_assets.sign_in", "-h", "127.0.0.1", "-p", str(port), *locations]
    server = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "DEDP_DAGSTER_STORAGE": database},
        preexec_fn=local_stack.react_to_interrupts,
    )
    try:
        wait_for(lambda: _answers(url, server), "the web server does not answer")
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield url, instance
    finally:
        server.terminate()
        server.wait(300)


def _answers(url: str, server: "subprocess.Popen[bytes]") -> bool:
    assert server.poll() is None
    try:
        return requests.get(f"{url}/healthz", timeout=60).ok
    except requests.RequestException:
        return False


def wait_for(is_true: Callable[[], object], otherwise: str) -> None:
    """Wait until something is true, for at most five minutes."""
    give_up = time.monotonic() + 300
    while not is_true():
        assert time.monotonic() < give_up, otherwise
        time.sleep(0.5)


def ended(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """All runs, oldest first, when each of them has ended."""
    wait_for(lambda: all(run.is_finished for run in instance.get_runs()), "a run does not end")
    return list(instance.get_runs())[::-1]
