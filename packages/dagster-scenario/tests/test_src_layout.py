"""A project whose package lies in src/ loads by its folder, whatever its settings say."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster_scenario import Scenario, ScenarioError

DEFINITIONS = "import dagster as dg\n@dg.asset\ndef pear() -> None: ...\ndefs = dg.Definitions(assets=[pear])\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a project; what was imported of it is forgotten."""
    yield tmp_path / "orchard"
    for name in list(sys.modules):
        if name.split(".")[0] in ("company_src", "company_other", "definitions"):
            del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


PACKAGE = {"src/company_src/__init__.py": "", "src/company_src/definitions.py": DEFINITIONS}


@pytest.mark.parametrize(
    "files",
    [
        PACKAGE,
        {**PACKAGE, "pyproject.toml": "[project]\nname = 'orchard'\n"},
        {**PACKAGE, "pyproject.toml": "[tool.dagster]\nmodule_name = 'company_src.definitions'\n"},
        {**PACKAGE, "pyproject.toml": "[[tool.dagster.modules]]\ntype = 'module'\nname = 'company_src.definitions'\n"},
        {
            **PACKAGE,
            "pyproject.toml": "[tool.dg]\ndirectory_type = 'project'\nproject = {root_module = 'company_src'}\n",
        },
        {
            **PACKAGE,
            "dagster_cloud.yaml": "locations:\n"
            "  - {location_name: x, code_source: {module_name: company_src.definitions}, build: {directory: .}}\n",
        },
        {"src/definitions.py": DEFINITIONS},
        {"company_src/__init__.py": "", "company_src/definitions.py": DEFINITIONS},
        {"src/company_src/definitions/__init__.py": DEFINITIONS, "src/company_src/__init__.py": ""},
    ],
    ids=["bare", "settings of others", "module", "modules", "dg", "cloud", "a file", "flat", "subpackage"],
)
def test_a_package_in_src_is_found(scenario: Scenario, folder: Path, files: dict[str, str]) -> None:
    scenario.load(write(folder, files))
    scenario.expect("pear").not_materialized()


def test_what_is_found_can_import_its_neighbours_and_has_the_name_of_its_package(
    scenario: Scenario, folder: Path
) -> None:
    files = {
        **PACKAGE,
        "src/company_src/definitions.py": "import company_src.shelf\n" + DEFINITIONS,
        "src/company_src/shelf.py": "",
    }
    scenario.load(write(folder, files))
    scenario.materialize("pear")
    scenario.run_until_quiet()
    assert {run.location for run in scenario.timeline.runs.values()} == {"company_src.definitions"}


def test_two_packages_are_not_chosen_between(scenario: Scenario, folder: Path) -> None:
    write(folder, {**PACKAGE, "src/company_other/__init__.py": "", "src/company_other/definitions.py": DEFINITIONS})
    with pytest.raises(ScenarioError) as error:
        scenario.load(folder)
    assert str(error.value) == (
        f"{folder} has definitions in several places: src/company_other/definitions.py, "
        "src/company_src/definitions.py; name one, as in scenario.load('company_other.definitions') or with its path"
    )


def test_where_nothing_is_found_it_says_where_it_looked(scenario: Scenario, folder: Path) -> None:
    write(folder, {"src/company_src/__init__.py": "", "README.md": "", "docs/a.md": ""})
    with pytest.raises(ScenarioError) as error:
        scenario.load(folder)
    assert str(error.value) == (
        f"{folder} is not a Dagster project: it has no workspace.yaml, no pyproject.toml with [tool.dg] or "
        "[tool.dagster], no dg.toml, no dagster_cloud.yaml, and no definitions.py where it looked: in the folder, in "
        "src, and in src/company_src"
    )
