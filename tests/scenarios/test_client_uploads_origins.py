"""One workflow, started by a file, by a schedule, by a rule of its own and by an HTTP call; each run says by which."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
from dagster_scenario import Scenario

import dedp_assets
from dedp_assets.client_uploads import contract
from tests.scenarios.webserver import web_server

REPOSITORY = Path(dedp_assets.__file__).parent.parent
WORKFLOW = "uploads_workflow"


@pytest.fixture
def scenario_settings() -> dict[str, object]:
    return {}


@pytest.fixture
def uploads(scenario: Scenario, dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """The system is up. No client has uploaded anything. Messages to people are in a file."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    monkeypatch.setenv("DEDP_NOTIFY", f"file:{own_home}/messages")
    scenario.start("2024-01-03 08:00:05")
    scenario.load("jobs.client_uploads")
    return scenario


@pytest.fixture
def upload(own_home: Path) -> Callable[..., None]:
    """Puts a complete file into the directory of a client, of which some lines have an empty name."""

    def put(client: str, good: int = 1, bad: int = 0) -> None:
        folder = own_home / "landing" / "clients" / client
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["id,name,value", *["1,item,1.5"] * good, *["2,,1.5"] * bad]
        (folder / ".orders.part").write_text("\n".join(lines) + "\n")
        (folder / ".orders.part").rename(folder / "orders.csv")

    return put


def origins(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[str]:
    """The origins of the runs of an asset, oldest first. Each is a run of the workflow, and has succeeded."""
    runs = [run for run in instance.get_runs()[::-1] if key in (run.asset_selection or ())]
    assert {(run.job_name, run.status) for run in runs} <= {(WORKFLOW, dg.DagsterRunStatus.SUCCESS)}
    return [run.tags["dedp/origin"] for run in runs]


def subjects(home: Path) -> list[str]:
    path = home / "messages"
    return [json.loads(line)["subject"] for line in path.read_text().splitlines()] if path.exists() else []


def test_a_file_starts_the_workflow_and_the_schedule_makes_the_report_of_it(
    uploads: Scenario, upload: Callable[..., None], own_home: Path
) -> None:
    upload("north")
    uploads.advance(minutes=3)
    assert origins(uploads.instance, contract.RECORDS) == ["file"]
    assert origins(uploads.instance, contract.REPORT) == ["schedule"]
    assert subjects(own_home) == []


def test_many_quarantined_lines_start_it_by_a_rule_and_people_are_told_once_per_incident(
    uploads: Scenario, upload: Callable[..., None], own_home: Path, dsn: str
) -> None:
    uploads.turn_off("uploads_report")
    upload("north", good=90, bad=30)
    uploads.advance(minutes=10)
    assert origins(uploads.instance, contract.REPORT) == ["rule"]
    told = "Client uploads: 25% of the lines of the last 1 h are in quarantine"
    assert subjects(own_home) == [told]
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE dedp.upload_files SET dealt_with_at = now() - interval '2 hours'")
    connection.close()
    uploads.advance(minutes=5)
    upload("south", good=90, bad=30)
    uploads.advance(minutes=10)
    assert origins(uploads.instance, contract.REPORT) == ["rule", "rule"]
    assert subjects(own_home) == [told, told]


def test_people_who_could_not_be_told_are_told_later_and_there_is_one_run(
    uploads: Scenario, upload: Callable[..., None], own_home: Path
) -> None:
    uploads.turn_off("uploads_report")
    (own_home / "messages").mkdir()  # nothing can be written to it
    upload("north", bad=200)
    uploads.advance(minutes=5)
    (own_home / "messages").rmdir()
    uploads.advance(minutes=5)
    assert len(subjects(own_home)) == 1
    assert origins(uploads.instance, contract.REPORT) == ["rule"]


@pytest.fixture
def webserver(dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dg.DagsterInstance]]:
    """The address of a real web server with the code location of the uploads, and its instance."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    monkeypatch.setenv("DAGSTER_HOME", str(own_home))
    with web_server(own_home, dsn, "-m", "jobs.client_uploads") as running:
        yield running


def call(command: str, instance: dg.DagsterInstance) -> dg.DagsterRun:
    """Run the command, and wait until the run that it has started is over."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)["data"]["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    give_up = time.monotonic() + 300
    while not (run := instance.get_run_by_id(answer["run"]["runId"])) or not run.is_finished:
        assert time.monotonic() < give_up, "the run does not end"
        time.sleep(0.5)
    return run


@pytest.mark.skipif(not shutil.which("curl"), reason="the documented command needs curl")
@pytest.mark.slow
def test_the_documented_http_call_takes_the_files_of_a_client_and_another_one_makes_the_report(
    webserver: tuple[str, dg.DagsterInstance], upload: Callable[..., None], dsn: str
) -> None:
    url, instance = webserver
    upload("north")
    instance.add_dynamic_partitions("upload_clients", ["north"])
    documented = (REPOSITORY / "docs" / "client_uploads.md").read_text()
    (command,) = re.findall(r"```\n(curl .*?)\n```", documented, re.DOTALL)
    command = command.replace("http://127.0.0.1:3000", url)
    call(command, instance)
    assert origins(instance, contract.RECORDS) == ["http"]
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT client, file, state, origin FROM dedp.upload_files")
        assert cursor.fetchall() == [("north", "orders.csv", "loaded", "http")]
    connection.close()
    (selection,) = re.findall(r'"assetSelection": (\[.*\])\n', command)
    (partition,) = re.findall(r', (\{"key": "dagster/partition".*?\})', command)
    (report,) = re.findall(r"let `assetSelection` be `(.*?)`", documented)
    call(command.replace(selection, report).replace(f", {partition}", ""), instance)
    assert origins(instance, contract.REPORT) == ["http"]
    assert "north" in contract.report_file().read_text()
