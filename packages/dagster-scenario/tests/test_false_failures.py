"""A false expectation of a failure says what happened instead, and a sensor that fails says so in its own words."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


@dg.asset(partitions_def=DAYS)
def orders() -> None: ...


@dg.asset
def report() -> None: ...


@dg.asset_check(asset=report)
def complete() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.sensor(target=report, default_status=dg.DefaultSensorStatus.RUNNING)
def patient() -> dg.SkipReason:
    return dg.SkipReason("no file yet")


@dg.sensor(target=report)
def asleep() -> None: ...


NIGHTLY = dg.ScheduleDefinition(name="nightly", cron_schedule="0 3 * * *", job=dg.define_asset_job("job", [report]))
COMPANY = dg.Definitions(
    assets=[orders, report],
    asset_checks=[complete],
    jobs=[dg.define_asset_job("unused_job", [report])],
    sensors=[patient, asleep],
    schedules=[NIGHTLY],
)


def false(expectation: Callable[..., Any], *arguments: Any, **named: Any) -> list[str]:
    """The lines of what a false expectation says, without the timeline."""
    with pytest.raises(AssertionError) as error:
        expectation(*arguments, **named)
    return str(error.value).split("\ntimeline")[0].splitlines()


def test_runs_that_did_not_fail_are_named_with_what_came_of_them(scenario: Scenario) -> None:
    scenario.start("2024-01-05")
    scenario.load(COMPANY)
    scenario.hold("orders", partition="2024-01-02")
    scenario.materialize("orders", partition="2024-01-01")
    scenario.materialize("orders", partition="2024-01-02")
    scenario.run_until_quiet()
    assert false(scenario.expect("orders").failed) == [
        "expected orders to be failed, but no run of it failed",
        "  run 1 (orders [2024-01-01]), requested by hand: succeeded",
        "  run 2 (orders [2024-01-02]), requested by hand: under way since 2024-01-05 00:00:00, held: start",
    ]
    assert false(scenario.expect("orders").failed, "2024-01-02")[1:] == [
        "  run 2 (orders [2024-01-02]), requested by hand: under way since 2024-01-05 00:00:00, held: start",
    ]
    scenario.release()
    scenario.fail("orders", error="the disk is full")
    scenario.materialize("orders", partition="2024-01-03")
    scenario.run_until_quiet()
    lines = false(scenario.expect("orders").failed, "2024-01-02", "2024-01-03")
    assert lines[0].endswith("but runs of 2024-01-03 failed")
    assert lines[1:] == ["  run 2 (orders [2024-01-02]), requested by hand: succeeded"]
    lines = false(scenario.expect("orders").failed, "2024-01-02")
    assert any("run 3 (orders [2024-01-03]), requested by hand: failed: " in line for line in lines)
    lines = false(scenario.expect("orders").failed, error="memory")
    assert any("the disk is full" in line for line in lines[1:])
    scenario.launch("unused_job")
    scenario.run_until_quiet()
    assert false(scenario.expect_job("unused_job").failed)[1:] == [
        "  run 4 (report), requested by hand: succeeded",
    ]


def test_what_was_never_requested_says_who_could_have(scenario: Scenario) -> None:
    scenario.load(COMPANY)
    scenario.tick()
    for expectation in (scenario.expect("report").failed, scenario.expect_job("unused_job").failed):
        assert false(expectation)[1:] == [
            "  no run was requested",
            "  sensor patient last looked at 2024-01-01 00:00:00: no file yet",
            "  switched off: asleep, nightly; scenario.turn_on() turns everything on",
        ]
    assert false(scenario.expect("report").running)[1] == "  no run was requested"
    assert false(scenario.expect_check("report", "complete").failed)[1] == "  no run of report was requested"
    assert false(scenario.expect_sensor("patient").failed)[1:] == [
        "  sensor patient last looked at 2024-01-01 00:00:00: no file yet",
    ]
    assert false(scenario.expect_schedule("nightly").failed)[1:] == [
        "  it has not looked yet",
        "  it is switched off; scenario.turn_on('nightly') turns it on",
    ]


def test_a_run_that_has_not_started_says_what_it_waits_for(tmp_path: Path) -> None:
    with Scenario(settings={"run_queue": {"max_concurrent_runs": 1}}) as scenario:
        scenario.load(COMPANY)
        scenario.materialize("report")
        assert "not started: the next tick" in false(scenario.expect("report").failed)[1]
        with scenario.daemons_down("run queue"):
            scenario.tick()
            assert false(scenario.expect("report").failed)[1] == (
                "  run 1 (report), requested by hand: requested, and not started: the daemon 'run queue' is down"
            )
        scenario.hold("report")
        scenario.run_until_quiet()
        scenario.materialize("report")
        scenario.run_until_quiet()
        assert false(scenario.expect("report").failed)[2] == (
            "  run 2 (report), requested by hand: requested, and not started: "
            "the run queue lets 1 run be under way, and 1 is: run 1 (report)"
        )


def test_a_run_that_sleeps_says_where(scenario: Scenario) -> None:
    @dg.asset
    def slow() -> None:
        time.sleep(3600)

    scenario.load(dg.Definitions(assets=[slow]))
    scenario.materialize("slow")
    scenario.run_until_quiet()
    assert (
        ": under way since 2024-01-01 00:00:00, asleep in test_false_failures.py:"
        in (false(scenario.expect("slow").failed)[1])
    )


def test_a_run_that_a_limit_of_its_tag_holds_back_says_which(tmp_path: Path) -> None:
    limits = [{"key": "team", "value": "sales", "limit": 1}]
    with Scenario(settings={"run_queue": {"max_concurrent_runs": 5, "tag_concurrency_limits": limits}}) as scenario:
        scenario.load(COMPANY)
        scenario.hold("report")
        for _ in range(2):
            scenario.launch("job", tags={"team": "sales"})
            scenario.run_until_quiet()
        assert false(scenario.expect_job("job").failed)[2] == (
            "  run 2 (report), requested by hand: requested, and not started: "
            "the run queue lets 1 run with the tag team=sales be under way, and 1 is: run 1 (report)"
        )


# A sensor that fails


def test_a_sensor_that_fails_shows_its_own_error_its_own_line_and_how_often(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "company_looks.py").write_text(
        "import json\n"
        "import dagster as dg\n"
        "\n"
        "@dg.asset\n"
        "def lines(): ...\n"
        "\n"
        "@dg.sensor(target=lines, default_status=dg.DefaultSensorStatus.RUNNING)\n"
        "def new_lines():\n"
        "    try:\n"
        "        json.loads('{')\n"
        "    except ValueError as error:\n"
        "        raise RuntimeError('the list of lines is broken') from error\n"
        "\n"
        "defs = dg.Definitions(assets=[lines], sensors=[new_lines])\n",
        encoding="utf-8",
    )
    scenario.load("company_looks")
    scenario.advance(minutes=1)
    expected = [
        "  sensor new_lines has failed 3 times in a row, from 2024-01-01 00:00:00 to 2024-01-01 00:01:00: "
        "RuntimeError: the list of lines is broken, because of json.decoder.JSONDecodeError: Expecting property name "
        "enclosed in double quotes: line 1 column 2 (char 1)",
        "    at company_looks.py:12 in new_lines: raise RuntimeError('the list of lines is broken') from error",
    ]
    lines = false(scenario.expect("lines").materialized)
    assert lines[1:] == ["  no run was requested", *expected]
    scenario.expect_sensor("new_lines").failed("the list of lines is broken")
    assert false(scenario.expect_sensor("new_lines").failed, "the network")[1:] == expected
    assert false(scenario.expect_sensor("new_lines").waiting)[1:] == expected
    assert false(scenario.expect_sensor("new_lines").requested)[1:] == expected


def test_a_sensor_that_fails_in_a_library_folds_its_frames(scenario: Scenario) -> None:
    @dg.sensor(target=report, default_status=dg.DefaultSensorStatus.RUNNING)
    def reading() -> None:
        Path("/no/such/folder").read_text(encoding="utf-8")

    scenario.load(dg.Definitions(assets=[report], sensors=[reading]))
    scenario.tick()
    lines = false(scenario.expect_sensor("reading").waiting)
    assert lines[1].startswith("  sensor reading has failed once, at 2024-01-01 00:00:00: FileNotFoundError: ")
    assert lines[2].startswith("    at test_false_failures.py:")
    assert lines[-1].endswith(" of Python")
    scenario.expect_sensor("reading").failed("No such file")
