"""A false expectation says why: the condition node by node, skip reasons, what is off, the project's own line."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
AUTOMATION = dg.AutomationConditionSensorDefinition(
    "automation", target=dg.AssetSelection.all(), default_status=dg.DefaultSensorStatus.RUNNING
)
orders = dg.AssetSpec("orders", partitions_def=DAYS)


@dg.asset(deps=[orders], partitions_def=DAYS, automation_condition=dg.AutomationCondition.eager())
def report() -> None: ...


def why(scenario: Scenario, *partitions: str, asset: str = "report", since: Any = None) -> list[str]:
    """What is said of an asset that was not materialized, without the timeline."""
    with pytest.raises(AssertionError) as error:
        scenario.expect(asset).materialized(*partitions, since=since)
    return str(error.value).split("\ntimeline")[0].splitlines()


def test_each_node_of_a_condition_says_whether_it_held(scenario: Scenario) -> None:
    scenario.start("2024-01-10 09:00")
    scenario.load(dg.Definitions(assets=[orders, report], sensors=[AUTOMATION]))
    scenario.run_until_quiet()
    late = scenario.mark("late")
    scenario.report("orders", "2024-01-05")
    scenario.run_until_quiet()
    assert why(scenario, "2024-01-05", since=late)[3:] == [
        "  the condition of report for 2024-01-05, as it was at 2024-01-10 09:00:30:",
        "    no  eager: all of",
        "    no    in_latest_time_window",
        "    yes   (newly_missing or any_deps_updated) since handled",
        "    ?     not any_deps_missing: any dependency",
        "    ?     not any_deps_in_progress: any dependency",
        "    ?     not in_progress: any of",
    ]


def test_the_node_below_a_not_that_held_is_shown(scenario: Scenario) -> None:
    scenario.start("2024-01-10 09:00")
    scenario.load(dg.Definitions(assets=[orders, report], sensors=[AUTOMATION]))
    scenario.hold("report")
    scenario.materialize("report", partition="2024-01-09")
    scenario.run_until_quiet()
    mark = scenario.mark()
    scenario.report("orders", "2024-01-09")
    scenario.run_until_quiet()
    said = why(scenario, "2024-01-09", since=mark)
    assert said[-3:] == [
        "    no    not in_progress: any of",
        "    yes     run_in_progress",
        "    no      backfill_in_progress",
    ]


def test_of_several_looks_the_nearest_one_is_told(scenario: Scenario) -> None:
    """The condition is looked at again at midnight, when nothing of it holds any more."""
    scenario.start("2024-01-10 09:00")
    scenario.load(dg.Definitions(assets=[orders, report], sensors=[AUTOMATION]))
    scenario.run_until_quiet()
    mark = scenario.mark()
    scenario.report("orders", "2024-01-05")
    scenario.advance(days=2)
    (when,) = [line for line in why(scenario, "2024-01-05", since=mark) if "the condition of" in line]
    assert "as it was at 2024-01-10 09:00:30" in when


def test_an_asset_without_partitions_and_one_that_nobody_asks_for(scenario: Scenario) -> None:
    @dg.asset(automation_condition=dg.AutomationCondition.on_cron("0 3 * * *"))
    def nightly() -> None: ...

    @dg.asset
    def unasked() -> None: ...

    scenario.load(dg.Definitions(assets=[nightly, unasked], sensors=[AUTOMATION]))
    scenario.advance(hours=1)
    said = why(scenario, asset="nightly")
    assert said[3] == "  the condition of nightly, as it was at 2024-01-01 00:00:00:"
    assert any("no" in line and "cron_tick_passed" in line for line in said[4:])
    assert not any("the condition of" in line for line in why(scenario, asset="unasked"))


def test_what_sensors_said_before_and_what_is_off(scenario: Scenario) -> None:
    @dg.asset
    def wanted() -> None: ...

    @dg.sensor(target=wanted, default_status=dg.DefaultSensorStatus.RUNNING)
    def looking() -> dg.SkipReason:
        if reasons:
            return dg.SkipReason(reasons[0])
        raise RuntimeError("the folder is gone")

    @dg.sensor(target=wanted)
    def sleeping() -> dg.SkipReason:
        return dg.SkipReason("awake")

    nightly = dg.ScheduleDefinition(name="nightly", cron_schedule="0 1 * * *", target=wanted)
    reasons = ["no folder"]
    scenario.load(dg.Definitions(assets=[wanted], sensors=[looking, sleeping], schedules=[nightly]))
    scenario.tick()
    reasons[:] = []
    scenario.advance(minutes=1)
    reasons[:] = ["no file yet"]
    scenario.advance(minutes=5)
    scenario.happened("nothing")
    scenario.run_until_quiet()
    said = why(scenario, asset="wanted")
    assert said[2].startswith("  sensor looking last looked at 2024-01-01 00:0")
    assert said[2].endswith(": no file yet")
    assert said[3] == "    from 2024-01-01 00:00:00 on: no folder"
    assert said[4].startswith("    from 2024-01-01 00:0")
    assert "failed: " in said[4]
    assert "the folder is gone" in said[4]
    assert said[5] == "  switched off: sleeping, nightly; scenario.turn_on() turns everything on"

    scenario.turn_on()
    scenario.at("02:00")
    scenario.expect("wanted").materialized(times=1).by_schedule("nightly")
    scenario.expect_sensor("sleeping").waiting(because="awake")
    scenario.turn_off()
    scenario.at("2024-01-03 02:00")
    scenario.expect("wanted").materialized(times=1)


def test_the_projects_own_line_comes_first_and_libraries_are_folded(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "company_lines.py").write_text(
        "import json\n"
        "import dagster as dg\n"
        "\n"
        "def parse(text):\n"
        "    return json.loads(text)\n"
        "\n"
        "@dg.asset\n"
        "def lines():\n"
        "    parse('{')\n"
        "\n"
        "defs = dg.Definitions(assets=[lines])\n",
        encoding="utf-8",
    )
    scenario.load("company_lines")
    scenario.materialize("lines")
    scenario.run_until_quiet()
    run = scenario.timeline.run(1)
    assert run.error.startswith("json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes")
    assert run.trace[:3] == (
        "at company_lines.py:5 in parse: return json.loads(text)",
        "  company_lines.py:9 in lines: parse('{')",
        "  company_lines.py:5 in parse: return json.loads(text)",
    )
    assert run.trace[3].endswith(" frames of Python")
    assert len(run.trace) == 4
    with pytest.raises(AssertionError) as error:
        scenario.expect_runs().none_failed()
    assert str(error.value).splitlines()[2] == "    at company_lines.py:5 in parse: return json.loads(text)"


def test_a_run_whose_resource_can_not_be_made_says_why(scenario: Scenario) -> None:
    class Broken(dg.ConfigurableResource[Any]):
        def setup_for_execution(self, context: dg.InitResourceContext) -> None:
            raise RuntimeError("no route to the warehouse")

    @dg.asset
    def needs(broken: Broken) -> None: ...

    scenario.load(dg.Definitions(assets=[needs], resources={"broken": Broken()}))
    scenario.materialize("needs")
    scenario.run_until_quiet()
    scenario.expect("needs").failed(error="no route to the warehouse")
    assert scenario.timeline.run(1).trace[0].startswith("at test_reasons.py:")


# A timeline of many runs


def test_a_timeline_of_many_runs_is_shortened_to_what_matters(scenario: Scenario) -> None:
    @dg.asset(partitions_def=DAYS)
    def many() -> None: ...

    scenario.start("2024-11-01")
    scenario.load(dg.Definitions(assets=[many]))
    keys = DAYS.get_partition_keys()[:300]
    scenario.fail("many", partition=keys[7], error="the disk is full")
    scenario.backfill("many", partitions=keys)
    scenario.run_until_quiet()
    scenario.happened("the disk is mended")
    assert len(list(scenario.timeline.lines())) > 1000
    short = scenario.timeline.shortened()
    assert len(short) <= 90
    text = "\n".join(short)
    assert "300 times: many [2024-01-01 ... 2024-10-26], runs 1 to 300" in text
    assert "the disk is full" in text
    assert short[-1].endswith("the disk is mended")
    with pytest.raises(AssertionError) as error:
        scenario.expect("many").materialized(times=1)
    assert len(str(error.value).splitlines()) < 130


def test_a_short_timeline_is_not_shortened(scenario: Scenario) -> None:
    scenario.happened("it rains")
    assert scenario.timeline.shortened() == list(scenario.timeline.lines())


def test_the_condition_of_an_asset_with_dynamic_partitions_is_explained(scenario: Scenario) -> None:
    partitions = dg.DynamicPartitionsDefinition(name="customers")

    @dg.asset(
        deps=[dg.AssetSpec("orders")],
        partitions_def=partitions,
        automation_condition=dg.AutomationCondition.eager(),
    )
    def report() -> None: ...

    automation = dg.AutomationConditionSensorDefinition(
        "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING
    )
    scenario.load(dg.Definitions(assets=[report], sensors=[automation]))
    scenario.add_partitions("customers", "a")
    scenario.run_until_quiet()
    with pytest.raises(AssertionError, match="the condition of report for a, as it was at"):
        scenario.expect("report").materialized("a")
