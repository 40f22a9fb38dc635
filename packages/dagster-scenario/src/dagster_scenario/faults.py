"""Faults: what is to go wrong, slowly, or later, and where in a run.

A point is the start of an op's computation, its end (all is computed, nothing is recorded yet), or a call of a named
function during the op's step, IO managers and resources included. They are reached by wrapping the op's own function
and the named one, so that retry policies, resources and IO managers work as they do without a fault.
"""

import functools
import importlib
import inspect
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import dagster as dg

from dagster_scenario import _dagster as dagster_
from dagster_scenario.errors import ScenarioError

START, END = "start", "end"
FAIL, KILL, HOLD, TAKE = "fail", "kill", "hold", "take"


# Marks an op that is watched.
_AROUND = "_dagster_scenario_around"


class InjectedFailure(Exception):
    """What an asset raises that a scenario told to fail."""


@dataclass
class Fault:
    """One thing to go wrong. `point` is 'start', 'end', 'before <function>' or 'after <function>'."""

    kind: str
    target: str
    point: str
    partition: str | None
    times: int | None
    error: BaseException | None = None
    duration: timedelta | None = None
    # How often it has gone wrong.
    hit: int = 0

    @property
    def function(self) -> str | None:
        """The function that the point names, None for the start and the end."""
        return self.point.split(" ", 1)[1] if " " in self.point else None

    def hits(self, op: str, names: frozenset[str], point: str, covers: Callable[[str | None], bool]) -> bool:
        """Whether it is this fault's turn; counts it when it is."""
        if self.times == 0 or point != self.point or self.target not in {op, *names} or not covers(self.partition):
            return False
        self.count()
        return True

    def count(self) -> None:
        """It has gone wrong once more."""
        self.hit += 1
        if self.times is not None:
            self.times -= 1

    def __str__(self) -> str:
        where = f" [{self.partition}]" if self.partition else ""
        return f"{self.kind} {self.target}{where} {'at its ' if self.function is None else ''}{self.point}"


class Points:
    """Tells of every point that a run reaches, once the ops and functions in question are wrapped.

    reached: is called with the op and 'start' or 'end', and with None and 'before ...' or 'after ...' for a function.
    """

    def __init__(self, reached: Callable[[str | None, str], None]) -> None:
        self._reached = reached
        self._undo: list[Callable[[], None]] = []
        self._wrapped: set[int] = set()
        self._functions: set[str] = set()

    def watch_op(self, op: dg.OpDefinition) -> None:
        """Tell of the start and the end of this op."""
        if id(op) in self._wrapped:
            return
        self._wrapped.add(id(op))
        original = op._compute_fn
        if isinstance(original, dagster_.DecoratedOpFunction):
            wrapped: Any = original._replace(decorated_fn=self._around(op.name, original.decorated_fn))
        else:
            wrapped = self._around(op.name, original)
        object.__setattr__(op, "_compute_fn", wrapped)
        object.__setattr__(op, _AROUND, functools.partial(self._around, op.name))
        self._undo.append(lambda: object.__setattr__(op, "_compute_fn", original))
        self._undo.append(lambda: object.__delattr__(op, _AROUND))

    def watch_function(self, path: str) -> None:
        """Tell of every call of the function at this dotted path, before and after."""
        if path in self._functions:
            return
        self._functions.add(path)
        owner, name = resolve(path)
        original = inspect.getattr_static(owner, name)
        function = getattr(owner, name)
        if not inspect.isroutine(function):
            raise ScenarioError(
                f"{path!r} is a {type(function).__name__}, not a function; for an asset or op use at='start' or 'end'"
            )

        around = self._around_call(path, function)

        if isinstance(owner, type) and not isinstance(original, staticmethod | classmethod):
            # A method: `function` is the plain function of the class, which takes self.
            setattr(owner, name, around)
        else:
            setattr(owner, name, staticmethod(around) if isinstance(owner, type) else around)
        self._undo.append(lambda: setattr(owner, name, original))

    def unwatch(self) -> None:
        """Give every op and function back what it was."""
        for undo in reversed(self._undo):
            undo()
        self._undo, self._wrapped, self._functions = [], set(), set()

    def _around_call(self, path: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with what it computes later (a coroutine's work, a generator's items) before its `after`."""

        def begin() -> None:
            self._reached(None, f"before {path}")

        def end() -> None:
            self._reached(None, f"after {path}")

        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def around_async_generator(*args: Any, **kwargs: Any) -> Any:
                begin()
                async for item in function(*args, **kwargs):
                    yield item
                end()

            return around_async_generator

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def around_coroutine(*args: Any, **kwargs: Any) -> Any:
                begin()
                result = await function(*args, **kwargs)
                end()
                return result

            return around_coroutine

        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def around_generator(*args: Any, **kwargs: Any) -> Any:
                begin()
                result = yield from function(*args, **kwargs)
                end()
                return result

            return around_generator

        @functools.wraps(function)
        def around(*args: Any, **kwargs: Any) -> Any:
            begin()
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                # A plain function that hands out a coroutine, as decorators make them.
                return _then(result, end)
            end()
            return result

        return around

    def _around(self, op: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def begin() -> None:
            self._reached(op, START)

        def end() -> None:
            self._reached(op, END)

        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def around_async_generator(*args: Any, **kwargs: Any) -> Any:
                begin()
                results = [result async for result in function(*args, **kwargs)]
                end()
                for result in results:
                    yield result

            return around_async_generator

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def around_coroutine(*args: Any, **kwargs: Any) -> Any:
                begin()
                result = await function(*args, **kwargs)
                end()
                return result

            return around_coroutine

        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def around_generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
                begin()
                yield from _end_before_last(function(*args, **kwargs), end)

            return around_generator

        @functools.wraps(function)
        def around(*args: Any, **kwargs: Any) -> Any:
            begin()
            result = function(*args, **kwargs)
            if inspect.isgenerator(result):
                return _end_before_last(result, end)
            end()
            return result

        return around


def around_of(op: dg.OpDefinition) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
    """What tells of the start and the end of an op, for a function in place of the op's own; None if nothing does."""
    around: Callable[[Callable[..., Any]], Callable[..., Any]] | None = getattr(op, _AROUND, None)
    return around


def die() -> None:
    """What SIGKILL does: nothing runs after it."""
    os.kill(os.getpid(), signal.SIGKILL)


def resolve(path: str) -> tuple[Any, str]:
    """The module or class that holds the function at a dotted path, and its name there."""
    parts = path.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:split])
        try:
            owner: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module}.".startswith(f"{error.name}."):
                continue
            raise ScenarioError(f"{path!r}: importing {module} failed: {error}") from error
        except Exception as error:
            raise ScenarioError(f"{path!r}: importing {module} failed: {type(error).__name__}: {error}") from error
        try:
            for part in parts[split:-1]:
                owner = getattr(owner, part)
            getattr(owner, parts[-1])
        except AttributeError:
            raise ScenarioError(
                f"{path!r}: {'.'.join(parts[:split])} has no {'.'.join(parts[split:])}; name the function where it is "
                "looked up, such as 'package.module.function' or 'package.module.Class.method'"
            ) from None
        return owner, parts[-1]
    raise ScenarioError(f"{path!r} is not the path of a function; expected one such as 'package.module.function'")


async def _then(work: Coroutine[Any, Any, Any], end: Callable[[], None]) -> Any:
    result = await work
    end()
    return result


def _end_before_last(results: Iterator[Any], end: Callable[[], None]) -> Iterator[Any]:
    """The same results. All is computed when the last one is known; it is recorded when it is yielded."""
    pending: list[Any] = []
    for result in results:
        if pending:
            yield pending.pop()
        pending.append(result)
    end()
    yield from pending
