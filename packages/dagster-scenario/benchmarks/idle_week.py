"""A week in which nothing happens, in a project with 20 sensors that are on and an asset with hourly partitions.

Time stops at the end of each of the 168 partitions, and every sensor looks there.
"""

import dagster as dg
from dagster_scenario import Scenario
from measuring import Taken, holds, run, sensors, taken


@dg.asset
def target() -> None: ...


@dg.asset(partitions_def=dg.HourlyPartitionsDefinition("2024-01-01-00:00"))
def hourly() -> None: ...


def week() -> Taken:
    """What a week takes, without loading the project."""
    with Scenario() as scenario:
        scenario.load(dg.Definitions(assets=[target, hourly], sensors=sensors(20, target)))
        scenario.tick()
        return taken(lambda: scenario.advance(days=7))


def main() -> bool:
    return holds("an idle week of 20 sensors", [week() for _ in range(3)], at_most=3)


if __name__ == "__main__":
    run(main)
