"""Which sensors read the clock, found by reading their code. What they decide depends on when they look."""

import builtins
import dis
import inspect
import sysconfig
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

# Whatever has one of these names tells the time, in `datetime`, pandas, pendulum, arrow and most projects' own clocks.
_NAMES = {"now", "utcnow", "today", "get_current_datetime", "get_current_timestamp"}
# These tell the time only where they are those of the module `time`.
_FUNCTIONS = (time.time, time.time_ns, time.localtime, time.gmtime, time.ctime)
_STDLIB = sysconfig.get_path("stdlib")
_UNKNOWN = object()


def clock_read_by(function: Callable[..., Any]) -> str | None:
    """Where a function reads the clock, itself or in a function of the same project that it calls; None if nowhere.

    What it calls through objects that are made at run time, such as resources, is not seen.
    """
    return _search(inspect.unwrap(function), set())


def _search(function: Any, visited: set[Any]) -> str | None:
    if not isinstance(function, types.FunctionType) or function in visited:
        return None
    visited.add(function)
    code = function.__code__
    names = {**vars(builtins), **function.__globals__, **_closure(function)}
    return next((found for part in _codes(code) for found in _reads(part, names, visited)), None)


def _reads(code: types.CodeType, names: dict[str, Any], visited: set[Any]) -> Iterator[str]:
    value: Any = _UNKNOWN
    line, text = code.co_firstlineno, ""
    for step in dis.get_instructions(code):
        line = _line(step) or line
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"):
            text, value = str(step.argval), names.get(str(step.argval), _UNKNOWN)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            text, value = f"{text}.{step.argval}", _attribute(value, str(step.argval))
        elif step.opname == "LOAD_FAST":
            text, value = str(step.argval), _UNKNOWN
            continue
        elif step.opname not in ("PUSH_NULL", "PRECALL", "CALL", "CACHE", "CALL_FUNCTION", "CALL_METHOD"):
            text, value = "", _UNKNOWN
            continue
        else:
            continue
        name = text.rsplit(".", 1)[-1]
        if name in _NAMES or _is_clock(value) or (value is _UNKNOWN and text.split(".") == ["time", "time"]):
            yield f"{code.co_filename}:{line} ({text})"
        elif _is_projects(value) and (found := _search(value, visited)):
            yield found


def _attribute(owner: Any, name: str) -> Any:
    if owner is _UNKNOWN:
        return _UNKNOWN
    try:
        found = inspect.getattr_static(owner, name)
    except AttributeError:
        return _UNKNOWN
    return found.__func__ if isinstance(found, staticmethod | classmethod) else found


def _is_clock(value: Any) -> bool:
    return any(value is function for function in _FUNCTIONS)


def _is_projects(value: Any) -> bool:
    if not isinstance(value, types.FunctionType):
        return False
    file = value.__code__.co_filename
    return "site-packages" not in file and not file.startswith((_STDLIB, "<"))


def _closure(function: types.FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and of the functions and comprehensions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _line(step: dis.Instruction) -> int | None:
    # From Python 3.13 on, `starts_line` is a bool beside `line_number`.
    line = getattr(step, "line_number", step.starts_line)
    return line if isinstance(line, int) and line is not True else None
