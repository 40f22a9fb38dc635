"""Another system starts a job: by the documented curl line, by the Python client, and by Dagster's command line."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pydantic
import pytest

from dedp_assets.launching import Job, LaunchRefused, WebServerUnavailable, launch
from dedp_assets.origin import origin_of
from tests.scenarios.webserver import REPOSITORY, ended, web_server

# Real processes: a web server, and one for each run.
pytestmark = pytest.mark.slow

EXAMPLE = REPOSITORY / "examples" / "relations" / "from_outside.py"
PAGE = (REPOSITORY / "docs" / "relations.md").read_text(encoding="utf-8")


class Parameters(pydantic.BaseModel):
    """What the caller's own code knows of the job."""

    supermarket_id: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dg.DagsterInstance]]:
    """The address of a web server with the example, and its instance."""
    home = tmp_path_factory.mktemp("web")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        patch.setenv("DEDP_HOME", str(home))
        with web_server(home, "-f", str(EXAMPLE)) as running:
            yield running


def test_a_delivery_of_an_unknown_supplier_or_day_is_refused_and_has_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promotions have partitions, supplier by day."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with web_server(tmp_path, "-m", "jobs.promotions") as (url, instance):

        def take(partition: str) -> str:
            job = Job(url, "jobs.promotions", assets=["promotions/raw"], partition=partition)
            with pytest.raises(LaunchRefused) as refused:
                launch(job, request_id="order 1", timeout_seconds=120)
            return str(refused.value)

        suppliers = "supermarket1, supermarket2, supermarket3, supermarket4"
        assert take("supermarket9|2024-01-05").endswith(f"supplier 'supermarket9' does not exist; expected {suppliers}")
        assert "trading_day '2023-12-31' does not exist; expected one of 2024-01-01 to" in take(
            "supermarket1|2023-12-31"
        )
        assert take("supermarket1").endswith("expected supplier|trading_day")
        assert instance.get_runs() == []


@pytest.fixture
def job(server: tuple[str, dg.DagsterInstance]) -> Job:
    return Job(server[0], "from_outside.py", "refresh_supermarket")


@pytest.fixture
def instance(server: tuple[str, dg.DagsterInstance]) -> Iterator[dg.DagsterInstance]:
    """The instance, without runs of other tests."""
    yield server[1]
    for run in ended(server[1]):
        server[1].delete_run(run.run_id)


def supermarkets(instance: dg.DagsterInstance) -> list[object]:
    """What the runs that succeeded have done, oldest first."""
    records = instance.fetch_materializations(dg.AssetKey("offers"), limit=50, ascending=True).records
    run_ids = {run.run_id for run in ended(instance)}
    return [
        record.asset_materialization.metadata["supermarket"].value
        for record in records
        if record.asset_materialization and record.run_id in run_ids
    ]


def test_the_client_starts_a_job_with_its_parameters(job: Job, instance: dg.DagsterInstance) -> None:
    launched = launch(job, Parameters(supermarket_id=1), request_id="order 1", timeout_seconds=120)
    (run,) = ended(instance)
    assert launched == (run.run_id, True)
    assert (run.status, origin_of(run.tags)) == (dg.DagsterRunStatus.SUCCESS, "http")
    assert supermarkets(instance) == ["supermarket1"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"supermarket_id": 7}, "there is no supermarket 7; expected one of 1, 2, 3, 4"),
        ({"supermarket_id": "one"}, "is not valid for expected type"),
        ({}, 'Missing required config entry "supermarket_id"'),
        ({"supermarket_id": 1, "day": "today"}, 'unexpected config entry "day"'),
    ],
)
def test_a_parameter_that_is_not_valid_gets_a_reason_and_no_run(
    job: Job, instance: dg.DagsterInstance, config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LaunchRefused, match=re.escape(reason)) as refused:
        launch(job, config, request_id="order 1")
    assert "Traceback" not in str(refused.value)
    assert instance.get_runs() == []


def test_a_job_that_does_not_exist_is_refused(job: Job, instance: dg.DagsterInstance) -> None:
    with pytest.raises(LaunchRefused, match="no_such_job"):
        launch(Job(job.url, job.location, "no_such_job"), request_id="order 1")
    assert instance.get_runs() == []


def test_a_web_server_that_is_away_is_named() -> None:
    with pytest.raises(WebServerUnavailable, match=r"127\.0\.0\.1:9 does not answer"):
        launch(Job("http://127.0.0.1:9", "anywhere"), request_id="order 1")


def test_the_same_request_twice_is_one_run(job: Job, instance: dg.DagsterInstance) -> None:
    first = launch(job, Parameters(supermarket_id=2), request_id="order 2", timeout_seconds=120)
    again = launch(job, Parameters(supermarket_id=2), request_id="order 2", timeout_seconds=120)
    another = launch(job, Parameters(supermarket_id=2), request_id="order 3", timeout_seconds=120)
    assert again == (first.run_id, False)
    assert [run.run_id for run in ended(instance)] == [first.run_id, another.run_id]


def test_requests_that_race_do_the_work_once(job: Job, instance: dg.DagsterInstance) -> None:
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(launch, job, Parameters(supermarket_id=3), request_id="order 4", timeout_seconds=120)
    statuses = [run.status for run in ended(instance)]
    assert supermarkets(instance) == ["supermarket3"]
    assert statuses.count(dg.DagsterRunStatus.SUCCESS) == 1
    assert set(statuses) <= {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED}


def documented(language: str, containing: str) -> str:
    """The block of the page with these words."""
    (block,) = [text for text in re.findall(rf"```{language}\n(.*?)\n```", PAGE, re.DOTALL) if containing in text]
    return str(block)


@pytest.mark.skipif(not shutil.which("curl"), reason="the documented command needs curl")
def test_the_documented_curl_line_starts_the_job_and_twice_does_the_work_once(
    job: Job, instance: dg.DagsterInstance
) -> None:
    command = documented("sh", "curl").replace("http://127.0.0.1:3000", job.url)
    for _ in range(2):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["data"]["launchRun"]["__typename"] == "LaunchRunSuccess", done.stdout
    assert sorted(run.status.value for run in ended(instance)) == ["CANCELED", "SUCCESS"]
    assert supermarkets(instance) == ["supermarket1"]
    wrong = subprocess.run(
        ["bash", "-c", command.replace('{"supermarket_id": 1}', '{"supermarket_id": 7}')],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "there is no supermarket 7; expected one of 1, 2, 3, 4" in wrong.stdout
    assert len(instance.get_runs()) == 2


def test_the_documented_python_starts_the_job(job: Job, instance: dg.DagsterInstance) -> None:
    code = documented("python", "from dedp_assets.launching").replace("http://127.0.0.1:3000", job.url)
    exec(compile(code, "docs/relations.md", "exec"), {"__name__": "documented"})
    ended(instance)
    assert supermarkets(instance) == ["supermarket1"]


def test_the_documented_commands_execute_and_launch_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dagster job execute` runs in its own process; `launch` starts a run of the instance."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    coordinator = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    (tmp_path / "dagster.yaml").write_text(
        json.dumps({"telemetry": {"enabled": False}, "run_coordinator": coordinator})
    )
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{Path('/usr/bin')}:{Path('/bin')}")
    commands = documented("sh", "dagster job execute")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        subprocess.run(["bash", "-e", "-c", commands], cwd=REPOSITORY, check=True)
        assert [run.status.value for run in ended(instance)] == ["SUCCESS"] * 2
        wrong = subprocess.run(
            ["bash", "-e", "-c", commands.replace('"supermarket_id": 1', '"supermarket_id": 7')],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert wrong.returncode == 1
        assert "there is no supermarket 7; expected one of 1, 2, 3, 4" in wrong.stderr
        assert len(instance.get_runs()) == 2
