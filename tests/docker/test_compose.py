"""The services of docker compose fit together. The tests read the files, because no Docker engine runs here."""

import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import pytest
import yaml

from dedp_assets import settings
from dedp_assets.observability.cli import _known_settings

DOCKER = settings.REPOSITORY / "docker"
README = (DOCKER / "README.md").read_text()

# RUNS: a run and a tick print, in the process of a code server. SHOWS: another process, such as the UI, reads this.
RUNS = """
import dagster as dg

@dg.op
def work():
    print("said by the run", flush=True)

@dg.job
def job():
    work()

with dg.DagsterInstance.get() as instance:
    result = job.execute_in_process(instance=instance)
    (event,) = [event for event in result.all_events if event.event_type_value == "LOGS_CAPTURED"]
    print(result.run_id, event.logs_captured_data.file_key)
    log = instance.compute_log_manager
    with log.open_log_stream(["tick"], dg._core.storage.compute_log_manager.ComputeIOType.STDERR) as stream:
        stream.write("said by the tick")
"""
SHOWS = """
import sys
import dagster as dg

run, step = sys.argv[1:]
with dg.DagsterInstance.get() as instance:
    logs = instance.compute_log_manager
    print(instance.get_run_by_id(run).status.value)
    print(logs.get_log_data(logs.build_log_key_for_run(run, step)).stdout.decode())
    print(logs.get_log_data(["tick"]).stderr.decode())
"""


# The services of compose.yaml by name.
Services: TypeAlias = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def services() -> Services:
    found: Services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    return found


@pytest.fixture
def dagster_services(services: Services) -> Services:
    return {name: service for name, service in services.items() if str(service["image"]).startswith("dedp:")}


def dagster_home() -> PurePosixPath:
    found = re.search(r"DAGSTER_HOME=(\S+)", (DOCKER / "Dockerfile").read_text())
    assert found
    return PurePosixPath(found[1])


def mounts(service: dict[str, Any]) -> dict[PurePosixPath, str]:
    """Return the volumes that a container can write to, by their path in the container."""
    found = [volume.split(":") for volume in service.get("volumes", ())]
    return {PurePosixPath(parts[1]): parts[0] for parts in found if parts[2:] != ["ro"]}


def what_logs(home: str) -> dict[str, str]:
    """Return the folders for the logs of runs and ticks of an instance in `home` with docker/dagster.yaml."""
    from dagster._core.instance.ref import InstanceRef

    ref = InstanceRef.from_dir(home)
    return {
        "logs": yaml.safe_load(ref.compute_logs_data.config_yaml)["base_dir"],
        "artifacts": str(Path(ref.local_artifact_storage.base_dir) / "storage"),
    }


def test_each_code_location_of_the_workspace_is_a_service_that_the_daemon_and_the_ui_start_with_and_know(
    services: Services, dagster_services: Services
) -> None:
    workspace = yaml.safe_load((settings.REPOSITORY / "workspace.yaml").read_text())
    modules = {entry["python_module"].removeprefix("jobs."): entry["python_module"] for entry in workspace["load_from"]}
    assert set(dagster_services) == {*modules, "migrate", "daemon", "webserver", "alerts", "metrics"}

    known = [entry["grpc_server"] for entry in yaml.safe_load((DOCKER / "workspace.yaml").read_text())["load_from"]]
    assert {server["host"]: server["location_name"] for server in known} == modules
    for server in known:
        service, port = services[server["host"]], server["port"]
        command = f"dagster-warm-launcher grpc -m {server['location_name']} -h 0.0.0.0 -p {port} "
        assert service["command"].startswith(command)
        assert service["healthcheck"]["test"][3:] == ["python", "docker/healthy.py", "grpc", str(port)]
        assert f"`{server['host']}`" in README
    for name in ("daemon", "webserver"):
        assert set(services[name]["depends_on"]) == {*modules, "postgres", "migrate"}
        assert f"-w {DOCKER.name}/workspace.yaml" in services[name]["command"]


def test_every_setting_reaches_the_containers_or_the_readme_says_what_it_is_there() -> None:
    table = (settings.REPOSITORY / "README.md").read_text().partition("## Settings")[2].partition("## ")[0]
    compose = (DOCKER / "compose.yaml").read_text()
    for name in re.findall(r"^\| .*", table, re.MULTILINE):
        for setting in re.findall(r"DEDP_\w+", name.split("|")[1]):
            assert re.search(rf"\b{setting}\b", compose) or f"`{setting}` is" in README, setting


def test_dedp_doctor_takes_no_variable_of_a_container_for_a_misspelt_setting(services: Services) -> None:
    passed = {name for service in services.values() for name in service.get("environment") or {} if "DEDP_" in name}
    assert passed - _known_settings() == set()


@pytest.mark.parametrize(
    ("service", "setting"),
    [
        ("devices_loader", "DEDP_START"),
        ("devices_aggregator", "DEDP_FRESHNESS"),
        ("alerts", "DEDP_FRESHNESS"),
        ("late_data_integrator", "DEDP_SPARK_REMOTE"),
        ("late_data_integrator", "DEDP_DATA_URI"),
        ("promotions", "DEDP_SUPPLIERS"),
        ("promotion_reports", "DEDP_SUPPLIERS"),
        ("promotion_reports", "DEDP_NOTIFY"),
        ("user_intake", "DEDP_USERS_API"),
        ("flight_search", "DEDP_SPARK_REMOTE"),
        ("flight_search", "DEDP_DATA_URI"),
        ("flight_search", "DEDP_SETTLE_SECONDS"),
    ],
)
def test_a_location_gets_its_setting_beside_those_of_all(services: Services, service: str, setting: str) -> None:
    of_all = {"DEDP_POSTGRES_DSN", "DEDP_POSTGRES_PASSWORD_FILE", "DEDP_DAGSTER_STORAGE"}
    assert {setting, *of_all} <= services[service]["environment"].keys()


def test_the_containers_of_dagster_share_the_folder_of_what_runs_and_ticks_print(
    tmp_path: Path, dagster_services: Services
) -> None:
    (tmp_path / "dagster.yaml").write_text((DOCKER / "dagster.yaml").read_text())
    del dagster_services["metrics"]  # it asks PostgreSQL alone
    for folder in what_logs(str(tmp_path)).values():
        within = dagster_home() / Path(folder).relative_to(tmp_path).as_posix()
        volumes = {
            volume
            for service in dagster_services.values()
            for where, volume in mounts(service).items()
            if within.is_relative_to(where)
        }
        assert all(
            any(within.is_relative_to(where) for where in mounts(service)) for service in dagster_services.values()
        )
        assert volumes == {"logs"}
    assert "logs" in yaml.safe_load((DOCKER / "compose.yaml").read_text())["volumes"]


def test_a_new_volume_belongs_to_the_user_of_the_containers() -> None:
    """Docker gives a new volume the owner of the folder that the image has at its path."""
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert f"mkdir -p {dagster_home()}/storage /data" in dockerfile
    assert f'chown -R "$DEDP_UID" {dagster_home()} /data' in dockerfile
    assert dockerfile.index("chown -R") < dockerfile.index("USER ${DEDP_UID}")


def test_the_image_has_all_that_the_wheel_is_built_from() -> None:
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE))
    names = {name for line in copied for name in line.split()}
    # .dockerignore leaves out everything but what begins with one of these.
    sent = {line[1:] for line in (DOCKER.parent / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert [name for name in names if not any(name == each or name.startswith(f"{each}/") for each in sent)] == []
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "workspace.yaml",
        "docker",
        "dedp_assets",
        "sensors",
        "jobs",
    } <= names


@pytest.mark.slow
def test_what_a_run_and_a_tick_print_in_one_container_another_one_shows(tmp_path: Path, empty_dsn: str) -> None:
    """Two processes have a DAGSTER_HOME each. As with the volume, `storage` is the same folder in both."""
    shared = tmp_path / "volume"
    shared.mkdir()

    def python(name: str, program: str, *arguments: str) -> list[str]:
        home = tmp_path / name
        home.mkdir()
        (home / "storage").symlink_to(shared)
        (home / "dagster.yaml").write_text((DOCKER / "dagster.yaml").read_text())
        environment = {**os.environ, "DAGSTER_HOME": str(home), "DEDP_DAGSTER_STORAGE": empty_dsn}
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    run, step = python("code", RUNS)[-1].split()
    assert python("webserver", SHOWS, run, step) == ["SUCCESS", "said by the run", "", "said by the tick"]
