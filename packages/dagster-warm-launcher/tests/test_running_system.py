"""The launcher under `dagster dev`, under a daemon that is killed and started again, and in a code server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import PLAIN, Deployment, wait_until
from dagster import DagsterRunStatus

pytestmark = pytest.mark.slow
TELLS = "import json, os, time; json.dump([os.getpid(), os.getppid(), os.environ.get('FROM_FILE')], open(PATH, 'w'))"


@contextmanager
def running(command: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends, with all that it starts."""
    with (folder / "said.txt").open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", **environment},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        family: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        for left in [*family, *([psutil.Process(process.pid)] if process.poll() is None else [])]:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def told(path: Path) -> list[Any]:
    wait_until(lambda: path.exists() and path.read_text(), "the step")
    found: list[Any] = json.loads(path.read_text())
    path.unlink()
    return found


def is_template(pid: int) -> bool:
    return "dagster_warm_launcher.template" in psutil.Process(pid).cmdline()


class WebServer:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            data: dict[str, Any] = json.load(response)["data"]
            return data

    def answers(self) -> bool:
        with suppress(OSError):
            return bool(self.ask("{ workspaceOrError { __typename } }"))
        return False

    def launch(self, source: str) -> str:
        answer = self.ask(
            """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
                __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            params={
                "selector": {
                    "repositoryName": "__repository__",
                    "repositoryLocationName": "plain",
                    "jobName": "work",
                },
                "runConfigData": {"ops": {"execute": {"config": {"source": source}}}},
            },
        )["launchRun"]
        assert "run" in answer, answer
        return str(answer["run"]["runId"])


def test_under_dagster_dev_runs_are_forks_end_from_the_ui_and_follow_a_reload(
    deploy: Callable[..., Deployment],
) -> None:
    deployment = deploy({"plain": PLAIN})
    (deployment.folder / ".env").write_text("FROM_FILE=1\n")
    path, port = deployment.folder / "told", free_port()
    tells = TELLS.replace("PATH", repr(str(path)))
    command = ["-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    with running(command, deployment.folder, DAGSTER_HOME=str(deployment.home)):
        web = WebServer(port)
        wait_until(web.answers, "the web server")

        run_id = web.launch(tells)
        pid, template, from_file = told(path)
        assert deployment.wait(run_id) == DagsterRunStatus.SUCCESS
        assert is_template(template), (deployment.folder / "said.txt").read_text()
        assert from_file == "1"
        assert "FROM_FILE" not in os.environ

        endless = web.launch(tells + "; time.sleep(3600)")
        pid, second, _ = told(path)
        assert second == template
        web.ask("mutation ($id: String!) { terminateRun(runId: $id) { __typename } }", id=endless)
        assert deployment.wait(endless) == DagsterRunStatus.CANCELED
        wait_until(lambda: not psutil.pid_exists(pid), "the run's process to end")

        web.ask('mutation { reloadRepositoryLocation(repositoryLocationName: "plain") { __typename } }')

        def follows() -> bool:
            # The daemon hears of a reload a moment later.
            web.launch(tells)
            return bool(told(path)[1] != template)

        wait_until(follows, "a run of the reloaded location")
    assert "runs of plain are forks of process" in (deployment.folder / "said.txt").read_text()


def test_runs_outlive_the_daemon_and_its_successor_watches_them(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy({"plain": PLAIN}, None, run_monitoring={"enabled": True, "poll_interval_seconds": 1}).start()
    path = deployment.folder / "told"
    command = ["-m", "dagster._daemon", "run", "-w", "workspace.yaml"]
    home = {"DAGSTER_HOME": str(deployment.home)}
    with running(command, deployment.folder, **home) as daemon:
        run_id = deployment.create(TELLS.replace("PATH", repr(str(path))) + "; time.sleep(3600)")
        deployment.instance.submit_run(run_id, deployment.workspace())
        pid, template, _ = told(path)
        assert is_template(template)
        daemon.kill()
        daemon.wait()
    assert psutil.pid_exists(pid)

    (deployment.folder / "said.txt").unlink()
    with running(command, deployment.folder, **home):
        # It has looked at the run, and let it be.
        wait_until(lambda: f"Checking run {run_id}" in (deployment.folder / "said.txt").read_text(), "monitoring")
        assert deployment.run(run_id).status == DagsterRunStatus.STARTED
        os.kill(pid, signal.SIGKILL)
        assert deployment.wait(run_id) == DagsterRunStatus.FAILURE
        assert f"its process (pid {pid}) is gone" in deployment.said(run_id)
    wait_until(lambda: not psutil.pid_exists(template), "the first daemon's template to end")


def test_a_variable_switches_it_off_in_the_launcher_and_in_the_code_server(
    deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_WARM_LAUNCHER", "off")
    deployment = deploy({"plain": PLAIN})
    port, path = free_port(), deployment.folder / "told"
    server: Mapping[str, Any] = {"host": "127.0.0.1", "port": port, "location_name": "plain"}
    deployment.workspace_file.write_text(yaml.dump({"load_from": [{"grpc_server": server}]}))
    command = ["-m", "dagster_warm_launcher.code_server", "grpc", "-m", "plain", "-h", "127.0.0.1", "-p", str(port)]
    with running(command, deployment.folder) as code_server:
        wait_until(lambda: "Started Dagster code server" in (deployment.folder / "said.txt").read_text(), "it")
        deployment.start()
        run_id = deployment.launch(TELLS.replace("PATH", repr(str(path))))
        _, parent, _ = told(path)
        assert parent == code_server.pid  # a run that is a fork has the template as its parent
        assert deployment.wait(run_id) == DagsterRunStatus.SUCCESS
        assert deployment.template() is None


def test_a_code_server_of_its_own_forks_its_runs(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy({"plain": PLAIN})
    port, path = free_port(), deployment.folder / "told"
    server: Mapping[str, Any] = {"host": "127.0.0.1", "port": port, "location_name": "plain"}
    deployment.workspace_file.write_text(yaml.dump({"load_from": [{"grpc_server": server}]}))
    command = ["-m", "dagster_warm_launcher.code_server", "grpc", "-m", "plain", "-h", "127.0.0.1", "-p", str(port)]
    tells = TELLS.replace("PATH", repr(str(path)))
    with ExitStack() as stack:
        code_server = stack.enter_context(running(command, deployment.folder))
        wait_until(lambda: "Started Dagster code server" in (deployment.folder / "said.txt").read_text(), "it")
        deployment.start()

        run_id = deployment.launch(tells)
        _, template, _ = told(path)
        assert deployment.wait(run_id) == DagsterRunStatus.SUCCESS
        # The template that has its import from the code server, and was there before the first run.
        assert psutil.Process(template).ppid() == code_server.pid
        assert not is_template(template)

        endless = deployment.launch(tells + "; time.sleep(3600)")
        told(path)
        assert deployment.launcher.terminate(endless)
        assert deployment.wait(endless) == DagsterRunStatus.CANCELED

        killed = deployment.launch(tells + "; time.sleep(3600)")
        os.kill(told(path)[0], signal.SIGKILL)
        assert deployment.wait(killed) == DagsterRunStatus.FAILURE
        assert "was terminated by signal 9 (SIGKILL)" in deployment.said(killed)

        # What the template can't do, a fresh process does.
        thread = "import threading, time\nthreading.Thread(target=time.sleep, args=[3600], daemon=True).start()\n"
        (deployment.folder / "plain.py").write_text(thread + PLAIN)
        run_id = deployment.launch(tells)
        assert told(path)[1] == code_server.pid
    assert "starts threads" in (deployment.folder / "said.txt").read_text()
