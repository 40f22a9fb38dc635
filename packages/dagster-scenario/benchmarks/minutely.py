"""A day of a schedule that runs an asset every minute: 1,440 runs, and 2,880 passes of the daemons."""

import dagster as dg
from dagster_scenario import Scenario
from measuring import Taken, holds, run, taken

MINUTES = 24 * 60


@dg.asset
def target() -> None: ...


def day() -> Taken:
    """What a day takes, without loading the project."""
    on = dg.DefaultScheduleStatus.RUNNING
    minutely = dg.ScheduleDefinition(name="minutely", target=target, cron_schedule="* * * * *", default_status=on)
    with Scenario() as scenario:
        scenario.load(dg.Definitions(assets=[target], schedules=[minutely]))
        scenario.tick()
        day = taken(lambda: scenario.advance(minutes=MINUTES))
        scenario.expect("target").materialized(times=MINUTES)
    return day


def main() -> bool:
    day_ = day()
    print(f"{day_.cpu / MINUTES * 1000:.0f} ms of CPU for each run, {day_.wall / MINUTES * 1000:.0f} ms of wall time")
    return holds(f"a day of {MINUTES:,} runs", [day_], at_most=90)


if __name__ == "__main__":
    run(main)
