"""Errors of the code under test, so that the project's own line comes first and libraries take no room."""

import functools
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import dagster as dg

_FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\s*(?P<code>.*)', re.DOTALL)

_LIBRARIES = tuple({str(Path(sysconfig.get_paths()[kind])) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})

# What Dagster writes into a message from where on it is a stack trace.
_EMBEDDED = re.compile(r"\s*Stack Trace:\s+File .*", re.DOTALL)


def root_of(error: Any) -> Any:
    """The project's own error in what Dagster has recorded, without Dagster's wrapping."""
    while error.cause and _is_dagsters(error):
        error = error.cause
    return error


def message_of(error: Any) -> str:
    """What an error says, and the errors that it was raised from, in one line."""
    if error is None:
        return "no error was recorded"
    root = root_of(error)
    said = [_line_of(root)]
    while root.cause:
        root = root.cause
        said.append(_line_of(root))
    return ", because of ".join(said)


def _is_dagsters(error: Any) -> bool:
    """Whether it only says that code of the project has failed."""
    return error.cls_name in _wrapping()


@functools.cache
def _wrapping() -> frozenset[str]:
    """The names of the errors that Dagster raises from an error of the project."""
    found: list[type] = [dg.DagsterUserCodeExecutionError]
    for error in found:
        found += error.__subclasses__()
    others = ("DagsterUserCodeProcessError", "DagsterUserCodeUnreachableError", "RetryRequested")
    return frozenset({error.__name__ for error in found} | {*others})


def _line_of(error: Any) -> str:
    return " ".join(_EMBEDDED.sub("", error.message).split())


def trace_of(error: Any) -> tuple[str, ...]:
    """Where an error was raised, in lines: the project's own line first, then how it came there.

    Frames of libraries are counted, and not shown. Empty when no frame is the project's.
    """
    return tuple(_trace(root_of(error).stack)) if error is not None else ()


def _trace(stack: Sequence[str]) -> Iterator[str]:
    frames = [found for text in stack if (found := _FRAME.match(text))]
    own = [frame for frame in frames if not _is_library(frame["file"])]
    if not own:
        return
    yield f"at {_place(own[-1])}"
    # What called the project first is Dagster.
    below = frames[frames.index(own[0]) :]
    lines = list(_folded(below))
    if len(lines) > 1:
        yield from (f"  {line}" for line in lines)


def _folded(frames: Iterable["re.Match[str]"]) -> Iterator[str]:
    for library, group in groupby(frames, lambda frame: _library_of(frame["file"])):
        those = list(group)
        if library:
            yield f"... {len(those)} frame{'s' * (len(those) > 1)} of {library}"
        else:
            yield from (_place(frame) for frame in those)


def _place(frame: "re.Match[str]") -> str:
    code = frame["code"].strip().splitlines()
    return f"{Path(frame['file']).name}:{frame['line']} in {frame['function']}" + (f": {code[0]}" if code else "")


def _is_library(file: str) -> bool:
    return bool(_library_of(file))


def _library_of(file: str) -> str:
    """The name of the library that a file belongs to; empty for the project's own."""
    path = Path(file)
    if str(path).startswith(str(Path(__file__).parent)):
        return "dagster_scenario"
    for packages in ("site-packages", "dist-packages"):
        if packages in path.parts:
            return path.parts[path.parts.index(packages) + 1].removesuffix(".py")
    if file.startswith("<") or any(file.startswith(library) for library in _LIBRARIES):
        return "Python"
    return ""
