"""The project works as a wheel, in a place without a checkout."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dedp_assets import local_stack, settings
from tests.scenarios.system import temporary_home


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=settings.REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_instances_configuration_and_the_workspace_as_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for name, original in {
            "dagster.yaml": "dedp_assets/deployment/dagster.yaml",
            "workspace.yaml": "workspace.yaml",
        }.items():
            packed = archive.read(f"dedp_assets/deployment/{name}").decode()
            assert packed == (settings.REPOSITORY / original).read_text()
    assert "dedp_assets/generator/examples/devices_50.yaml" in names
    assert {"jobs/devices_loader.py", "sensors/automation.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


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
