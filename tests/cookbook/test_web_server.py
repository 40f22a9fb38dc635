"""The web server starts a run and takes events, by POST. In one test, because a web server takes seconds to start."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import requests

import dedp_assets
from dedp_assets.local_stack import free_port

LAUNCH = (Path(dedp_assets.__file__).parent / "cookbook" / "launch_run.graphql").read_text()
SETTINGS = {
    "telemetry": {"enabled": False},
    # No daemon: a run starts as soon as it is launched.
    "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
}


def wait_for(is_true: Callable[[], object]) -> None:
    give_up = time.monotonic() + 120
    while not is_true():
        assert time.monotonic() < give_up
        time.sleep(0.5)


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/server_info", timeout=5).ok
    except requests.RequestException:
        return False


@pytest.mark.slow
def test_another_system_starts_a_run_with_parameters_and_reports_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(json.dumps(SETTINGS))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port), "-m", "jobs.cookbook"]

    def launch(rows: object) -> str:
        config = {"ops": {"choose": {"config": {"rows": rows}}}}
        body = {"query": LAUNCH, "variables": {"job": "load_by_size", "config": config}}
        answer = requests.post(f"{url}/graphql", json=body, timeout=60).json()
        return str(answer["data"]["launchRun"]["__typename"])

    with subprocess.Popen(command) as server, dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        try:
            wait_for(lambda: answers(url))
            assert launch(5) == "LaunchRunSuccess"
            assert launch("five") == "RunConfigValidationInvalid"
            path = f"{url}/report_asset_materialization/cookbook_orders"
            requests.post(path, json={"partition": "2024-01-02"}, timeout=60).raise_for_status()
            wait_for(lambda: all(run.is_finished for run in instance.get_runs()))
            assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
            assert instance.get_materialized_partitions(dg.AssetKey("cookbook_orders")) == {"2024-01-02"}
        finally:
            server.terminate()
