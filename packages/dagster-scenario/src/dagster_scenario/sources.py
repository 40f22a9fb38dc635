"""Where code locations come from: the files, folders, modules and objects that `scenario.load` takes.

Each becomes what Dagster calls an origin: the name of a location, and how to find its definitions. Nothing of the
project is imported here.
"""

import importlib.util
import itertools
import os
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from dagster_scenario import _dagster as dagster_
from dagster_scenario.errors import ScenarioError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What Dagster finds definitions in, beside modules.
_OBJECTS = (dg.Definitions, dagster_.LazyDefinitions, dg.RepositoryDefinition)

EXPECTED = (
    "expected the name of a module with Definitions in it, the path of a workspace.yaml, dagster_cloud.yaml, "
    "pyproject.toml, Python file or project folder, a Definitions object, or a function with @dg.definitions"
)

_numbers = itertools.count(1)


def origins_of(source: Any, name: str | None, number: int) -> list[Any]:
    """The origins of everything that a source has.

    Args:
        source: what `scenario.load` was given.
        name: the name of the location, None for the one that the source has itself.
        number: the location's number, for an object that has no name.

    Raises:
        ScenarioError: it is no code location, or its file is not what it should be.
    """
    if isinstance(source, _OBJECTS):
        module = types.ModuleType(f"_dagster_scenario_{next(_numbers)}")
        module.defs = source  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        return [in_process(name or f"location_{number}", module_name=module.__name__)]
    if isinstance(source, types.ModuleType):
        source = source.__name__
    if isinstance(source, Path) or (isinstance(source, str) and _is_path(source)):
        return _renamed(list(_from_path(Path(source))), name, source)
    if isinstance(source, str):
        return [in_process(name or source, module_name=source)]
    raise ScenarioError(f"{source!r} is not a code location; {EXPECTED}")


def made_here(origin: Any) -> str | None:
    """The module that was made for an object, which no other process can import; None for any other origin."""
    module: str | None = origin.loadable_target_origin.module_name
    return module if module is not None and module.startswith("_dagster_scenario_") else None


def in_process(name: str, **target: Any) -> Any:
    """An origin that Dagster loads into this process."""
    target.setdefault("executable_path", sys.executable)
    return dagster_.InProcessCodeLocationOrigin(dagster_.LoadableTargetOrigin(**target), location_name=name)


def _is_path(text: str) -> bool:
    if text.endswith((".yaml", ".yml", ".toml", ".py")) or text in (".", "..") or "/" in text or os.sep in text:
        return True
    return Path(text).is_dir() and not _is_importable(text)


def _is_importable(name: str) -> bool:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    # A folder without Python files in it is importable, too, as a namespace without an origin.
    return found is not None and found.origin is not None


def _renamed(origins: list[Any], name: str | None, source: Any) -> list[Any]:
    if name is None:
        return origins
    if len(origins) != 1:
        raise ScenarioError(f"{source} has {len(origins)} code locations, so they can't all be called {name!r}")
    return [dagster_.InProcessCodeLocationOrigin(origins[0].loadable_target_origin, location_name=name)]


def _from_path(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise ScenarioError(
            f"{path} does not exist (looked from {Path.cwd()}); give the path to the project's workspace.yaml, "
            "pyproject.toml or folder"
        )
    if path.is_dir():
        yield from _from_folder(path)
    elif path.suffix in (".yaml", ".yml"):
        yield from _from_yaml(path)
    elif path.suffix == ".toml":
        yield from _from_toml(path)
    elif path.suffix == ".py":
        file = path.resolve()
        yield in_process(file.name, python_file=str(file), working_directory=str(file.parent))
    else:
        raise ScenarioError(f"{path} is not a code location; {EXPECTED}")


def _from_folder(folder: Path) -> Iterator[Any]:
    """What `dagster dev` and `dg dev` would find when they are started in this folder; else its definitions.py."""
    for file in ("workspace.yaml", "workspace.yml", "dg.toml", "pyproject.toml", "dagster_cloud.yaml"):
        if (folder / file).exists() and (not file.endswith(".toml") or _dagster_settings(folder / file)):
            yield from _from_path(folder / file)
            return
    yield _of_definitions(folder)


def _of_definitions(folder: Path) -> Any:
    """The definitions.py of a folder that says nothing of Dagster: in it, in src, or in the one package of either."""
    roots = [root for root in (folder, folder / "src") if root.is_dir()]
    for root in roots:
        if (file := root / "definitions.py").exists():
            return next(_from_path(file))
    packages = [
        package
        for root in roots
        for package in sorted(root.iterdir())
        if (package / "__init__.py").exists() and package.name not in ("test", "tests")
    ]
    found = [package for package in packages if _has_module(package, "definitions")]
    if len(found) == 1:
        module, root = f"{found[0].name}.definitions", found[0].parent.resolve()
        return in_process(module, module_name=module, working_directory=str(root))
    if found:
        places = ", ".join(f"{package.relative_to(folder)}/definitions.py" for package in found)
        raise ScenarioError(
            f"{folder} has definitions in several places: {places}; name one, as in "
            f"scenario.load('{found[0].name}.definitions') or with its path"
        )
    others = [str(place.relative_to(folder)) for place in [*roots[1:], *packages]]
    looked = ", in ".join(["in the folder", *others[:-1]]) + (f", and in {others[-1]}" if others else "")
    raise ScenarioError(
        f"{folder} is not a Dagster project: it has no workspace.yaml, no pyproject.toml with [tool.dg] or "
        f"[tool.dagster], no dg.toml, no dagster_cloud.yaml, and no definitions.py where it looked: {looked}"
    )


def _has_module(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()


def _root_of(folder: Path, module: str) -> Path:
    """Where a project keeps its package: in src, or beside its settings."""
    first, src = module.split(".")[0], folder / "src"
    return src if (src / first).exists() or (src / f"{first}.py").exists() else folder


# YAML


def _from_yaml(file: Path) -> Iterator[Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ScenarioError(f"{file} is not YAML: {error}") from None
    if isinstance(content, dict) and "locations" in content and "load_from" not in content:
        yield from _from_cloud_file(file, content["locations"])
    elif isinstance(content, dict) and "load_from" in content:
        yield from _from_workspace_file(file)
    else:
        raise ScenarioError(
            f"{file} names no code locations: a workspace.yaml has `load_from`, a dagster_cloud.yaml has `locations`"
        )


def _from_workspace_file(file: Path) -> Iterator[Any]:
    for origin in dagster_.WorkspaceFileTarget([str(file)]).create_origins():
        if not isinstance(origin, dagster_.ManagedGrpcPythonEnvCodeLocationOrigin):
            raise ScenarioError(
                f"{file}: location {origin.location_name!r} is a code server that runs elsewhere, which can't see the "
                "simulated clock; load its module instead: scenario.load('package.definitions')"
            )
        target = origin.loadable_target_origin
        yield dagster_.InProcessCodeLocationOrigin(target, location_name=origin.location_name)


def _from_cloud_file(file: Path, locations: Any) -> Iterator[Any]:
    """The locations of a dagster_cloud.yaml; how they are built and deployed is of no interest here."""
    for location in locations:
        name, source = location.get("location_name"), location.get("code_source", {})
        kinds = ("module_name", "package_name", "python_file", "autoload_defs_module_name")
        target = {kind: source[kind] for kind in kinds if kind in source}
        if not name or len(target) != 1:
            raise ScenarioError(
                f"{file}: location {name!r} needs a location_name and a code_source with one of {', '.join(kinds)}"
            )
        working = location.get("working_directory") or (location.get("build") or {}).get("directory") or "."
        folder = (file.parent / working).resolve()
        if "python_file" in target:
            target["python_file"] = str(folder / target["python_file"])
        else:
            folder = _root_of(folder, next(iter(target.values())))
        yield in_process(name, **target, attribute=location.get("attribute"), working_directory=str(folder))


# TOML


def _from_toml(file: Path) -> Iterator[Any]:
    """The location of a project, or those of a workspace of `dg`."""
    settings = _dagster_settings(file)
    folder = file.parent.resolve()
    if projects := settings.get("workspace", {}).get("projects"):
        for project in projects:
            yield from _from_folder(folder / project["path"])
    elif project := settings.get("project"):
        yield _of_dg_project(folder, project, file)
    elif "module_name" in settings:
        module = settings["module_name"]
        name = settings.get("code_location_name") or module
        yield in_process(name, module_name=module, working_directory=str(_root_of(folder, module)))
    elif modules := settings.get("modules"):
        for name in (module["name"] for module in modules):
            yield in_process(name, module_name=name, working_directory=str(_root_of(folder, name)))
    else:
        raise ScenarioError(
            f"{file} names no code location: it has neither [tool.dg.project], [tool.dg.workspace] nor [tool.dagster] "
            "with module_name"
        )


def _dagster_settings(file: Path) -> Mapping[str, Any]:
    """What a dg.toml, or [tool.dg] or [tool.dagster] in a pyproject.toml, says."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{file} is not TOML: {error}") from None
    if file.name == "dg.toml":
        return content
    tool = content.get("tool", {})
    found: Mapping[str, Any] = tool.get("dg") or tool.get("dagster") or {}
    return found


def _of_dg_project(folder: Path, project: Mapping[str, Any], file: Path) -> Any:
    """A project as `dg` makes it: its root module beside its settings or in src, its definitions found in there."""
    if "root_module" not in project:
        raise ScenarioError(f"{file}: the project needs a root_module, the name of its package")
    root = project["root_module"]
    working = _root_of(folder, root)
    # `dg` names a location after the folder of its project.
    name = project.get("code_location_name") or folder.name or root
    if project.get("autoload_defs"):
        module = project.get("defs_module") or f"{root}.defs"
        return in_process(name, autoload_defs_module_name=module, working_directory=str(working))
    module = project.get("code_location_target_module") or f"{root}.definitions"
    return in_process(name, module_name=module, working_directory=str(working))
