"""A test harness for Dagster projects: play a scenario on a simulated clock, and assert which partitions ran and why.

    from dagster_scenario import Scenario

    with Scenario(start="2024-01-05 08:00") as scenario:
        scenario.load("workspace.yaml")
        ...

With pytest, the fixture `scenario` is one, opened for the test.
"""

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
