"""Another system refreshes a supermarket: by the documented curl line, the Python client, and the command line."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import psycopg2
import pydantic
import pytest

from dedp_assets.launching import Job, LaunchRefused, WebServerUnavailable, launch
from dedp_assets.origin import ORIGIN_TAG
from dedp_assets.promotions.generator import offers, write_delivery
from tests.scenarios.webserver import REPOSITORY, ended, web_server

# Real processes: a web server, and one for each run.
pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs" / "relations.md").read_text(encoding="utf-8")
DAYS = ("2024-01-05", "2024-01-06")


class Parameters(pydantic.BaseModel):
    """What the caller's own code knows of the job."""

    supermarket_id: int
    day: str | None = None
    again: bool = False


def deliver(home: Path) -> None:
    """Each supplier delivers for two days."""
    for supplier in ("supermarket1", "supermarket2", "supermarket3", "supermarket4"):
        for day in DAYS:
            lines = [offer.line for offer in offers(supplier, date.fromisoformat(day), 3)]
            write_delivery(home / "landing" / "promotions" / supplier / day, lines)


class System(NamedTuple):
    """A web server with the promotions, without sensors.

    Attributes:
        url: Its address.
        instance: Its instance.
        dsn: The database of its runs.
    """

    url: str
    instance: dg.DagsterInstance
    dsn: str

    @property
    def job(self) -> Job:
        return Job(self.url, "jobs.promotions", "refresh_supermarket", sign_in=("dedp", "dedp"))

    def taken(self) -> list[str | None]:
        """The deliveries that the runs have taken, in their order, one for each run."""
        return taken(self.instance)

    def load_number(self, supplier: str, day: str = DAYS[1]) -> int:
        """Of the load that is there. Each load has a higher one."""
        connection = psycopg2.connect(self.dsn)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT load_number FROM dedp.promotion_deliveries WHERE supplier = %s AND day = %s",
                    [supplier, day],
                )
                ((number,),) = cursor.fetchall()
                return int(number)
        finally:
            connection.close()


def taken(instance: dg.DagsterInstance) -> list[str | None]:
    run_ids = [run.run_id for run in ended(instance)]
    found = []
    for asset in ("raw", "cleaned", "metrics"):
        key = dg.AssetKey(["promotions", asset])
        records = instance.fetch_materializations(key, limit=50, ascending=True).records
        found.append([record.partition_key for record in records if record.run_id in run_ids])
    assert found[0] == found[1] == found[2]
    return found[0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, module_dsn: str) -> Iterator[System]:
    home = tmp_path_factory.mktemp("web")
    deliver(home)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"DAGSTER_HOME": str(home), "DEDP_HOME": str(home), "DEDP_POSTGRES_DSN": module_dsn}.items():
            patch.setenv(name, value)
        with web_server(home, module_dsn, "-m", "jobs.promotions") as (url, instance):
            yield System(url, instance, module_dsn)


@pytest.fixture
def system(running: System) -> Iterator[System]:
    """The system, without runs of other tests."""
    yield running
    for run in ended(running.instance):
        running.instance.delete_run(run.run_id)


def test_the_client_has_the_latest_delivery_of_a_supermarket_taken(system: System) -> None:
    launched = launch(system.job, Parameters(supermarket_id=1), request_id="order 1", timeout_seconds=120)
    (run,) = ended(system.instance)
    assert launched == (run.run_id, True)
    assert (run.status, run.tags[ORIGIN_TAG]) == (dg.DagsterRunStatus.SUCCESS, "http")
    assert system.taken() == ["supermarket1|2024-01-06"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"supermarket_id": 7}, "there is no supermarket 7; expected one of 1, 2, 3, 4"),
        ({"supermarket_id": "one"}, "is not valid for expected type"),
        ({}, 'Missing required config entry "supermarket_id"'),
        ({"supermarket_id": 1, "days": 2}, 'unexpected config entry "days"'),
        ({"supermarket_id": 1, "day": "today"}, "expected a day from 2024-01-01 to "),
        ({"supermarket_id": 1, "day": "2023-12-31"}, "found '2023-12-31'"),
        ({"supermarket_id": 1, "again": "yes"}, "is not valid for expected type"),
    ],
)
def test_a_parameter_that_is_not_valid_gets_a_reason_and_no_run(
    system: System, config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LaunchRefused, match=re.escape(reason)) as refused:
        launch(system.job, config, request_id="order 1", timeout_seconds=120)
    said = str(refused.value)
    assert not any(word in said for word in ("Traceback", "Stack Trace", "dedp_assets", "{ env"))
    assert system.instance.get_runs() == []


def test_a_partition_of_an_unknown_supplier_or_day_is_refused_by_the_client_and_has_no_run(system: System) -> None:
    def take(partition: str) -> str:
        job = replace(system.job, name="__ASSET_JOB", assets=["promotions/raw"], partition=partition)
        with pytest.raises(LaunchRefused) as refused:
            launch(job, request_id="order 1", timeout_seconds=120)
        return str(refused.value)

    suppliers = "supermarket1, supermarket2, supermarket3, supermarket4"
    assert take("supermarket9|2024-01-05").endswith(f"supplier 'supermarket9' does not exist; expected {suppliers}")
    assert "trading_day '2023-12-31' does not exist; expected one of 2024-01-01 to" in take("supermarket1|2023-12-31")
    assert take("supermarket1").endswith("expected supplier|trading_day")
    assert system.instance.get_runs() == []


def test_a_job_that_does_not_exist_is_refused(system: System) -> None:
    with pytest.raises(LaunchRefused, match="no_such_job"):
        launch(replace(system.job, name="no_such_job"), request_id="order 1")
    assert system.instance.get_runs() == []


@pytest.mark.parametrize("sign_in", [None, "dedp_no_such_token", ("dedp", "another password")])
def test_a_program_that_the_web_server_does_not_know_is_told_so(
    system: System, sign_in: str | tuple[str, str] | None
) -> None:
    with pytest.raises(LaunchRefused, match="asks who you are"):
        launch(replace(system.job, sign_in=sign_in), request_id="order 1")
    assert system.instance.get_runs() == []


def test_a_web_server_that_is_away_is_named() -> None:
    with pytest.raises(WebServerUnavailable, match=r"127\.0\.0\.1:9 does not answer"):
        launch(Job("http://127.0.0.1:9", "anywhere"), request_id="order 1")


def test_the_same_request_twice_is_one_run_and_another_one_may_load_the_same_day_again(system: System) -> None:
    day = Parameters(supermarket_id=2, day=DAYS[0])
    first = launch(system.job, day, request_id="order 2", timeout_seconds=120)
    again = launch(system.job, day, request_id="order 2", timeout_seconds=120)
    assert again == (first.run_id, False)
    assert system.taken() == ["supermarket2|2024-01-05"]
    before = system.load_number("supermarket2", DAYS[0])
    another = launch(
        system.job, Parameters(supermarket_id=2, day=DAYS[0], again=True), request_id="order 3", timeout_seconds=120
    )
    assert [run.run_id for run in ended(system.instance)] == [first.run_id, another.run_id]
    assert system.load_number("supermarket2", DAYS[0]) > before


def test_requests_that_race_do_the_work_once(system: System) -> None:
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(launch, system.job, Parameters(supermarket_id=3), request_id="order 4", timeout_seconds=120)
    statuses = [run.status for run in ended(system.instance)]
    assert system.taken() == ["supermarket3|2024-01-06"]
    assert statuses.count(dg.DagsterRunStatus.SUCCESS) == 1
    assert set(statuses) <= {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED}


def test_different_requests_for_a_delivery_that_meet_load_it_once(system: System) -> None:
    with ThreadPoolExecutor(2) as pool:
        for number in (5, 6):
            parameters, request_id = Parameters(supermarket_id=4), f"order {number}"
            pool.submit(launch, system.job, parameters, request_id=request_id, timeout_seconds=120)
    assert system.taken() == ["supermarket4|2024-01-06"] * 2
    cleaned = system.instance.fetch_materializations(dg.AssetKey(["promotions", "cleaned"]), limit=2).records
    metadata = [record.asset_materialization.metadata for record in cleaned if record.asset_materialization]
    assert {each["load_number"].value for each in metadata} == {system.load_number("supermarket4")}
    assert {each["was_loaded_before"].value for each in metadata} == {True, False}


def test_a_person_in_the_ui_and_a_call_that_does_not_say_so_are_by_hand(system: System) -> None:
    """The UI sends the tags of its launchpad. A call may send none."""
    tags: list[list[dict[str, str]]] = [[], [{"key": "dagster/from_ui", "value": "true"}]]
    for each in tags:
        call = documented("sh", "curl").replace("http://127.0.0.1:3000", system.url)
        call = re.sub(r'"tags": \[.*?\]', f'"tags": {json.dumps(each)}', call, flags=re.DOTALL)
        subprocess.run(["bash", "-c", call], capture_output=True, check=True)
    assert [run.tags[ORIGIN_TAG] for run in ended(system.instance)] == ["by hand"] * 2
    assert system.taken() == ["supermarket1|2024-01-06"] * 2


def documented(language: str, containing: str) -> str:
    """The block of the page with these words."""
    (block,) = [text for text in re.findall(rf"```{language}\n(.*?)\n```", PAGE, re.DOTALL) if containing in text]
    return str(block)


@pytest.mark.skipif(not shutil.which("curl"), reason="the documented command needs curl")
def test_the_documented_curl_line_starts_the_job_and_twice_does_the_work_once(system: System) -> None:
    command = documented("sh", "curl").replace("http://127.0.0.1:3000", system.url)
    for _ in range(2):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["data"]["launchRun"]["__typename"] == "LaunchRunSuccess", done.stdout
    assert sorted(run.status.value for run in ended(system.instance)) == ["CANCELED", "SUCCESS"]
    assert system.taken() == ["supermarket1|2024-01-06"]
    wrong = subprocess.run(
        ["bash", "-c", command.replace('{"supermarket_id": 1}', '{"supermarket_id": 7}')],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "there is no supermarket 7; expected one of 1, 2, 3, 4" in wrong.stdout
    assert len(system.instance.get_runs()) == 2


def test_the_documented_python_starts_the_job(system: System) -> None:
    code = documented("python", "from dedp_assets.launching").replace("http://127.0.0.1:3000", system.url)
    exec(compile(code, "docs/relations.md", "exec"), {"__name__": "documented"})
    ended(system.instance)
    assert system.taken() == ["supermarket1|2024-01-06"]


def test_the_documented_commands_execute_and_launch_the_job(
    tmp_path: Path, own_home: Path, module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dagster job execute` runs in its own process; `launch` starts a run of the instance."""
    deliver(own_home)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DEDP_POSTGRES_DSN", module_dsn)
    coordinator = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    (tmp_path / "dagster.yaml").write_text(
        json.dumps({"telemetry": {"enabled": False}, "run_coordinator": coordinator})
    )
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{Path('/usr/bin')}:{Path('/bin')}")
    commands = documented("sh", "dagster job execute")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        subprocess.run(["bash", "-e", "-c", commands], cwd=REPOSITORY, check=True)
        assert [run.status.value for run in ended(instance)] == ["SUCCESS"] * 2
        assert [run.tags[ORIGIN_TAG] for run in ended(instance)] == ["by hand"] * 2
        assert taken(instance) == ["supermarket1|2024-01-06"] * 2
        wrong = subprocess.run(
            ["bash", "-e", "-c", commands.replace('"supermarket_id": 1', '"supermarket_id": 7')],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert wrong.returncode == 1
        assert "there is no supermarket 7; expected one of 1, 2, 3, 4" in wrong.stderr
        assert len(instance.get_runs()) == 2
