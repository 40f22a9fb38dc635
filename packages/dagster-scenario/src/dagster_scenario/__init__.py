"""A test harness for Dagster projects: play a scenario on a simulated clock, and assert which partitions ran and why.

    from dagster_scenario import Scenario

    with Scenario(start="2024-01-05 08:00") as scenario:
        scenario.load("workspace.yaml")
        ...

With pytest, the fixture `scenario` is one, opened for the test.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dagster_scenario._supported import explanation

if TYPE_CHECKING:
    from dagster_scenario.errors import ScenarioError, ScenarioWarning
    from dagster_scenario.faults import InjectedFailure
    from dagster_scenario.scenario import Scenario
    from dagster_scenario.timeline import Cause, Event, Mark, Run, Timeline
    from dagster_scenario.world.verbs import verb

__all__ = [
    "Cause",
    "Event",
    "InjectedFailure",
    "Mark",
    "Run",
    "Scenario",
    "ScenarioError",
    "ScenarioWarning",
    "Timeline",
    "verb",
]

# pytest imports this package for its plugin in every project of the environment. So Dagster is imported by the first
# use of a name, and not before.
_MODULES = {
    **dict.fromkeys(("Cause", "Event", "Mark", "Run", "Timeline"), "timeline"),
    "InjectedFailure": "faults",
    "Scenario": "scenario",
    "ScenarioError": "errors",
    "ScenarioWarning": "errors",
    "verb": "world.verbs",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("dagster", "dagster_shared"):
            raise
        raise ImportError(explanation(error)) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
