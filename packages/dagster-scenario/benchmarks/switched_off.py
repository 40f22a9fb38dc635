"""A week of a project in which a schedule for each minute, a condition and a sensor are off."""

import dagster as dg
from dagster_scenario import Scenario
from measuring import Taken, holds, run, taken


@dg.asset(automation_condition=dg.AutomationCondition.on_cron("* * * * *"))
def target() -> None: ...


@dg.asset(partitions_def=dg.HourlyPartitionsDefinition("2024-01-01-00:00"))
def hourly() -> None: ...


@dg.sensor(target=target)
def off() -> None: ...


def week() -> Taken:
    """What a week takes, without loading the project."""
    minutely = dg.ScheduleDefinition(name="minutely", target=target, cron_schedule="* * * * *")
    with Scenario() as scenario:
        scenario.load(dg.Definitions(assets=[target, hourly], schedules=[minutely], sensors=[off]))
        scenario.tick()
        return taken(lambda: scenario.advance(days=7))


def main() -> bool:
    return holds("a week in which everything is off", [week() for _ in range(5)], at_most=0.2)


if __name__ == "__main__":
    run(main)
