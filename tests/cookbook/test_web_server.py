"""The web server starts a run and takes events, by POST. In one test, because a web server takes seconds to start."""

from pathlib import Path

import dagster as dg
import pytest
import requests

import dedp_assets
from tests.scenarios.webserver import ended, web_server

LAUNCH = (Path(dedp_assets.__file__).parent / "cookbook" / "launch_run.graphql").read_text()


@pytest.mark.slow
def test_another_system_starts_a_run_with_parameters_and_reports_an_event(
    tmp_path: Path, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))

    def launch(rows: object) -> str:
        config = {"ops": {"choose": {"config": {"rows": rows}}}}
        body = {"query": LAUNCH, "variables": {"job": "load_by_size", "config": config}}
        answer = requests.post(f"{url}/graphql", json=body, auth=("dedp", "dedp"), timeout=60).json()
        return str(answer["data"]["launchRun"]["__typename"])

    with web_server(tmp_path, empty_dsn, "-m", "jobs.cookbook") as (url, instance):
        assert launch(5) == "LaunchRunSuccess"
        assert launch("five") == "RunConfigValidationInvalid"
        path = f"{url}/report_asset_materialization/cookbook_orders"
        requests.post(path, json={"partition": "2024-01-02"}, auth=("dedp", "dedp"), timeout=60).raise_for_status()
        assert [run.status for run in ended(instance)] == [dg.DagsterRunStatus.SUCCESS]
        assert instance.get_materialized_partitions(dg.AssetKey("cookbook_orders")) == {"2024-01-02"}
