"""What Dagster computes again and again with the same result is computed once, while a scenario is open.

Nothing else is changed: the daemons are Dagster's own, and what they decide and store is the same.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dagster_scenario import _dagster as dagster_


@contextmanager
def remembered() -> Iterator[None]:
    """Within it, the ids of sensors and schedules, and those of conditions' nodes, are computed once for each."""
    before = [(owner, name, owner.__dict__[name]) for owner, name in dagster_.REMEMBERED]
    for owner, name, original in before:
        setattr(owner, name, _once_for_each_object(original))
    result: Any = dagster_.AutomationResult
    get_new_cursor = result.get_new_cursor
    result.get_new_cursor = lambda self: _without_its_evaluation(self, get_new_cursor)
    try:
        yield
    finally:
        result.get_new_cursor = get_new_cursor
        for owner, name, original in before:
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


def _once_for_each_object(original: Any) -> Any:
    if isinstance(original, property):
        assert original.fget is not None
        return property(_once(original.fget))
    return _once(original)


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    # The object is kept with its result, so that no other one gets its id.
    results: dict[Any, tuple[Any, Any]] = {}

    def once(self: Any, **arguments: Any) -> Any:
        key: Any = id(self)
        if arguments:
            key = key, *((tuple(value) if isinstance(value, list) else value) for value in arguments.values())
        found = results.get(key)
        if found is None:
            found = results[key] = self, function(self, **arguments)
        return found[1]

    return once
