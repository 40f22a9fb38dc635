"""Who may import whom. The rules are derived from the tree: a new pipeline is covered without a change here."""

import ast
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

import dedp_assets

REPOSITORY = Path(dedp_assets.__file__).parent.parent

# The test harness, a distribution of its own beside the product.
HARNESS = Path("packages") / "dagster-scenario" / "src"

# What each kind of module may import of ours, besides its own package. A module is of the first kind that fits:
# jobs, sensors, harness: by their place; deprecated: the names of the harness at their old place; entry point: the
# commands, `make up` and the demo; settings, and the servers and resources from them; pipeline: below a package of
# dedp_assets that has a contract.py; shared: all else in dedp_assets.
MAY_IMPORT = {
    "jobs": {"sensors", "pipeline", "settings", "shared"},
    "sensors": {"sensors", "pipeline", "settings", "shared"},
    "entry point": {"entry point", "pipeline", "settings", "shared"},
    "pipeline": {"pipeline", "settings", "shared"},
    "settings": {"settings", "shared"},
    "shared": {"shared"},
    "harness": {"harness"},
    "deprecated": {"harness"},
}

# Imports that break the rules, each with the reason why it is allowed. One that no longer exists fails the test.
KNOWN_EXCEPTIONS: dict[tuple[str, str], str] = {}


def modules_of(root: Path) -> Iterator[tuple[str, Path]]:
    """Every module of ours below a folder: its name and its path."""
    for above in (root, root / HARNESS):
        for package in ("dedp_assets", "sensors", "jobs", "dagster_scenario"):
            yield from modules_below(above, package)


def modules_below(above: Path, package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((above / package).rglob("*.py")):
        parts = path.relative_to(above).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported_by(module: str, path: Path) -> Iterator[str]:
    """The full names that a module imports, also inside functions."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def imports_below(root: Path) -> set[tuple[str, str]]:
    """Pairs of modules of ours: the first one imports the second one."""
    modules = dict(modules_of(root))
    found = set()
    for module, path in modules.items():
        for name in imported_by(module, path):
            # A name in a module stands for the module. What remains empty belongs to somebody else.
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name:
                found.add((module, name))
    return found


def kind_of(module: str, pipelines: Collection[str]) -> tuple[str, str | None]:
    """The kind of a module (see MAY_IMPORT), and the pipeline that it belongs to, or None."""
    top, _, below = module.partition(".")
    first, last = below.split(".")[0], below.split(".")[-1]
    if top in ("jobs", "sensors"):
        return top, None
    if top == "dagster_scenario":
        return "harness", None
    if first == "testing":
        return "deprecated", None
    pipeline = first if first in pipelines else None
    if first in ("demo", "local_stack") or last in ("cli", "__main__"):
        return "entry point", pipeline
    if pipeline:
        return "pipeline", pipeline
    return ("settings" if first == "settings" or first.endswith("_from_settings") else "shared"), None


def is_in(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def broken_rules(root: Path) -> set[tuple[str, str]]:
    """The imports that no rule allows: pairs of the importing and the imported module."""
    names = {name for name, _ in modules_of(root)}
    pipelines = {name.split(".")[1] for name in names if name.count(".") == 2 and name.endswith(".contract")}
    # A pipeline in several code locations has a package with assets for each of them.
    locations = [
        name.rpartition(".")[0]
        for name in names
        if name.count(".") == 3 and name.split(".")[1] in pipelines and name.endswith(".assets")
    ]
    broken = set()
    for importer, imported in imports_below(root):
        kind, pipeline = kind_of(importer, pipelines)
        other_kind, other_pipeline = kind_of(imported, pipelines)
        is_of_another = pipeline and other_pipeline and pipeline != other_pipeline
        own = [location for location in locations if is_in(importer, location)]
        others = [location for location in locations if is_in(imported, location)]
        if other_kind not in MAY_IMPORT[kind] or is_of_another or (own and others and own != others):
            broken.add((importer, imported))
    return broken


def test_every_import_goes_the_way_the_rules_allow() -> None:
    unexpected = broken_rules(REPOSITORY) - KNOWN_EXCEPTIONS.keys()
    assert sorted(f"{importer} imports {imported}" for importer, imported in unexpected) == []


def test_every_known_exception_is_still_needed() -> None:
    assert sorted(KNOWN_EXCEPTIONS.keys() - broken_rules(REPOSITORY)) == []


def test_the_walk_over_imports_sees_those_that_are_there() -> None:
    found = imports_below(REPOSITORY)
    assert ("jobs.devices_loader", "sensors.pipelines.devices_loader") in found
    # Inside a function, relative, and for the type checker alone.
    assert ("dedp_assets.cli", "dedp_assets.demo") in found
    assert ("dedp_assets.generator.run", "dedp_assets.generator.errors") in found
    assert ("dagster_scenario.expectations", "dagster_scenario.scenario") in found


# Writes a statement into a module of the tree; returns the imports that break the rules then.
BrokenBy = Callable[[str, str], list[tuple[str, str]]]


@pytest.fixture
def broken_by(tmp_path: Path) -> BrokenBy:
    """A tree with two pipelines, one of them in two code locations, and a check of its rules."""
    for module in [
        "jobs/tides.py",
        "sensors/tides.py",
        "dedp_assets/cli.py",
        "dedp_assets/days.py",
        "dedp_assets/resources/clock.py",
        "dedp_assets/settings.py",
        "dedp_assets/resources_from_settings.py",
        "packages/dagster-scenario/src/dagster_scenario/scenario.py",
        "packages/dagster-scenario/src/dagster_scenario/plugin.py",
        "dedp_assets/testing.py",
        "dedp_assets/tides/contract.py",
        "dedp_assets/tides/cli.py",
        "dedp_assets/tides/measuring.py",
        "dedp_assets/tides/harbour/assets.py",
        "dedp_assets/tides/harbour/gauge.py",
        "dedp_assets/tides/open_sea/assets.py",
        "dedp_assets/winds/contract.py",
        "dedp_assets/winds/assets.py",
    ]:
        path = tmp_path / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def broken_by(importer: str, statement: str) -> list[tuple[str, str]]:
        above = tmp_path / HARNESS if importer.startswith("dagster_scenario") else tmp_path
        (above / f"{importer.replace('.', '/')}.py").write_text(statement)
        return sorted(broken_rules(tmp_path))

    return broken_by


@pytest.mark.parametrize(
    ("importer", "statement", "imported"),
    [
        ("dedp_assets.days", "from sensors.tides import anything", "sensors.tides"),
        ("dedp_assets.tides.harbour.assets", "import sensors.tides", "sensors.tides"),
        ("dedp_assets.cli", "from jobs.tides import defs", "jobs.tides"),
        ("sensors.tides", "def look():\n    from jobs.tides import defs", "jobs.tides"),
        ("dedp_assets.winds.assets", "from dedp_assets.tides import contract", "dedp_assets.tides.contract"),
        ("dedp_assets.tides.cli", "from dedp_assets.winds import assets", "dedp_assets.winds.assets"),
        ("dedp_assets.tides.harbour.gauge", "from ..open_sea import assets", "dedp_assets.tides.open_sea.assets"),
        ("dedp_assets.tides.open_sea.assets", "from dedp_assets.tides.harbour.gauge import x", None),
        ("dedp_assets.days", "from dedp_assets.winds.assets import x", "dedp_assets.winds.assets"),
        ("dedp_assets.resources.clock", "from dedp_assets import settings", "dedp_assets.settings"),
        (
            "dedp_assets.resources.clock",
            "import dedp_assets.resources_from_settings",
            "dedp_assets.resources_from_settings",
        ),
        ("dedp_assets.resources.clock", "from ..cli import main", "dedp_assets.cli"),
        ("dedp_assets.tides.measuring", "from dedp_assets.cli import main", "dedp_assets.cli"),
        ("dedp_assets.tides.measuring", "from dagster_scenario import scenario", "dagster_scenario.scenario"),
        ("dagster_scenario.scenario", "from dedp_assets import days", "dedp_assets.days"),
        ("dagster_scenario.plugin", "from dedp_assets.settings import home", "dedp_assets.settings"),
        ("dedp_assets.days", "from dedp_assets.testing import Scenario", "dedp_assets.testing"),
        ("dedp_assets.settings", "from dedp_assets.winds import contract", "dedp_assets.winds.contract"),
    ],
)
def test_an_import_against_the_rules_is_found_in_any_pipeline(
    broken_by: BrokenBy, importer: str, statement: str, imported: str | None
) -> None:
    assert broken_by(importer, statement) == [(importer, imported or "dedp_assets.tides.harbour.gauge")]


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("jobs.tides", "from sensors import tides\nfrom dedp_assets.tides.harbour import assets"),
        ("sensors.tides", "from dedp_assets.tides import measuring\nfrom dedp_assets import days, settings"),
        ("dedp_assets.cli", "from dedp_assets.tides.cli import tides\nfrom dedp_assets.winds import contract"),
        ("dedp_assets.tides.cli", "from dedp_assets import cli, settings\nfrom . import measuring"),
        ("dedp_assets.tides.harbour.assets", "from ..contract import X\nfrom .gauge import Y\nimport dedp_assets.days"),
        ("dedp_assets.resources.clock", "from dedp_assets import days"),
        ("dedp_assets.resources_from_settings", "from dedp_assets import settings\nfrom .resources import clock"),
        ("dagster_scenario.plugin", "import pytest\nfrom dagster_scenario.scenario import Scenario"),
        ("dedp_assets.testing", "from dagster_scenario.scenario import Scenario"),
    ],
)
def test_an_import_by_the_rules_is_not(broken_by: BrokenBy, importer: str, statement: str) -> None:
    assert broken_by(importer, statement) == []
