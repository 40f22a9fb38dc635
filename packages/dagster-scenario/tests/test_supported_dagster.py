"""What the harness takes from Dagster's private modules: it stands in one place, and says which name has moved."""

import ast
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from dagster_scenario import _dagster
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PACKAGE = Path(testing.__file__).parent


def test_nothing_has_moved_in_the_installed_release() -> None:
    assert _dagster.moved() == []
    assert version("dagster") in SpecifierSet(_dagster.SUPPORTED)


@pytest.mark.parametrize(
    ("line", "moved"),
    [
        ("from dagster._daemon.sensor import execute_sensor", "dagster._daemon.sensor.execute_sensor"),
        ("from dagster._daemon.sensors import SensorDaemon", "dagster._daemon.sensors.SensorDaemon"),
    ],
)
def test_the_canary_names_what_has_moved(line: str, moved: str) -> None:
    assert _dagster.moved(line) == [f"{moved} is gone in Dagster {version('dagster')}; supported is >=1.13.27,<1.14"]


def test_the_project_asks_for_the_supported_releases() -> None:
    (dagster,) = [needed for needed in map(Requirement, requires("dedp-assets") or []) if needed.name == "dagster"]
    assert dagster.specifier == SpecifierSet(_dagster.SUPPORTED)


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_private_names_of_dagster_stand_in_one_module(module: Path) -> None:
    if module.name == "_dagster.py":
        return
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not [name for name in names if name.startswith("dagster._")], module
