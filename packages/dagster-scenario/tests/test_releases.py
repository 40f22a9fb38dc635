"""The tests of this package pass beside the lowest and the newest releases that it asks for, and on each Python.

Each environment is new, and uv installs names and versions into it from wherever this machine installs packages. Where
nothing can be installed, these tests are skipped.
"""

import functools
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

DISTRIBUTION = Path(__file__).parents[1]
# In the repository, what tells uv of pip's settings; elsewhere uv has its own.
WITH_PIPS_SETTINGS = DISTRIBUTION.parents[1] / "scripts" / "uv_with_pip_settings.py"
MINORS = range(10, 15)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("releases", ["lowest", "newest"])
def test_all_tests_pass_beside_both_ends_of_what_is_asked_for(wheel: Path, tmp_path: Path, releases: str) -> None:
    chosen = _pythons()[0] if releases == "lowest" else _pythons()[-1]
    python = _environment(tmp_path, chosen, wheel, _lowest(wheel) if releases == "lowest" else [])
    done = _pytest(python, "--numprocesses", "2", "--dist", "loadfile", "-m", "not slow")
    assert done.returncode == 0, f"{_versions(python)}\n{done.stdout[-20_000:]}{done.stderr}"


@pytest.mark.parametrize("minor", MINORS, ids=lambda minor: f"3.{minor}")
def test_a_scenario_plays_on_every_python(wheel: Path, tmp_path: Path, minor: int) -> None:
    chosen = _python(minor)
    if chosen is None:
        pytest.skip(f"there is no Python 3.{minor} on this machine")
    if chosen == _pythons()[-1]:
        pytest.skip("all tests pass on this one, beside the same packages: see `newest`")
    python = _environment(tmp_path, chosen, wheel, [])
    done = _pytest(python, "tests/test_plugin.py", "tests/test_clock.py", "tests/world/test_files.py")
    assert done.returncode == 0, f"{_versions(python)}\n{done.stdout[-20_000:]}{done.stderr}"


def _pythons() -> list[Path]:
    """The interpreters of this machine, one for each minor version, oldest first."""
    return [python for minor in MINORS if (python := _python(minor))]


@functools.cache
def _python(minor: int) -> Path | None:
    """An interpreter of this minor version: this one, one of pyenv's, or one on PATH."""
    if sys.version_info[1] == minor:
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    on_path = shutil.which(f"python3.{minor}")
    for candidate in [*pyenv.glob(f"versions/3.{minor}.*/bin/python3"), *([Path(on_path)] if on_path else [])]:
        # pyenv's own `python3.12` on PATH is there for versions that it has not chosen, and fails.
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def _environment(folder: Path, interpreter: Path, wheel: Path, pinned: Sequence[str]) -> Path:
    """The Python of a new environment with the wheel, the packages of its tests, and the versions that are named."""
    environment = folder / "environment"
    _uv("venv", "--quiet", "--python", str(interpreter), str(environment))
    python = environment / "bin" / "python"
    probe = _uv("pip", "install", "--quiet", "--python", str(python), "iniconfig")
    if probe.returncode != 0:
        pytest.skip(f"nothing can be installed here: {probe.stderr.strip()[-300:]}")
    needed = f"dagster-scenario[test] @ {wheel.as_uri()}"
    done = _uv("pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), needed, *pinned)
    assert done.returncode == 0, done.stderr
    return python


def _uv(*arguments: str) -> "subprocess.CompletedProcess[str]":
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        pytest.skip("there is no uv, which makes the environments")
    command = [sys.executable, str(WITH_PIPS_SETTINGS), uv] if WITH_PIPS_SETTINGS.exists() else [uv]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def _lowest(wheel: Path) -> list[str]:
    """The lowest release of each package that the wheel asks for."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist") or []
    asked = [requirement for requirement in map(Requirement, lines) if requirement.marker is None]
    return [
        f"{requirement.name}=={bound.version}"
        for requirement in asked
        for bound in requirement.specifier
        if bound.operator == ">="
    ]


def _pytest(python: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON", "DAGSTER"))}
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=DISTRIBUTION, env=kept, capture_output=True, text=True, check=False)


def _versions(python: Path) -> str:
    listed = (
        "import sys, dagster, pytest; print(sys.version, 'dagster', dagster.__version__, 'pytest', pytest.__version__)"
    )
    return subprocess.run([python, "-c", listed], capture_output=True, text=True, check=False).stdout
