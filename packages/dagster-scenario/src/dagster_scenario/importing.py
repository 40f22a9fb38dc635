"""Imports what a code location names, into this process, and says of what does not import why."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster_scenario.errors import ScenarioError


def import_target(location: str, target: Any) -> None:
    """Import the module or file of a code location, whose folder is on sys.path already.

    Raises:
        ScenarioError: it can't be imported, with the project's own line.
    """
    with _naming(location, target.module_name or target.package_name or target.python_file):
        if target.python_file is not None:
            _import_file(Path(target.python_file))
        else:
            importlib.import_module(target.module_name or target.package_name or target.autoload_defs_module_name)


@contextmanager
def _naming(location: str, module: str | None) -> Iterator[None]:
    """An import that fails is an error that names the location and the project's own line."""
    try:
        yield
    except Exception as error:
        said = f"  {type(error).__name__}: {error}"
        attempt = f"`python -c 'import {module}'` shows the same"
        if module is None or module.endswith(".py"):
            attempt = f"`python {module}` shows the same" if module else "its definitions can't be imported"
        if isinstance(error, ModuleNotFoundError) and module and error.name == module.split(".")[0]:
            attempt = 'its folder is not on sys.path; with pytest, set it in pyproject.toml: pythonpath = ["."]'
        message = "\n".join([f"code location {location!r} does not load; {attempt}:", said, *_where(error)])
        raise ScenarioError(message) from error


def _where(error: Exception) -> list[str]:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if not frame.filename.startswith(str(Path(__file__).parent))]
    return [f"  at {frame.filename}:{frame.lineno}: {frame.line}" for frame in own[-1:]]


def _import_file(file: Path) -> None:
    """Import a Python file under its own name, as Dagster does, and forget it if that fails."""
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist")
    there = sys.modules.get(file.stem)
    if there is not None and there.__file__ is not None and Path(there.__file__).resolve() == file.resolve():
        return
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # Dagster would take what is left of it for the whole module.
        del sys.modules[file.stem]
        raise


def does_not_load(name: str, error: Any) -> str:
    """What Dagster has recorded of a location that does not load, in words."""
    while error.cause:
        error = error.cause
    return f"code location {name!r} does not load:\n  {error.message.strip()}"
