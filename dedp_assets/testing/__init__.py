"""A test harness for Dagster projects: play a scenario on a simulated clock, and assert which partitions ran and why.

    from dedp_assets.testing import Scenario

    with Scenario(start="2024-01-05 08:00") as scenario:
        scenario.load("workspace.yaml")
        ...

With pytest, the fixture `scenario` is one, opened for the test.
"""

from dedp_assets.testing.errors import ScenarioError
from dedp_assets.testing.faults import InjectedFailure
from dedp_assets.testing.scenario import Scenario
from dedp_assets.testing.timeline import Cause, Event, Mark, Run, Timeline
from dedp_assets.testing.world.verbs import verb

__all__ = ["Cause", "Event", "InjectedFailure", "Mark", "Run", "Scenario", "ScenarioError", "Timeline", "verb"]
