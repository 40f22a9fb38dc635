"""The project and its two packages work as wheels, in a place without a checkout."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import yaml
from packaging.metadata import Metadata
from trove_classifiers import classifiers

from dedp_assets import local_stack, settings
from tests.scenarios.system import temporary_home

ROOT = settings.REPOSITORY
# The folder of each distribution, and where each of its packages is in it.
DISTRIBUTIONS = {
    "dedp-assets": (ROOT, ("dedp_assets", "sensors", "jobs")),
    "dagster-scenario": (ROOT / "packages" / "dagster-scenario", ("src/dagster_scenario",)),
    "dagster-warm-launcher": (ROOT / "packages" / "dagster-warm-launcher", ("src/dagster_warm_launcher",)),
}
# Those of the workflow (.github/workflows/ci.yml).
PYTHONS = [f"3.{minor}" for minor in range(10, 15)]

Wheels: TypeAlias = dict[str, Path]

each_distribution = pytest.mark.parametrize("name", DISTRIBUTIONS)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """The wheel of each distribution, by its name."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d"]
    builds = {
        name: subprocess.Popen(
            [*command, str(folder / name)], cwd=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name, (source, _) in DISTRIBUTIONS.items()
    }
    for build in builds.values():
        said, _ = build.communicate()
        assert build.returncode == 0, said
    return {name: next((folder / name).glob("*.whl")) for name in DISTRIBUTIONS}


@pytest.fixture(scope="module")
def wheel(wheels: Wheels) -> Path:
    """The wheel of the project."""
    return wheels["dedp-assets"]


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _metadata(wheel: Path) -> Metadata:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Metadata.from_email(archive.read(name))


@each_distribution
def test_a_wheel_holds_every_file_of_its_packages_and_nothing_else(wheels: Wheels, name: str) -> None:
    source, packages = DISTRIBUTIONS[name]
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *packages]
    done = subprocess.run(listed, cwd=source, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("this is no clone, and git can't say which files belong to it")
    files = {file.removeprefix("src/") for file in done.stdout.splitlines() if (source / file).exists()}
    described = {file for file in _names(wheels[name]) if ".dist-info/" in file}
    assert _names(wheels[name]) - described == files
    licensed = {Path(file).name for file in described}
    assert (
        {"METADATA", "RECORD", "WHEEL", "LICENSE"}
        <= licensed
        <= {
            *("METADATA", "RECORD", "WHEEL", "LICENSE"),
            "entry_points.txt",
        }
    )
    assert [package for package in packages if f"{Path(package).name}/py.typed" not in files] == []


@each_distribution
def test_a_wheel_tells_an_index_what_it_is(wheels: Wheels, name: str) -> None:
    described = _metadata(wheels[name])  # raises if a field is not as the standard has it
    assert described.name == name
    assert described.description_content_type == "text/markdown"
    assert (described.description or "").startswith("# ")
    assert described.license_expression == "Apache-2.0"
    assert described.requires_python == ">=3.10"
    told = set(described.classifiers or [])
    assert told - classifiers == set()
    assert {f"Programming Language :: Python :: {python}" for python in PYTHONS} <= told
    assert "Typing :: Typed" in told


@each_distribution
def test_a_changelog_has_the_version_of_the_wheel_and_what_is_unreleased(wheels: Wheels, name: str) -> None:
    changelog = (DISTRIBUTIONS[name][0] / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    dated = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", version) for version in versions[1:]]
    assert all(dated), versions
    releases = [match.groups() for match in dated if match]
    assert releases[0][0] == str(_metadata(wheels[name]).version)
    assert releases == sorted(releases, key=lambda release: [int(part) for part in release[0].split(".")], reverse=True)
    kinds = set(re.findall(r"^### (.*)$", changelog, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_image_of_kubernetes_has_the_version_of_the_wheel_as_its_tag(wheel: Path) -> None:
    version = str(_metadata(wheel).version)
    for file in ("docs/kubernetes.md", "docker/kubernetes/dedp.yaml"):
        assert set(re.findall(r"/dedp-kubernetes:(\S+)", (ROOT / file).read_text())) == {version}, file
    values = (ROOT / "docker" / "kubernetes" / "values.yaml").read_text()
    assert set(re.findall(r"/dedp-kubernetes\s+tag: \"(.*)\"", values)) == {version}


def test_the_wheel_holds_the_instances_configuration_and_the_workspace_as_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, original in {
            "dagster.yaml": "dedp_assets/deployment/dagster.yaml",
            "workspace.yaml": "workspace.yaml",
        }.items():
            packed = archive.read(f"dedp_assets/deployment/{name}").decode()
            assert packed == (ROOT / original).read_text()


@pytest.mark.slow
@each_distribution
def test_a_source_archive_makes_the_same_wheel(wheels: Wheels, name: str, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path), "-t"]
    subprocess.run([*build, "sdist"], cwd=DISTRIBUTIONS[name][0], check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path)
    subprocess.run(
        [*build, "wheel"], cwd=tmp_path / archive.name.removesuffix(".tar.gz"), check=True, capture_output=True
    )
    (again,) = tmp_path.glob("*.whl")
    assert _names(again) == _names(wheels[name])
    if name == "dedp-assets":  # what a packager needs to test and to document it
        listed = subprocess.run(["git", "ls-files", ":!dg"], cwd=ROOT, capture_output=True, text=True)
        with tarfile.open(archive) as source:
            packed = {member.name.partition("/")[2] for member in source.getmembers()}
        assert set(listed.stdout.splitlines()) - packed == set()


@pytest.mark.slow
def test_the_three_wheels_and_what_they_ask_for_work_in_an_empty_environment(wheels: Wheels, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DEDP_", "DAGSTER", "PY"))}
    environment |= {"DEDP_HOME": str(tmp_path / "home")}
    bin_ = tmp_path / "environment" / "bin"

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    _install(bin_.parent, [f"dedp-assets[testing] @ {wheels['dedp-assets'].as_uri()}"], wheels)
    version = _metadata(wheels["dedp-assets"]).version
    assert run(str(bin_ / "dedp"), "--version") == f"dedp {version}\n"
    assert "Event-driven pipelines" in run(str(bin_ / "dedp"), "--help")
    where = "import pathlib, dedp_assets; print(pathlib.Path(dedp_assets.__file__).parent)"
    installed = Path(run(str(bin_ / "python"), "-c", where).strip())
    assert installed.is_relative_to(tmp_path)
    example = installed / "generator" / "examples" / "devices_50.yaml"
    run(str(bin_ / "dedp"), "generate", str(example), "--output-path", str(folder / "devices"))
    assert len((folder / "devices" / "dataset.csv").read_text().splitlines()) == 51
    run(str(bin_ / "python"), "-c", "from dagster_warm_launcher import WarmRunLauncher")
    assert "--scenario-html" in run(str(bin_ / "python"), "-m", "pytest", "--help")

    workspace = installed / "deployment" / "workspace.yaml"
    locations = [place["python_module"] for place in yaml.safe_load(workspace.read_text())["load_from"]]
    said = run(str(bin_ / "dagster"), "definitions", "validate", "--workspace", str(workspace), "--log-format", "json")
    for location in locations:
        assert f"Validation successful for code location {location}" in said


def _install(environment: Path, requirements: list[str], wheels: Wheels) -> None:
    """Make an environment and install requirements into it, in the pinned versions and from where pip looks."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        pytest.skip("there is no uv, which makes the environment")
    with_pips_settings = [sys.executable, str(ROOT / "scripts" / "uv_with_pip_settings.py"), uv]
    found = [option for wheel in wheels.values() for option in ("--find-links", str(wheel.parent))]
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(environment)],
        [
            *("pip", "install", "--quiet", "--python", str(environment / "bin" / "python")),
            *("--constraint", str(ROOT / "requirements-dev.txt"), *found, *requirements),
        ],
    ):
        done = subprocess.run([*with_pips_settings, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_installed_wheel_comes_up_in_the_folder_where_it_is_called_and_goes_down(
    wheel: Path, tmp_path: Path, left_running: Callable[[Path], list[str]]
) -> None:
    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(packages)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    settings_of_tests = {
        name: value for name, value in os.environ.items() if not name.startswith(("DEDP_", "DAGSTER_"))
    }
    environment = {**settings_of_tests, "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    dedp = str(packages / "bin" / "dedp")

    with temporary_home() as home:
        folder = home.parent

        def run(*command: str, rc: int = 0) -> str:
            done = subprocess.run(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
            assert done.returncode == rc, done.stderr
            return done.stdout

        assert "Event-driven pipelines" in run(dedp, "--help")
        before = {path for path in packages.rglob("*") if "__pycache__" not in path.parts}
        port = str(local_stack.free_port())
        with subprocess.Popen(
            [dedp, "up", "--port", port],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as up:
            assert up.stdout
            said = ""
            while "stops everything" not in said:
                line = up.stdout.readline()
                assert line, said
                said += line
            # As its output says.
            assert "dedp down" in said
            generate = next(line for line in said.splitlines() if "dedp generate" in line).split()
            run(dedp, *generate[1:])
            assert run(dedp, "psql", "-XAtc", "SELECT 6 * 7") == "42\n"
            location = run(dedp, "exec", "python", "-c", "import jobs; print(jobs.__file__)")
            assert location.startswith(str(packages))
            assert run(dedp, "down") == "Stopped.\n"
            assert up.wait() == 130
        assert (folder / ".dedp" / "landing" / "devices" / "dataset.csv").is_file()
        assert run(dedp, "down") == f"Nothing is running for {folder}/.dedp.\n"
        assert {path for path in packages.rglob("*") if "__pycache__" not in path.parts} == before
        assert left_running(folder) == []
