"""What Dagster computes again and again with the same result is computed once, while a scenario is open.

Nothing else is changed: the daemons are Dagster's own, and what they decide and store is the same.
"""

import functools
import gc
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dagster_scenario import _dagster as dagster_


@contextmanager
def remembered() -> Iterator[None]:
    """Within it, ids of sensors, schedules and conditions' nodes, and parameters of sensors, are computed once."""
    before = [(owner, name, of, vars(owner)[name]) for owner, name, of in dagster_.REMEMBERED]
    for owner, name, of, original in before:
        setattr(owner, name, _once_for_each_object(original, of))
    result: Any = dagster_.AutomationResult
    context: Any = dagster_.AutomationContext
    get_new_cursor, evaluate_async = result.get_new_cursor, context.evaluate_async
    result.get_new_cursor = lambda self: _without_its_evaluation(self, get_new_cursor)
    context.evaluate_async = _evaluate
    times = [(module, name, getattr(module, name)) for module, name in dagster_.TIMES_OF_NODES]
    for module, name, now in times:
        setattr(module, name, _asked_once_while_time_stands_still(now))
    try:
        yield
    finally:
        result.get_new_cursor, context.evaluate_async = get_new_cursor, evaluate_async
        for module, name, now in times:
            setattr(module, name, now)
        for owner, name, _, original in before:
            setattr(owner, name, original)


class _Evaluation:
    """What a new cursor takes from an evaluation."""

    def __init__(self, true_subset: Any) -> None:
        self.true_subset = true_subset


def _without_its_evaluation(result: Any, get_new_cursor: Callable[[Any], Any]) -> Any:
    """The new cursor of a condition's result.

    Dagster makes the whole evaluation, each node's part of it, to take one value from it. When something has changed it
    needs the whole, and has it by then or makes it later.
    """
    kept = vars(result)
    if "serializable_evaluation" in kept:
        return get_new_cursor(result)
    kept["serializable_evaluation"] = _Evaluation(dagster_.get_serializable_true_subset(result.true_subset))
    try:
        return get_new_cursor(result)
    finally:
        del kept["serializable_evaluation"]


def _evaluate(context: Any) -> Awaitable[Any]:
    """What evaluates the condition of a context; as Dagster's own method, which asks each time which kind it is."""
    condition: Any = context.condition
    kind: Any = type(condition)
    if _is_asynchronous(kind):
        evaluation: Awaitable[Any] = condition.evaluate(context)
        return evaluation
    return _evaluated(condition, context)


async def _evaluated(condition: Any, context: Any) -> Any:
    return condition.evaluate(context)


@functools.cache
def _is_asynchronous(condition: Any) -> bool:
    return inspect.iscoroutinefunction(condition.evaluate)


def _asked_once_while_time_stands_still(now: Callable[[], Any]) -> Callable[[], Any]:
    last: tuple[float, Any] = (-1.0, None)

    def asked() -> Any:
        nonlocal last
        seconds = time.time()
        if seconds != last[0]:
            last = seconds, now()
        return last[1]

    return asked


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Within it, Python does not look for cycles of garbage.

    A pass of the daemons makes hundreds of thousands of small objects and hardly any cycles. Looking through them, and
    through all that Dagster has loaded, was 40 % of a tick over 400 conditions.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _once_for_each_object(original: Any, of: str | None) -> Any:
    if isinstance(original, property):
        assert original.fget is not None
        return property(_once(original.fget, of))
    if isinstance(original, classmethod):
        return classmethod(_once(original.__func__, of))
    return _once(original, of)


def _once(function: Callable[..., Any], of: str | None) -> Callable[..., Any]:
    # What the result depends on is kept with it, so that no other object gets its id.
    results: dict[Any, tuple[Any, Any]] = {}

    def once(self: Any, **arguments: Any) -> Any:
        depends_on = getattr(self, of) if of else self
        key: Any = id(depends_on)
        if arguments:
            key = key, *((tuple(value) if isinstance(value, list) else value) for value in arguments.values())
        found = results.get(key)
        if found is None:
            found = results[key] = depends_on, function(self, **arguments)
        return found[1]

    return once
