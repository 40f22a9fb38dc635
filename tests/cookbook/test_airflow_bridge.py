"""Both sides of the bridge agree; and, where there is an Airflow 2.11, the bridge with all of its processes."""

import ast
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
import requests
import yaml

from dedp_assets import settings
from dedp_assets.local_stack import free_port

BRIDGE = settings.REPOSITORY / "examples" / "airflow_bridge"


def test_the_bridge_names_each_task_of_the_dag_and_has_a_state_for_it() -> None:
    dag = ast.parse((BRIDGE / "dags" / "shop.py").read_text())
    tasks = {node.name for node in dag.body if isinstance(node, ast.FunctionDef)}
    state = yaml.safe_load((BRIDGE / "dags" / "proxied_state" / "shop.yaml").read_text())
    assert {task["id"] for task in state["tasks"]} == tasks
    mappings = re.search(r"task_mappings=(\{.*?\})", (BRIDGE / "definitions.py").read_text(), re.DOTALL)
    assert mappings
    assert set(re.findall(r'"(\w+)":', mappings[1])) == tasks


AIRFLOW = os.environ.get("AIRFLOW_VENV", "")
needs_airflow = pytest.mark.skipif(
    not AIRFLOW or importlib.util.find_spec("dagster_airlift") is None,
    reason="set AIRFLOW_VENV to an environment with Airflow 2.11, and install dagster-airlift[core] here",
)
SETTINGS = {
    "telemetry": {"enabled": False},
    "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
}


def wait_for(is_true: Callable[[], object]) -> None:
    give_up = time.monotonic() + 240
    while not is_true():
        assert time.monotonic() < give_up
        time.sleep(1)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


@contextmanager
def started(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A server, with all that it starts, for the length of the block."""
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.mark.slow
@needs_airflow
def test_a_dag_of_a_real_airflow_is_seen_as_assets_and_one_of_its_tasks_runs_here(tmp_path: Path) -> None:
    web, ui = free_port(), free_port()
    home, dagster_home = tmp_path / "airflow", tmp_path / "dagster"
    shutil.copytree(BRIDGE / "dags", home / "dags")
    dagster_home.mkdir()
    (dagster_home / "dagster.yaml").write_text(json.dumps(SETTINGS))
    airflow_environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{AIRFLOW}/bin:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth",
        "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_HOST": "127.0.0.1",
        "DAGSTER_URL": f"http://127.0.0.1:{ui}",
    }
    here_environment = {
        **os.environ,
        "DAGSTER_HOME": str(dagster_home),
        "AIRFLOW_URL": f"http://127.0.0.1:{web}",
        "AIRFLOW_PASSWORD": "bridge",
    }

    def airflow(*words: str) -> None:
        subprocess.run([f"{AIRFLOW}/bin/airflow", *words], env=airflow_environment, check=True, capture_output=True)

    user = "--username admin --password bridge --firstname a --lastname b --role Admin --email a@example.com"
    airflow("db", "migrate")
    airflow("users", "create", *user.split())
    airflow("dags", "reserialize")
    dagster = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(ui)]
    with (
        started([f"{AIRFLOW}/bin/airflow", "webserver", "-p", str(web)], airflow_environment, tmp_path / "web.log"),
        started([f"{AIRFLOW}/bin/airflow", "scheduler"], airflow_environment, tmp_path / "scheduler.log"),
    ):
        wait_for(lambda: answers(f"http://127.0.0.1:{web}/health"))
        command = [*dagster, "-f", str(BRIDGE / "definitions.py")]
        with (
            started(command, here_environment, tmp_path / "dagster.log"),
            dg.DagsterInstance.from_config(str(dagster_home)) as instance,
        ):
            wait_for(lambda: answers(f"http://127.0.0.1:{ui}/server_info"))
            airflow("dags", "unpause", "shop")
            airflow("dags", "trigger", "shop", "-e", "2024-01-02T00:00:00+00:00")
            airflow("dags", "trigger", "shop", "-e", "2024-01-03T10:17:00+00:00")  # by hand, not at midnight

            def seen(asset: str) -> set[str]:
                return instance.get_materialized_partitions(dg.AssetKey(asset))

            days = {"2024-01-02", "2024-01-03"}
            wait_for(lambda: all(days <= seen(f"shop_{asset}") for asset in ("raw", "cleaned", "report")))
            made_here = {run.tags["dagster/partition"] for run in instance.get_runs() if run.is_success}
            assert days <= made_here
