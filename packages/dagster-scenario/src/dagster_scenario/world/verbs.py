"""Verbs of your own: functions that change the world, told in the timeline as sentences."""

import functools
import inspect
import string
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from dagster_scenario.errors import ScenarioError
from dagster_scenario.world import World

P = ParamSpec("P")
R = TypeVar("R")


def verb(sentence: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function that takes the scenario first, or a method that takes it next, be noted in the timeline.

        @verb("{supplier} delivers {day}")
        def deliver(scenario, supplier, day="today"):
            ...

    sentence: a format string over the function's parameters. It is noted when the function has returned; when it has
    raised, "... failed: " and the error are, and the error goes on. Raises ScenarioError, where the function is
    defined, for a sentence that does not fit it.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        _check(sentence, function, signature)

        @functools.wraps(function)
        def noted(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            scenario = _scenario(function, list(bound.arguments.values()))
            # Before the call, which may use its arguments up.
            text = _format(sentence, function, bound.arguments)
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                scenario.happened(f"{text} failed: {str(error) or type(error).__name__}")
                raise
            scenario.happened(text)
            return result

        return noted

    return decorate


def _check(sentence: str, function: Callable[..., Any], signature: inspect.Signature) -> None:
    name = function.__qualname__
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ScenarioError(
            f"{name} does nothing when it is called, being async or a generator; write a plain function"
        )
    try:
        placeholders = set(_placeholders(sentence))
    except ValueError as error:
        raise ScenarioError(f"the sentence of {name} is not a format string ({error}): {sentence!r}") from None
    for placeholder in sorted(placeholders - set(signature.parameters)):
        raise ScenarioError(
            f"the sentence of {name} has {{{placeholder}}}, which is none of its parameters "
            f"({', '.join(signature.parameters) or 'there are none'}): {sentence!r}"
        )


def _placeholders(sentence: str) -> Iterator[str]:
    for _, name, spec, _ in string.Formatter().parse(sentence):
        if name is not None:
            yield name.split(".")[0].split("[")[0]
            yield from _placeholders(spec or "")


def _scenario(function: Callable[..., Any], arguments: list[Any]) -> World:
    for argument in arguments[:2]:
        if isinstance(argument, World):
            return argument
    raise ScenarioError(f"{function.__qualname__} is a verb: its first argument is the scenario")


def _format(sentence: str, function: Callable[..., Any], arguments: dict[str, Any]) -> str:
    try:
        return sentence.format(**arguments)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ScenarioError(
            f"the sentence of {function.__qualname__} can't be formed: {type(error).__name__}: {error}"
        ) from error
