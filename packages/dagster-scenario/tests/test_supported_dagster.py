"""What the harness takes from Dagster's private modules: it stands in one place, and says which name has moved."""

import ast
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from dagster_scenario import _dagster
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PACKAGE = Path(_dagster.__file__).parent


def test_nothing_has_moved_in_the_installed_release() -> None:
    assert _dagster.moved() == []
    assert version("dagster") in SpecifierSet(_dagster.SUPPORTED)


@pytest.mark.parametrize(
    ("line", "moved"),
    [
        ("from dagster._daemon.sensor import execute_sensor", "dagster._daemon.sensor.execute_sensor"),
        ("from dagster._daemon.sensors import SensorDaemon", "dagster._daemon.sensors.SensorDaemon"),
        ("from dagster_shared.error import Failure", "dagster_shared.error.Failure"),
    ],
)
def test_the_canary_names_what_has_moved(line: str, moved: str) -> None:
    assert _dagster.moved(line) == [
        f"{moved} is gone in Dagster {version('dagster')}; supported is {_dagster.SUPPORTED}"
    ]


_ANOTHER_RELEASE = """
import sys
import dagster, dagster._core.workspace.context
{change}
import dagster_scenario
print("still there")
dagster_scenario.Scenario
"""


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ("sys.modules['dagster._daemon.controller'] = None", "dagster._daemon.controller.create_daemon_of_type"),
        (
            "del dagster._core.workspace.context.WorkspaceProcessContext",
            "dagster._core.workspace.context.WorkspaceProcessContext",
        ),
    ],
    ids=["a module", "a name"],
)
def test_beside_a_release_in_which_something_has_moved_it_says_what_and_which_releases_work(
    change: str, gone: str
) -> None:
    code = _ANOTHER_RELEASE.format(change=change)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "still there\n", done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith(
        f"ImportError: dagster-scenario does not work with the installed Dagster {version('dagster')}"
    )
    assert f"pip install 'dagster{_dagster.SUPPORTED}'. Not in this release: " in said
    assert gone in said


def test_the_distribution_asks_for_the_supported_releases() -> None:
    (dagster,) = [needed for needed in map(Requirement, requires("dagster-scenario") or []) if needed.name == "dagster"]
    assert dagster.specifier == SpecifierSet(_dagster.SUPPORTED)


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_private_names_of_dagster_stand_in_one_module(module: Path) -> None:
    if module.name == "_dagster.py":
        return
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not [name for name in names if name.startswith(("dagster._", "dagster_shared"))], module
