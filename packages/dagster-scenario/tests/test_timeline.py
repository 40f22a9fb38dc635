"""The timeline: what it says, and that it says the same every time."""

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest
from dagster_scenario import Scenario, Timeline
from dagster_scenario.timeline import lateness

STORY = """
import sys
import dagster as dg
from dagster_scenario import Scenario, Timeline
from dagster_scenario.timeline import lateness

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
assets = []
for name in ("oak", "ash", "elm"):
    @dg.asset(name=name, partitions_def=DAYS, automation_condition=dg.AutomationCondition.newly_missing())
    def tree() -> None: ...
    assets.append(tree)

@dg.asset(deps=assets, partitions_def=DAYS, automation_condition=dg.AutomationCondition.eager())
def wood() -> None: ...

def sensors():
    for number in range(4):
        @dg.sensor(name=f"sensor_{number}", target=assets, default_status=dg.DefaultSensorStatus.RUNNING)
        def look(context):
            if not context.cursor:
                context.update_cursor("seen")
                yield dg.RunRequest(run_key="first", partition_key="2024-01-02")
            else:
                yield dg.SkipReason("nothing new")
        yield look

automation = dg.AutomationConditionSensorDefinition(
    "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING, emit_backfills=False)
with Scenario(start="2024-01-04 08:00") as scenario:
    scenario.load(dg.Definitions(assets=[*assets, wood], sensors=[automation, *sensors()]))
    scenario.folder().drop("a/file.csv", "1")
    scenario.fail("ash", partition="2024-01-04")
    scenario.kill("elm", partition="2024-01-05")
    scenario.run_until_quiet()
    scenario.advance(days=2)
    sys.stdout.write(str(scenario.timeline))
    open(sys.argv[1], "w").write(scenario.timeline.html())
"""


def test_the_same_scenario_has_the_same_timeline_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "story.py").write_text(STORY, encoding="utf-8")

    def play(seed: str) -> tuple[str, str]:
        """Dagster keeps much in sets, whose order this seed changes."""
        page = tmp_path / f"{seed}.html"
        command = [sys.executable, str(tmp_path / "story.py"), str(page)]
        environment = {"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, page.read_text(encoding="utf-8")

    first, second = play("1"), play("2")
    assert first == second
    assert "killed" in first[0]
    assert first[0].count("\n") > 30


def test_it_reads_as_a_story(scenario: Scenario) -> None:
    @dg.asset
    def orders() -> None: ...

    @dg.sensor(target=orders, default_status=dg.DefaultSensorStatus.RUNNING)
    def arrival(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        files = list(folder.path.iterdir())
        return dg.RunRequest(run_key=files[0].name) if files else dg.SkipReason(f"nothing in {folder.path}")

    folder = scenario.folder()
    scenario.load(company=dg.Definitions(assets=[orders], sensors=[arrival]))
    scenario.start("2024-01-31 09:00")
    scenario.run_until_quiet()
    scenario.mark("the file")
    folder.drop("orders.csv", "1;2;3\n")
    scenario.run_until_quiet()
    assert str(scenario.timeline).splitlines() == [
        "2024-01-01 00:00:00  daemon                loaded company",
        "2024-01-31 09:00:00  sensor                arrival skipped: nothing in .../world",
        "                     mark                  the file",
        "                     world                 orders.csv arrives (6 bytes)",
        "2024-01-31 09:00:30  requested     run 1   orders  (by sensor arrival)",
        "                     started       run 1   orders",
        "                     materialized  run 1   orders",
        "                     succeeded     run 1   orders",
    ]


def test_it_can_begin_at_a_mark(scenario: Scenario) -> None:
    scenario.happened("it rains")
    mark = scenario.mark()
    scenario.happened("it stops")
    assert [line.split()[-2:] for line in scenario.timeline.lines(mark)] == [["it", "stops"]]
    assert scenario.timeline.since(mark)[0].kind == "world"


def test_nothing_has_happened_yet(scenario: Scenario) -> None:
    assert str(scenario.timeline) == "nothing has happened yet"


@pytest.mark.parametrize("seconds", [0, 59, 3600, 90061])
def test_durations_in_words(seconds: int) -> None:
    words = {0: "0 s", 59: "59 s", 3600: "1 h", 90061: "1 d 1 h 1 min 1 s"}
    assert lateness(timedelta(seconds=seconds)) == words[seconds]


def test_backfills_that_automation_requests_at_different_times_are_different_ones(scenario: Scenario) -> None:
    kinds = dg.StaticPartitionsDefinition(["apple", "pear"])

    @dg.asset(deps=["source"], partitions_def=kinds, automation_condition=dg.AutomationCondition.eager())
    def offers() -> None: ...

    source = dg.AssetSpec("source", partitions_def=kinds)
    automation = dg.AutomationConditionSensorDefinition(
        "automation", target=dg.AssetSelection.all(), default_status=dg.DefaultSensorStatus.RUNNING
    )
    scenario.load(dg.Definitions(assets=[source, offers], sensors=[automation]))
    scenario.run_until_quiet()
    for version in ("first", "second"):
        for kind in ("apple", "pear"):
            scenario.report("source", kind, data_version=version)
        scenario.run_until_quiet()
    expected = ["apple", "pear"] * 2
    scenario.expect("offers").materialized(*expected).by_backfill().by_automation("automation")
    assert (
        len({cause for run in scenario.timeline.runs.values() for cause in run.causes if cause.kind == "backfill"}) == 2
    )


def test_runs_of_a_backfill_are_numbered_by_what_they_are_not_by_when_dagster_thought_of_them() -> None:
    def requested(order: list[str]) -> list[str]:
        timeline = Timeline(lambda: datetime(2024, 1, 1, tzinfo=timezone.utc))
        for day in order:
            tags = {"dagster/partition": day, "dagster/backfill": "it"}
            timeline.run_added(dg.DagsterRun(job_name="job", run_id=f"run of {day}", tags=tags))
        timeline.number_requests(lambda run: ("orders",), lambda run: (run.tags["dagster/partition"],))
        return list(timeline.lines())

    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert requested(days) == requested(days[::-1])
