"""Docker Compose and hadolint accept the files, and every service is held as tightly as it can be."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.compose import DOCKER, program, resolved


@pytest.fixture(scope="module")
def docker_compose() -> str:
    found = program("docker-compose")
    if found is None:
        pytest.skip("needs docker-compose, of requirements-dev.txt")
    return found


@pytest.fixture(scope="module")
def project(docker_compose: str) -> dict[str, Any]:
    return resolved(docker_compose, {})


def test_every_service_runs_without_privileges_on_a_read_only_file_system(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        is_ours = service["image"].startswith("dedp:")
        user = service.get("user", "the user of our image" if is_ours else "root")
        assert user.partition(":")[0] not in ("", "0", "root"), name


def test_every_service_has_limits_a_restart_policy_a_health_check_and_bounded_logs(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert int(limits["memory"]) > 0, name
        assert int(limits["pids"]) > 0, name
        assert {"max-size", "max-file"} <= service["logging"]["options"].keys(), name
        if name == "migrate":
            assert service["restart"].startswith("on-failure:")
        else:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"], name


def test_every_health_check_has_a_watchdog_that_may_kill_the_first_child_of_process_1(project: dict[str, Any]) -> None:
    """Without `init: true`, process 1 is the service, which takes no SIGKILL, and its first child something else."""
    for name, service in project["services"].items():
        if name != "migrate":
            assert service["init"] is True, name
            (_, shell, watchdog, *_) = service["healthcheck"]["test"]
            assert shell == "sh", name
            mounted = {
                mount["target"]: mount["source"] for mount in service.get("volumes", ()) if mount["type"] == "bind"
            }
            inside = mounted.get(watchdog, str(DOCKER.parent / watchdog))
            assert inside == str(DOCKER / "watchdog.sh"), name
            assert any(each.startswith("/tmp:") for each in service["tmpfs"]), name


def test_each_service_waits_for_what_it_can_not_begin_without(project: dict[str, Any]) -> None:
    def conditions(name: str) -> dict[str, str]:
        needed: dict[str, Any] = project["services"][name].get("depends_on", {})
        return {other: need["condition"] for other, need in needed.items()}

    nothing: dict[str, str] = {}
    database = {"postgres": "service_healthy"}
    made = {**database, "migrate": "service_completed_successfully"}
    locations = {
        name: "service_started"
        for name, service in project["services"].items()
        if "grpc" in " ".join(service.get("command") or ()).split()
    }
    all_of_it = {**made, **locations}
    assert {name: conditions(name) for name in project["services"]} == {
        **dict.fromkeys(("postgres", "spark"), nothing),
        "migrate": database,
        **dict.fromkeys([*locations, "alerts", "metrics"], made),
        **dict.fromkeys(("daemon", "webserver"), all_of_it),
    }


def test_the_image_of_ours_ends_as_a_user_whose_number_kubernetes_and_docker_know() -> None:
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if line.startswith(("USER", "ARG DEDP"))]
    assert lines == ["ARG DEDP_UID=1000", "USER ${DEDP_UID}"]


def test_no_password_is_in_the_environment_and_none_has_a_default(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            assert "PASSWORD" not in variable or value.startswith("/run/secrets/"), name
            assert not re.search("://[^/@]*:[^/@]*@", value or ""), f"{name}: {variable}"
    for secret in project["secrets"].values():
        assert secret.keys() == {"name", "file"}
        assert Path(secret["file"]).parent == DOCKER / "secrets"
    assert "docker/secrets/" in (DOCKER.parent / ".gitignore").read_text().splitlines()


def test_only_the_page_and_the_figures_can_be_reached_and_only_from_this_machine(project: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in project["services"].items() if "ports" in service}
    assert published.keys() == {"webserver", "metrics"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}
    assert project["networks"]["database"]["internal"]


def test_without_settings_a_name_that_is_only_passed_on_stays_unset(project: dict[str, Any]) -> None:
    assert project["services"]["devices_loader"]["environment"]["DEDP_START"] is None


def test_a_setting_of_the_user_reaches_the_service(docker_compose: str) -> None:
    project = resolved(docker_compose, {"DEDP_START": "2024-01-01", "DEDP_UID": "1234", "DEDP_SPARK_MEMORY": "3g"})
    assert project["services"]["devices_loader"]["environment"]["DEDP_START"] == "2024-01-01"
    assert project["services"]["webserver"]["build"]["args"]["DEDP_UID"] == "1234"
    assert "--driver-memory=3g" in project["services"]["spark"]["command"]


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = program("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint, of requirements-dev.txt")
    done = subprocess.run(
        [hadolint, "--no-color", "--format", "json", str(DOCKER / "Dockerfile")], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == []
