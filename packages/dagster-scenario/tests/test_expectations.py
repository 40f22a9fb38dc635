"""Every expectation, true and false; a false one says what happened instead, and why."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioError

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


@dg.asset(partitions_def=DAYS)
def orders() -> None:
    """One partition a day, by the schedule `nightly`."""


@dg.asset(
    deps=[orders],
    automation_condition=dg.AutomationCondition.on_cron("0 */12 * * *").without(
        dg.AutomationCondition.all_deps_updated_since_cron("0 */12 * * *")
    ),
)
def report() -> None:
    """At noon and at midnight, by the sensor `automation`."""


@dg.asset
def unused() -> None:
    """Nobody asks for it."""


@dg.sensor(target=unused, default_status=dg.DefaultSensorStatus.RUNNING)
def patient() -> dg.SkipReason:
    """Finds nothing, ever."""
    return dg.SkipReason("no file yet")


@dg.sensor(target=unused)
def broken() -> None:
    """Fails when it is turned on."""
    raise ValueError("the folder is not mounted")


NIGHTLY = dg.build_schedule_from_partitioned_job(
    dg.define_asset_job("nightly_job", [orders]), name="nightly", default_status=dg.DefaultScheduleStatus.RUNNING
)
AUTOMATION = dg.AutomationConditionSensorDefinition(
    "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING
)


@pytest.fixture
def company(scenario: Scenario) -> Scenario:
    """The third of January at noon: two nights are over."""
    scenario.start("2024-01-01 12:00")
    scenario.load(
        dg.Definitions(assets=[orders, report, unused], sensors=[AUTOMATION, patient, broken], schedules=[NIGHTLY])
    )
    scenario.at("2024-01-03 12:00")
    return scenario


def false(expectation: Callable[..., Any], *arguments: Any, **named: Any) -> list[str]:
    """The lines of what a false expectation says."""
    with pytest.raises(AssertionError) as error:
        expectation(*arguments, **named)
    return str(error.value).splitlines()


def test_what_was_materialized_by_whom(company: Scenario) -> None:
    company.expect("orders").materialized("2024-01-01", "2024-01-02").by_schedule("nightly")
    company.expect("orders").materialized("2024-01-02", "2024-01-01", in_any_order=True).by_schedule()
    company.expect("orders").materialized(times=2)
    company.expect("orders").not_materialized("2024-01-01", since=company.mark())
    company.expect("report").materialized(times=4).by_automation("automation")
    company.expect("unused").not_materialized()


def test_a_missing_partition(company: Scenario) -> None:
    company.at("2024-01-04 12:00")
    lines = false(company.expect("orders").materialized, "2024-01-01", "2024-01-03")
    assert lines[0] == (
        "expected orders to be materialized for 2024-01-01, 2024-01-03 (in this order), "
        "but it was for 2024-01-01, 2024-01-02, 2024-01-03"
    )
    assert lines[1] == "  2024-01-02: run 4 at 2024-01-03 00:00:00, requested by schedule nightly"


def test_a_partition_that_nobody_asked_for(company: Scenario) -> None:
    mark = company.mark("noon")
    lines = false(company.expect("orders").materialized, "2024-01-02", since=mark)
    assert lines[:2] == [
        "expected orders to be materialized for 2024-01-02 since 'noon' (2024-01-03 12:00:00), but it was not",
        "  no run was requested for 2024-01-02",
    ]
    assert "  schedule nightly last looked at 2024-01-03 00:00:00: requested something" in lines
    assert "  sensor patient last looked at 2024-01-03 12:00:00: no file yet" in lines
    assert lines[-2:] == [
        "timeline since then, until 2024-01-03 12:00:00:",
        "  2024-01-03 12:00:00  mark                  noon",
    ]


def test_a_partition_whose_run_failed(company: Scenario) -> None:
    company.fail("orders", error="the disk is full")
    mark = company.mark()
    company.at("2024-01-04 00:30")
    lines = false(company.expect("orders").materialized, "2024-01-03", since=mark)
    assert any("(orders [2024-01-03]), requested by schedule nightly: failed: " in line for line in lines)
    assert any("the disk is full" in line for line in lines)
    company.expect("orders").failed("2024-01-03", error="disk")
    assert "failed with 'memory'" in false(company.expect("orders").failed, "2024-01-03", error="memory")[0]
    assert "1 did" in false(company.expect_runs().none_failed)[0]


def test_the_wrong_order_and_the_wrong_number(company: Scenario) -> None:
    assert false(company.expect("orders").materialized, "2024-01-02", "2024-01-01")[0].endswith(
        "(in this order), but it was for 2024-01-01, 2024-01-02"
    )
    assert false(company.expect("orders").materialized, times=1)[0] == (
        "expected orders to be materialized once, but it was for 2024-01-01, 2024-01-02"
    )
    assert false(company.expect("unused").materialized)[0] == "expected unused to be materialized, but it was not"


def test_what_should_not_have_been_materialized(company: Scenario) -> None:
    lines = false(company.expect("orders").not_materialized, "2024-01-02")
    assert lines[0] == "expected orders to be not materialized for 2024-01-02, but it was for 2024-01-02"
    assert lines[1].startswith("  2024-01-02: run ")
    assert lines[1].endswith("at 2024-01-03 00:00:00, requested by schedule nightly")


def test_the_wrong_cause(company: Scenario) -> None:
    materialized = company.expect("orders").materialized()
    for cause in (materialized.by_sensor, materialized.by_automation, materialized.by_backfill, materialized.by_retry):
        lines = false(cause)
        assert lines[0].startswith("expected orders to be materialized by ")
        assert lines[1].endswith("requested by schedule nightly")
    with pytest.raises(ScenarioError, match=r"no schedule 'nightley' .* Did you mean 'nightly'\?"):
        materialized.by_schedule("nightley")
    assert "it took 2" in false(materialized.in_one_run)[0]


def test_what_is_running_and_what_has_not_ended(company: Scenario) -> None:
    company.expect_runs().none_under_way()
    assert false(company.expect("orders").running)[0] == "expected orders to be running, but it is not"
    company.hold("orders")
    company.at("2024-01-04 00:30")
    company.expect("orders").running("2024-01-03")
    assert false(company.expect("orders").running, "2024-01-02")[0].endswith("but running are 2024-01-03")
    assert "1 have not" in false(company.expect_runs().none_under_way)[0]


def test_how_many_runs_were_requested(company: Scenario) -> None:
    mark = company.mark()
    company.advance(hours=12)
    company.expect_runs(since=mark).count(2)
    lines = false(company.expect_runs(since=mark).count, 3)
    assert lines[0].startswith("expected runs: 3 to be requested since 2024-01-03 12:00:00, but 2 were")
    assert {line.split("requested ")[1] for line in lines[1:3]} == {
        "by schedule nightly: succeeded",
        "by automation automation: succeeded",
    }


def test_which_sensors_wait_since_when_and_why(company: Scenario) -> None:
    company.expect_sensor("patient").waiting(since="2024-01-01 12:00", because="no file")
    assert false(company.expect_sensor("patient").waiting, since="2024-01-02")[0] == (
        "expected sensor patient to be waiting since 2024-01-02 00:00:00, "
        "but it has been waiting since 2024-01-01 12:00:00 (no file yet)"
    )
    assert "it gave as its reason 'no file yet'" in false(company.expect_sensor("patient").waiting, because="rain")[0]
    assert "it has not looked yet" in false(company.expect_sensor("broken").waiting)[0]
    assert "its last tick did not fail" in false(company.expect_sensor("patient").failed)[0]
    company.turn_on("broken")
    company.advance(minutes=1)
    company.expect_sensor("broken").failed("the folder is not mounted")
    assert "the folder is not mounted" in false(company.expect_sensor("broken").waiting)[0]
    assert "it failed with" in false(company.expect_sensor("broken").failed, "the network")[0]


def test_names_and_partitions_that_are_not_there(company: Scenario) -> None:
    with pytest.raises(ScenarioError, match=r"no asset 'order' .* Did you mean 'orders'\?"):
        company.expect("order")
    with pytest.raises(ScenarioError, match=r"no sensor 'patience' .* Did you mean 'patient'\?"):
        company.expect_sensor("patience")
    with pytest.raises(ScenarioError) as error:
        company.expect("orders").materialized("2024-01-03")
    assert str(error.value) == (
        "orders has no partition '2024-01-03' at this simulated time: it has 2, '2024-01-01' to '2024-01-02'. "
        "A day's partition is there once the day is over; move the clock, or name another"
    )
    with pytest.raises(ScenarioError, match="report is not partitioned, so it has no partition 'a'; leave"):
        company.expect("report").materialized("a")


def test_by_hand_and_by_backfill(company: Scenario) -> None:
    mark = company.mark()
    company.materialize("orders", partition="2024-01-01")
    company.run_until_quiet()
    company.expect("orders").materialized("2024-01-01", since=mark).by_hand()
    mark = company.mark()
    company.backfill("orders", partitions=["2024-01-01", "2024-01-02"])
    company.run_until_quiet()
    company.expect("orders").materialized("2024-01-01", "2024-01-02", since=mark, in_any_order=True).by_backfill()
    with pytest.raises(ScenarioError, match="orders is partitioned; say which"):
        company.materialize("orders")
    with pytest.raises(ScenarioError, match="which assets"):
        company.materialize()
    with pytest.raises(ScenarioError, match=r"no job 'nightly' .* Did you mean 'nightly_job'\?"):
        company.launch("nightly", "2024-01-01")
    with pytest.raises(ScenarioError, match="job 'nightly_job' is partitioned; say which"):
        company.launch("nightly_job")


def test_a_scenario_that_never_settles_says_what_goes_on(scenario: Scenario) -> None:
    @dg.asset
    def restless() -> None: ...

    @dg.sensor(target=restless, default_status=dg.DefaultSensorStatus.RUNNING)
    def always() -> dg.RunRequest:
        return dg.RunRequest()

    scenario.load(dg.Definitions(assets=[restless], sensors=[always]))
    with pytest.raises(ScenarioError) as error:
        scenario.run_until_quiet(within=10)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("not quiet after 10 ticks (4 min 30 s of simulated time). Either something requests")
    assert lines[1:3] == [
        "requested most often:",
        "  10 times: restless requested by sensor always",
    ]


def test_a_partition_that_was_deleted_since_is_known_from_the_timeline(scenario: Scenario) -> None:
    shops = dg.DynamicPartitionsDefinition(name="shops")

    @dg.asset(partitions_def=shops)
    def sales() -> None: ...

    scenario.load(dg.Definitions(assets=[sales]))
    scenario.instance.add_dynamic_partitions("shops", ["lyon", "paris"])
    scenario.materialize("sales", partition="lyon")
    scenario.run_until_quiet()
    scenario.instance.delete_dynamic_partition("shops", "lyon")
    scenario.expect("sales").materialized("lyon")
    with pytest.raises(ScenarioError) as error:
        scenario.expect("sales").materialized("rome")
    assert str(error.value) == (
        "sales has no partition 'rome' at this simulated time: it has 1, 'paris' to 'paris'. Its partitions are added "
        "by the code under test, or by scenario.add_partitions('shops', ...)"
    )
