"""The manifests and the chart's values of docker/kubernetes belong together, and Kubernetes and Dagster take them.

Dagster's Helm chart is not part of this repository. With DEDP_DAGSTER_CHART, the folder of an unpacked chart, and the
package helm-python-sdk, the last tests render it with our values. The chart's values.schema.json refers to a web site
for the schemas of Kubernetes. Without a network, let it refer to those in the package kubernetes-validate.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from dedp_assets import settings

DOCKER = settings.REPOSITORY / "docker"
FOLDER = DOCKER / "kubernetes"
CHART = os.environ.get("DEDP_DAGSTER_CHART")
# The oldest and the newest that we claim.
VERSIONS = ("1.31", "1.36")

Manifest = dict[str, Any]


@cache
def values() -> Manifest:
    found: Manifest = yaml.safe_load((FOLDER / "values.yaml").read_text())
    return found


@cache
def manifests() -> list[Manifest]:
    """The objects of our own files. A list holds several."""
    documents = [
        document
        for name in ("dedp.yaml", "spark.yaml")
        for document in yaml.safe_load_all((FOLDER / name).read_text())
        if document
    ]
    return [each for document in documents for each in document.get("items", [document])]


def named(kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests() if each["kind"] == kind}


def locations() -> dict[str, Manifest]:
    """The code locations of the chart, by the module that each serves."""
    found = {each["dagsterApiGrpcArgs"][1]: each for each in values()["dagster-user-deployments"]["deployments"]}
    assert all(each["dagsterApiGrpcArgs"][0] == "-m" for each in found.values())
    return found


def pods() -> Iterator[Manifest]:
    """What our own pods are like, without those of the chart."""
    for each in manifests():
        if each["kind"] == "Deployment":
            yield each["spec"]["template"]
        if each["kind"] == "CronJob":
            yield each["spec"]["jobTemplate"]["spec"]["template"]


def everything_under(key: str, place: Any) -> Iterator[Any]:
    """Each value with this key, at any depth."""
    if isinstance(place, dict):
        for name, value in place.items():
            if name == key:
                yield value
            yield from everything_under(key, value)
    if isinstance(place, list):
        for each in place:
            yield from everything_under(key, each)


def test_each_code_location_is_served_under_the_name_that_it_has_everywhere() -> None:
    workspace = yaml.safe_load((settings.REPOSITORY / "workspace.yaml").read_text())
    modules = {entry["python_module"] for entry in workspace["load_from"]}
    assert locations().keys() == modules
    servers = {
        each["name"]: (each["host"], each["port"]) for each in values()["dagsterWebserver"]["workspace"]["servers"]
    }
    assert servers == {module: (each["name"], each["port"]) for module, each in locations().items()}


def test_the_locations_that_take_files_see_where_they_land_and_no_other_does() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]

    def takes_files(module: str) -> bool:
        volumes = services[module.removeprefix("jobs.")].get("volumes", [])
        return any(":/data/landing" in str(volume) for volume in volumes)

    for module, location in locations().items():
        mounted = {mount["mountPath"]: mount for mount in location["volumeMounts"]}
        assert "/data" in mounted
        assert ("/data/landing" in mounted) == takes_files(module), module
        assert mounted.get("/data/landing", {"readOnly": True})["readOnly"]


def test_everything_that_is_named_is_made_here_or_by_the_chart_or_told_to_make() -> None:
    page = (settings.REPOSITORY / "docs" / "kubernetes.md").read_text()
    told = set(re.findall(r"create secret generic (\S+)", page))
    everywhere = [*manifests(), values()]
    for claim in everything_under("claimName", everywhere):
        assert claim in named("PersistentVolumeClaim")
    for kind, key in (("ConfigMap", "configMapRef"), ("ConfigMap", "envConfigMaps")):
        for reference in everything_under(key, everywhere):
            for each in reference if isinstance(reference, list) else [reference]:
                assert each["name"] in named(kind)
    for key in ("secretRef", "secretKeyRef", "envSecrets"):
        for reference in everything_under(key, everywhere):
            for each in reference if isinstance(reference, list) else [reference]:
                assert each["name"] in told
    assert values()["global"]["postgresqlSecretName"] in told
    accounts = {*named("ServiceAccount"), values()["serviceAccount"]["name"]}
    assert {pod["spec"]["serviceAccountName"] for pod in pods()} <= accounts
    assert values()["global"]["serviceAccountName"] in accounts
    for volume in everything_under("configMap", manifests()):
        assert volume["name"] in ("dagster-instance", "dagster-workspace-yaml")  # the chart makes these two


def test_all_pods_of_ours_have_one_image_run_as_nobody_special_and_name_what_they_need() -> None:
    image = values()["dagsterWebserver"]["image"]
    ours = f"{image['repository']}:{image['tag']}"
    for pod in pods():
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]:
            assert container["image"] == ours or container["image"].startswith("apache/spark:")
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
    for location in locations().values():
        assert location["image"] == image
        assert location["podSecurityContext"]["runAsNonRoot"]
        assert "memory" in location["resources"]["limits"]


def test_spark_is_that_of_docker_and_admits_code_locations_and_executors() -> None:
    policy = named("NetworkPolicy")["spark-connect"]["spec"]
    spark = named("Deployment")["spark-connect"]["spec"]["template"]
    assert policy["podSelector"]["matchLabels"] == spark["metadata"]["labels"]
    clients, executors = policy["ingress"]
    [admitted] = clients["from"][0]["podSelector"]["matchExpressions"]
    assert {each["labels"]["dedp/role"] for each in locations().values()} <= set(admitted["values"])
    [label] = executors["from"][0]["podSelector"]["matchLabels"].items()
    command = spark["spec"]["containers"][0]["command"]
    assert f"--conf=spark.kubernetes.executor.label.{label[0]}={label[1]}" in command
    chosen = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["spark"]["image"]
    image = chosen.removeprefix("${DEDP_SPARK_IMAGE:-").removesuffix("}")
    assert f"--conf=spark.kubernetes.container.image={image}" in command
    assert spark["spec"]["containers"][0]["image"] == image
    url = named("ConfigMap")["dedp"]["data"]["DEDP_SPARK_REMOTE"]
    port = named("Service")["spark-connect"]["spec"]["ports"][0]["port"]
    assert url == f"sc://spark-connect:{port}"


def test_the_instance_is_that_of_docker_with_other_numbers(tmp_path: Path) -> None:
    ours = values()["additionalInstanceConfig"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(ours))
    dagster_instance_config(str(tmp_path))  # raises for what Dagster does not know
    docker = yaml.safe_load((DOCKER / "dagster.yaml").read_text())
    for key in ("run_retries", "nux", "sensors", "schedules", "backfills"):
        assert ours[key] == docker[key]
    assert ours["concurrency"]["pools"] == docker["concurrency"]["pools"]
    assert ours["concurrency"].keys() == docker["concurrency"].keys()
    assert ours["run_monitoring"].keys() - docker["run_monitoring"].keys() == {"max_resume_run_attempts"}
    days = docker["retention"]["sensor"]["purge_after_days"]
    assert values()["retention"]["sensor"]["purgeAfterDays"] == days


# What takes the place of each service of compose.yaml. `migrate`: docs/kubernetes.md, "Upgrade".
IN_PLACE_OF = {
    "daemon": "dedp-daemon",
    "webserver": "dedp-webserver",
    "alerts": "dedp-alerts",
    "metrics": "dedp-metrics",
    "spark": "spark-connect",
}


def test_each_service_of_docker_has_its_place_and_the_same_command() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    others = {*services} - {*IN_PLACE_OF} - {module.removeprefix("jobs.") for module in locations()}
    assert others == {"postgres", "migrate"}  # a server of yours; a step of an upgrade
    for name in ("daemon", "webserver", "alerts", "metrics"):
        [container] = named("Deployment")[IN_PLACE_OF[name]]["spec"]["template"]["spec"]["containers"]
        there = services[name]["command"].partition(" --log-format")[0].replace("docker/", "/dagster-workspace/")
        assert " ".join(container["command"]) == there


def test_the_daemon_starts_after_a_command_that_refuses_the_database_of_a_later_version() -> None:
    """In docker compose it is `migrate`. What `dedp exec` refuses: tests/dedp_assets/test_later_releases.py."""
    spec = named("Deployment")["dedp-daemon"]["spec"]["template"]["spec"]
    [first], [daemon] = spec["initContainers"], spec["containers"]
    assert first["command"] == ["dedp", "exec", "true"]
    assert (first["env"], first["envFrom"]) == (daemon["env"], daemon["envFrom"])
    assert [each for each in first["volumeMounts"] if each not in daemon["volumeMounts"]] == []
    assert {"/opt/dagster/dagster.yaml", "/data"} == {each["mountPath"] for each in first["volumeMounts"]}


def test_what_hangs_is_ended_by_the_check_of_docker_and_not_before_five_minutes() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]

    def checked(name: str) -> list[str]:
        check: list[str] = services[name]["healthcheck"]["test"][3:]  # after the watchdog
        return check

    def asks(probe: Manifest) -> list[str]:
        """What it asks, without what makes an answer of it."""
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 300
        if "httpGet" in probe:
            [port] = [each["containerPort"] for each in container["ports"] if each["name"] == probe["httpGet"]["port"]]
            return ["python", "docker/healthy.py", "http", str(port), probe["httpGet"]["path"]]
        command: list[str] = probe["exec"]["command"]
        if command[0] == "bash":  # of Spark
            return command
        assert command[:2] == ["sh", "-c"]
        assert command[2].endswith("; [ $? -ne 2 ]")
        return command[2].removesuffix("; [ $? -ne 2 ]").split()

    for module, location in locations().items():
        assert asks(location["livenessProbe"]) == checked(module.removeprefix("jobs."))
    for service, name in IN_PLACE_OF.items():
        [container] = named("Deployment")[name]["spec"]["template"]["spec"]["containers"]
        assert asks(container["livenessProbe"]) == checked(service), name


def test_every_setting_of_docker_can_be_set_here_and_those_that_protect_are_set() -> None:
    page = (settings.REPOSITORY / "docs" / "kubernetes.md").read_text()
    readme = (settings.REPOSITORY / "README.md").read_text().partition("## Settings")[2].partition("## ")[0]
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    told = {name for text in (page, readme) for name in re.findall(r"DEDP_\w+", text)}
    # How long to wait is written into the probes, and what is logged how into the commands.
    only_docker = {"DEDP_HUNG_SECONDS"}
    for service in services.values():
        passed = {name for name in service.get("environment") or {} if name.startswith("DEDP_")}
        assert passed - told - only_docker == set()
    assert named("ConfigMap")["dedp"]["data"]["DEDP_RUN_CONFIG_ADDRESSES"] == "off"


def test_the_page_names_nothing_that_is_not_there() -> None:
    page = (settings.REPOSITORY / "docs" / "kubernetes.md").read_text()
    made = {each["metadata"]["name"] for each in manifests()}
    images = {"dedp-kubernetes"}
    told = set(re.findall(r"create secret generic (\S+)", page))
    assert {*re.findall(r"\b(?:dedp|spark)-[a-z-]+\b", page)} <= made | images | told


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_each_object(version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for each in manifests():
        kubernetes_validate.validate(each, version, strict=True)


@pytest.fixture(scope="module")
def rendered() -> list[Manifest]:
    """What the chart makes of our values. Rendering checks them with the schema of the chart."""
    if not CHART:
        pytest.skip("DEDP_DAGSTER_CHART is not set")
    chart = pytest.importorskip("helm_python.chart").Chart.load(CHART)
    files = chart.render(values(), name="dagster", namespace="dedp")
    return [
        each for name, text in files.items() if not name.endswith(".txt") for each in yaml.safe_load_all(text) if each
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_each_object_of_the_chart(rendered: list[Manifest], version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for each in rendered:
        kubernetes_validate.validate(without_nulls(each), version, strict=True)


def without_nulls(place: Any) -> Any:
    """The API server drops them, too."""
    if isinstance(place, dict):
        return {key: without_nulls(value) for key, value in place.items() if value is not None}
    return [without_nulls(each) for each in place] if isinstance(place, list) else place


def test_the_chart_makes_the_instance_the_workspace_and_the_services_that_we_name(
    rendered: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {(each["kind"], each["metadata"]["name"]): each for each in rendered}
    workspace = yaml.safe_load(made["ConfigMap", "dagster-workspace-yaml"]["data"]["workspace.yaml"])["load_from"]
    served = {entry["grpc_server"]["location_name"]: entry["grpc_server"]["host"] for entry in workspace}
    assert served == {module: each["name"] for module, each in locations().items()}
    assert {("Service", host) for host in served.values()} <= made.keys()
    assert ("ServiceAccount", values()["global"]["serviceAccountName"]) in made
    assert made["Deployment", "dagster-dagster-webserver"]["spec"]["replicas"] == 0
    assert ("Deployment", "dagster-daemon") not in made

    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "not/a secret")
    text = made["ConfigMap", "dagster-instance"]["data"]["dagster.yaml"]
    (tmp_path / "dagster.yaml").write_text(text)
    dagster_instance_config(str(tmp_path))
    instance = yaml.safe_load(text)
    assert instance["run_launcher"]["class"] == "K8sRunLauncher"
    assert instance["event_log_storage"]["config"]["postgres_db"]["params"] == {"options": "-csearch_path=dagster"}
    for key, value in values()["additionalInstanceConfig"].items():
        assert instance[key] == value
