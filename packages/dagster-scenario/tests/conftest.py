"""What the tests of the distribution stand on: its wheel, and an environment in which nothing else is installed."""

import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DISTRIBUTION = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built as a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=DISTRIBUTION, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel, and with what the wheel asks for without an extra.

    No index is asked: the packages are those of this environment, linked file by file, with all that they need and
    nothing else. What the wheel does not ask for is not there.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (described,) = packages.glob("*.dist-info")
    for name in sorted(_needed(metadata.Distribution.at(described).requires or [])):
        _link(metadata.distribution(name), packages)
    return folder / "bin" / "python"


def _needed(requirements: list[str]) -> set[str]:
    """The names of the distributions that are asked for, and of those that they ask for, on this machine."""
    found: set[tuple[str, frozenset[str]]] = set()
    open_ = [Requirement(line) for line in requirements]
    while open_:
        requirement = open_.pop()
        extras = frozenset(requirement.extras)
        key = canonicalize_name(requirement.name), extras
        if key in found or not _holds(requirement, frozenset()):
            continue
        found.add(key)
        further = map(Requirement, metadata.requires(requirement.name) or [])
        open_ += [_without_marker(line) for line in further if _holds(line, extras)]
    return {name for name, _ in found}


def _holds(requirement: Requirement, extras: frozenset[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras})


def _without_marker(requirement: Requirement) -> Requirement:
    """The requirement once its marker holds."""
    requirement.marker = None
    return requirement


def _link(distribution: metadata.Distribution, packages: Path) -> None:
    for file in distribution.files or []:
        if ".." in file.parts or file.is_absolute():
            continue  # a command, or a manual page
        source = Path(str(distribution.locate_file(file)))
        for original in (source, *_compiled(source)):
            link = packages / original.relative_to(Path(str(distribution.locate_file(""))))
            if original.exists() and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(original)


def _compiled(source: Path) -> Iterator[Path]:
    """What Python has compiled of a module, so that it need not be done again."""
    if source.suffix == ".py":
        yield source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
