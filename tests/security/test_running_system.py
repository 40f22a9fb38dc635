"""A running system with secrets in its settings: nobody can see them, and nobody else can reach its processes."""

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dedp_assets.resources import embedded_postgres
from dedp_assets.resources.postgres_programs import connection_of
from tests.scenarios.system import System, temporary_home

pytestmark = pytest.mark.slow

SECRETS = ("pass-in-dsn", "token-in-notify", "key-in-users-api")

WHAT_THE_UI_SHOWS = """{
  instance { info runLauncher { name } }
  repositoriesOrError { ... on RepositoryConnection { nodes {
    name
    allTopLevelResourceDetails { name description configuredValues { key value type } configFields { name } }
    sensors { name sensorState { ticks { error { message stack } skipReason logKey } } }
    assetNodes { assetKey { path } configField { name configType { key } } metadataEntries { label description } }
  } } }
  runsOrError { ... on Runs { results { runConfigYaml tags { key value } } } }
}"""


@pytest.fixture(scope="module")
def system(module_dsn: str) -> Iterator[System]:
    """A system with secrets that has loaded a file, failed to load another one, and asked an API in vain."""
    separator = "&" if "?" in module_dsn else "?"
    with temporary_home() as home:
        system = System(
            home,
            DEDP_POSTGRES_DSN=f"{module_dsn}{separator}password={SECRETS[0]}",
            DEDP_NOTIFY=f"https://127.0.0.1:9/{SECRETS[1]}",
            DEDP_USERS_API=f"http://127.0.0.1:9/api/?key={SECRETS[2]}",
            DEDP_START="2999-01-01",
        )
        for day, content in (("2024-01-01", "type;full_name;version\ntv;Lux;1\n"), ("2024-01-02", "no header\n")):
            path = home / "landing" / "devices" / day / "dataset.csv"
            path.parent.mkdir(parents=True)
            path.write_text(content)
        system.up()
        try:
            system.wait_until(
                lambda: {run.status.value for run in system.instance.get_runs()} >= {"SUCCESS", "FAILURE"}
            )
            system.wait_until(lambda: "127.0.0.1:9" in dump(system))  # the sensor has asked the API
            yield system
        finally:
            system.down()


def dump(system: System) -> str:
    """Everything in the database, as text."""
    address, environment = connection_of(system.dsn)
    command = [str(embedded_postgres.binary("pg_dump")), f"--dbname={address}", "--inserts"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def processes(system: System) -> list[psutil.Process]:
    top = psutil.Process(int((system.home / "up.pid").read_text()))
    return [top, *top.children(recursive=True)]


def files(system: System) -> dict[Path, os.stat_result]:
    """What is in the home. Some of it goes away while somebody looks."""
    found = {}
    for path in system.home.rglob("*"):
        with suppress(FileNotFoundError):
            found[path] = path.lstat()
    return found


def content(path: Path) -> str:
    with suppress(FileNotFoundError):
        return path.read_text(errors="replace")
    return ""


def secrets_in(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def test_no_command_line_has_a_secret(system: System) -> None:
    found = processes(system)
    assert len(found) > 10
    with_secrets = 0
    for process in found:
        with suppress(psutil.NoSuchProcess):
            assert secrets_in(" ".join(process.cmdline())) == []
            with_secrets += secrets_in(str(process.environ())) == list(SECRETS)
    assert with_secrets > 5, "they do have them"


def test_no_log_and_nothing_in_the_database_has_a_secret(system: System) -> None:
    assert secrets_in((system.home / "logs" / "dagster.log").read_text()) == []
    assert secrets_in(dump(system)) == []
    for path in files(system):
        if path.is_relative_to(system.home / "dagster") and path.is_file():
            assert secrets_in(content(path)) == [], path


def test_the_ui_shows_no_secret(system: System) -> None:
    shown = str(system.graphql(WHAT_THE_UI_SHOWS))
    assert "postgres" in shown
    assert secrets_in(shown) == []


def test_no_file_that_others_may_read_has_a_secret(system: System) -> None:
    for path, status in files(system).items():
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o044:
            assert secrets_in(content(path)) == [], path


def test_every_port_is_on_this_machine_only(system: System) -> None:
    listening = set()
    for process in processes(system):
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections("inet")
            listening |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_nobody_else_can_reach_the_sockets_and_the_output_of_runs(system: System) -> None:
    for name in ("run", "dagster", "logs"):
        folder = system.home / name
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    sockets = [path for path, status in files(system).items() if stat.S_ISSOCK(status.st_mode)]
    assert len(sockets) > 8
    assert {path.parent for path in sockets} == {system.home / "run"}
