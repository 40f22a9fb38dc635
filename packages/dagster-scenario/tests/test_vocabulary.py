"""Expectations of schedules, jobs, checks, observations, freshness, partitions, tags and config; faults in ticks."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import InjectedFailure, Scenario, ScenarioError

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
SHOPS = dg.DynamicPartitionsDefinition(name="shops")


@dg.asset(partitions_def=DAYS)
def orders() -> None: ...


@dg.asset(partitions_def=SHOPS)
def sales() -> None: ...


@dg.asset
def report() -> None: ...


@dg.asset_check(asset=report)
def complete() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=report_is_complete[0])


@dg.observable_source_asset
def watched() -> dg.DataVersion:
    return dg.DataVersion("1")


@dg.sensor(target=sales)
def new_shops(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Adds the shop that is named in the test, once."""
    if context.cursor or not shops:
        return dg.SkipReason("no new shop")
    return dg.SensorResult(
        run_requests=[dg.RunRequest(partition_key=shops[0], tags={"team": "sales"})],
        dynamic_partitions_requests=[SHOPS.build_add_request(shops[:1])],
        cursor="seen",
    )


@dg.schedule(cron_schedule="0 6 * * *", target=report, execution_timezone="Europe/Berlin")
def mornings(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    day = context.scheduled_execution_time
    if day.weekday() == 6:
        return dg.SkipReason("closed on Sundays")
    return dg.RunRequest(run_key=f"{day:%Y-%m-%d}", run_config={}, tags={"day": f"{day:%A}"})


NIGHTLY = dg.build_schedule_from_partitioned_job(dg.define_asset_job("nightly_job", [orders]), name="nightly")

shops: list[str] = []
report_is_complete = [True]


@pytest.fixture
def company(scenario: Scenario) -> Scenario:
    shops[:], report_is_complete[:] = [], [True]
    scenario.load(
        dg.Definitions(
            assets=[orders, sales, report, watched],
            asset_checks=[complete],
            sensors=[new_shops],
            schedules=[mornings, NIGHTLY],
        )
    )
    return scenario


def false(expectation: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    """The first line of what a false expectation says."""
    with pytest.raises(AssertionError) as error:
        expectation(*arguments, **named)
    return str(error.value).splitlines()[0]


def test_schedules(company: Scenario) -> None:
    schedule = company.expect_schedule
    assert "schedule mornings to tick, but it has not ticked" in false(schedule("mornings").ticked)
    schedule("mornings").off()
    assert "it has not ticked yet" in false(schedule("mornings").skipped)
    company.turn_on("mornings", "nightly")
    company.at("2024-01-03 12:00")
    schedule("nightly").requested("2024-01-01", "2024-01-02")
    schedule("nightly").requested(times=2)
    schedule("nightly").requested("2024-01-02", at_least=True)
    assert false(schedule("nightly").requested, "2024-01-02") == (
        "expected schedule nightly to request runs for 2024-01-02, but it has requested run 2 (orders [2024-01-01]), "
        "run 4 (orders [2024-01-02])"
    )
    assert "to request 3 runs, but" in false(schedule("nightly").requested, times=3)
    assert "to request no run, but" in false(schedule("nightly").not_requested)
    schedule("mornings").ticked("2024-01-01 05:00", "2024-01-02 05:00", "2024-01-03 05:00")
    assert "but it has ticked at 2024-01-01 05:00:00, " in false(schedule("mornings").ticked, "2024-01-01 05:00")
    assert "but it is on" in false(schedule("mornings").off)
    sunday = company.mark()
    company.at("2024-01-07 12:00")
    schedule("mornings").skipped(because="closed")
    assert "it gave as its reason 'closed on Sundays'" in false(schedule("mornings").skipped, because="rain")
    schedule("mornings").ticked(
        "2024-01-04 05:00", "2024-01-05 05:00", "2024-01-06 05:00", "2024-01-07 05:00", since=sunday
    )
    with pytest.raises(ScenarioError, match=r"no schedule 'morning' .* Did you mean 'mornings'"):
        schedule("morning")


def test_a_schedule_that_was_off_says_so(company: Scenario) -> None:
    company.at("2024-01-03 12:00")
    with pytest.raises(AssertionError) as error:
        company.expect_schedule("nightly").requested()
    assert "  it is switched off; scenario.turn_on('nightly') turns it on" in str(error.value).splitlines()


def test_jobs(company: Scenario) -> None:
    company.start("2024-01-05")
    job = company.expect_job("nightly_job")
    job.not_requested()
    for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
        company.launch("nightly_job", day)
    company.fail("orders", partition="2024-01-02", error="the disk is full")
    company.hold("orders", partition="2024-01-03")
    company.tick()
    job.succeeded("2024-01-01").by_hand()
    job.failed("2024-01-02", error="disk")
    job.running("2024-01-03")
    assert "job nightly_job to be successful for 2024-01-02, but it was for 2024-01-01" in false(
        job.succeeded, "2024-01-02"
    )
    assert "failed with 'memory'" in false(job.failed, error="memory")
    assert "but running are 2024-01-03" in false(job.running, "2024-01-01")
    assert "job nightly_job to be not requested, but it was" in false(job.not_requested)
    company.release()
    job.succeeded("2024-01-03", "2024-01-01", in_any_order=True)
    job.succeeded(times=1, at_least=True)


def test_checks(company: Scenario) -> None:
    check = company.expect_check("report", "complete")
    check.not_evaluated()
    assert "check complete of report to be passed, but it was not" in false(check.passed)
    company.materialize("report")
    company.run_until_quiet()
    check.passed()
    check.passed(times=1).by_hand()
    assert "to be failed, but 1 of 1 times it did not" in false(check.failed)
    mark = company.mark()
    report_is_complete[0] = False
    company.materialize("report")
    company.run_until_quiet()
    check.failed(since=mark)
    assert "to be passed, but 1 of 2 times it did not" in false(check.passed)
    assert "to be not evaluated" in false(check.not_evaluated)
    with pytest.raises(ScenarioError, match=r"no check 'complet' of report\. Did you mean 'complete'"):
        company.expect_check("report", "complet")


def test_observations(company: Scenario) -> None:
    company.expect("watched").not_observed()
    company.materialize("watched")
    company.run_until_quiet()
    company.expect("watched").observed(times=1).by_hand()
    company.expect("watched").not_materialized()
    assert "expected watched to be not observed, but it was once" in false(company.expect("watched").not_observed)
    assert "expected report to be observed, but it was not" in false(company.expect("report").observed)


def test_freshness(scenario: Scenario) -> None:
    @dg.asset(freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=24)))
    def bread() -> None: ...

    scenario.load(dg.Definitions(assets=[bread]))
    scenario.materialize("bread")
    scenario.advance(hours=1)
    scenario.expect("bread").fresh()
    assert false(scenario.expect("bread").stale) == (
        "expected bread to be too old (freshness fail), but its freshness is pass"
    )
    scenario.advance(hours=30)
    scenario.expect("bread").stale()
    assert false(scenario.expect("bread").fresh) == (
        "expected bread to be fresh (freshness pass), but its freshness is fail"
    )


def test_tags_config_and_nothing_else(company: Scenario) -> None:
    @dg.asset(config_schema={"limit": int, "name": str})
    def configured() -> None: ...

    company.load(more=dg.Definitions(assets=[configured], jobs=[dg.define_asset_job("job", [configured])]))
    config = {"ops": {"configured": {"config": {"limit": 3, "name": "x"}}}}
    mark = company.mark()
    company.launch("job", run_config=config, tags={"team/name": "sales"})
    company.run_until_quiet()
    done = company.expect("configured").materialized(since=mark)
    done.with_tags(**{"team/name": "sales"}).with_config({"ops": {"configured": {"config": {"limit": 3}}}})
    done.nothing_else()
    company.expect_runs(since=mark).only("configured")
    company.expect_runs(since=mark).only("job")
    assert "with the tags team/name=books since 2024-01-01 00:00:00, but 1 were not" in false(
        done.with_tags, **{"team/name": "books"}
    )
    assert "with the config {'ops': {}, 'limit': 4} since 2024-01-01 00:00:00, but 1 were not" in false(
        done.with_config, {"ops": {}, "limit": 4}
    )
    company.materialize("report")
    company.run_until_quiet()
    assert "and nothing else since" in false(done.nothing_else)
    assert "runs: none but of configured since" in false(company.expect_runs(since=mark).only, "configured")
    company.expect_runs(since=mark).count(1, at_least=True)
    assert "at least 3 to be requested" in false(company.expect_runs(since=mark).count, 3, at_least=True)


def test_at_least_and_in_any_order(company: Scenario) -> None:
    company.start("2024-01-05")
    for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
        company.materialize("orders", partition=day)
    company.run_until_quiet()
    materialized = company.expect("orders").materialized
    materialized("2024-01-01", "2024-01-03", at_least=True)
    materialized("2024-01-03", "2024-01-01", at_least=True, in_any_order=True)
    materialized(times=2, at_least=True)
    assert "for 2024-01-03, 2024-01-01 (at least, in this order), but" in false(
        materialized, "2024-01-03", "2024-01-01", at_least=True
    )
    assert "materialized at least 4 times, but" in false(materialized, times=4, at_least=True)


def test_partitions_that_are_added_and_removed(company: Scenario) -> None:
    expected = company.expect_partitions("shops")
    expected.are()
    shops[:] = ["lyon"]
    company.turn_on("new_shops")
    company.run_until_quiet()
    expected.added("lyon")
    company.expect_sensor("new_shops").requested("lyon").with_tags(team="sales")
    company.expect("sales").materialized("lyon").by_sensor("new_shops")
    mark = company.mark()
    company.add_partitions("shops", "paris", "lyon", "rome")
    company.remove_partitions("shops", "lyon")
    expected.added("paris", "rome", since=mark)
    expected.removed("lyon")
    expected.are("rome", "paris")
    assert "partitions of shops to be rome, but there are paris, rome" in false(expected.are, "rome")
    assert "to be removed for rome, but it was for lyon" in false(expected.removed, "rome")
    with pytest.raises(ScenarioError, match=r"no partition 'pariss' in shops\. Did you mean 'paris'"):
        company.remove_partitions("shops", "pariss")
    with pytest.raises(ScenarioError, match=r"no dynamic partitions definition 'shop' .* Did you mean 'shops'"):
        company.expect_partitions("shop")
    assert "partition added" in company.timeline.html()


def test_a_report_has_metadata(company: Scenario) -> None:
    company.report("report", metadata={"rows": 3})
    event = company.instance.get_latest_materialization_event(dg.AssetKey("report"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["rows"].value == 3


# Faults in ticks


def test_a_sensor_fails_as_often_as_it_was_told_and_its_cursor_stays(company: Scenario) -> None:
    shops[:] = ["lyon"]
    company.turn_on("new_shops")
    company.fail("new_shops", times=2, at="end", error="the database is away")
    company.tick()
    company.expect_sensor("new_shops").failed("the database is away")
    company.expect_sensor("new_shops").not_requested()
    company.advance(minutes=5)
    company.expect_sensor("new_shops").requested("lyon")
    assert [event.kind for event in company.timeline.events].count("requested") == 1


def test_a_schedule_fails_and_takes_its_time(company: Scenario) -> None:
    company.turn_on("mornings")
    company.fail("mornings", error=OSError(28, "No space left on device"))
    company.takes("mornings", minutes=20)
    company.at("2024-01-03 12:00")
    failed = [event for event in company.timeline.events if event.kind == "schedule" and event.problem]
    assert len(failed) == 1
    assert "No space left on device" in failed[0].text
    requested = company.expect_schedule("mornings").requested(at_least=True)
    requested.by_schedule("mornings")
    assert company.timeline.run(1).requested.minute == 20


def test_a_function_that_a_sensor_calls_fails(company: Scenario) -> None:
    shops[:] = ["lyon"]
    company.turn_on("new_shops")
    company.fail("new_shops", after="dagster.DynamicPartitionsDefinition.build_add_request")
    company.tick()
    company.expect_sensor("new_shops").failed("injected by the scenario")


def test_what_can_not_happen_to_a_tick(company: Scenario) -> None:
    for verb in (company.kill, company.hold):
        with pytest.raises(ScenarioError, match="whose tick can fail or take its time, and nothing else; tick_twice"):
            verb("mornings")
    with pytest.raises(ScenarioError, match="whose ticks have no partition"):
        company.fail("mornings", partition="2024-01-01")


def test_a_fault_in_a_tick_that_never_comes_is_an_error_at_the_end() -> None:
    def play() -> None:
        with Scenario() as scenario:
            scenario.load(dg.Definitions(assets=[sales], sensors=[new_shops]))
            scenario.fail("new_shops")
            scenario.run_until_quiet()

    with pytest.raises(ScenarioError, match="nothing came to where it was told to fail new_shops at its start"):
        play()
    assert "evaluate_tick" not in vars(new_shops)
    assert issubclass(InjectedFailure, Exception)


# A dry run


def test_a_dry_run_comes_to_no_fault(company: Scenario) -> None:
    company.turn_on("mornings")
    company.fail("mornings", error="the calendar is away")
    assert [tick.error for tick in company.dry_run("mornings", until="2024-01-04")] == ["", "", ""]
    company.at("2024-01-01 12:00")
    company.expect_schedule("mornings").failed("the calendar is away")


def test_a_schedule_is_played_over_a_year_as_a_table(company: Scenario) -> None:
    year = company.dry_run("mornings", since="2024-01-01", until="2025-01-01")
    assert len(year) == 366
    assert len(year.runs) == 366 - 52
    assert all(tick.at.hour == 6 for tick in year)
    offsets = [tick.at.utcoffset() for tick in year]
    assert set(offsets) == {timedelta(hours=1), timedelta(hours=2)}
    lines = str(year).splitlines()
    assert lines[:3] == [
        "tick                           requests                       note",
        "Mon 2024-01-01 06:00:00 +01:00 2024-01-01",
        "Tue 2024-01-02 06:00:00 +01:00 2024-01-02",
    ]
    assert (
        "Sun 2024-03-31 06:00:00 +02:00 nothing                        "
        "skips: closed on Sundays; clocks went forward since the tick before" in lines
    )
    assert sum("clocks went back" in line for line in lines) == 1
    assert year[0].runs[0].tags["day"] == "Monday"
    # Nothing has happened.
    company.expect_runs().count(0)
    assert company.now.replace(tzinfo=None) == datetime(2024, 1, 1)  # noqa: DTZ001


def test_a_dry_run_of_partitions_and_of_an_error(company: Scenario) -> None:
    @dg.schedule(cron_schedule=["0 1 * * *", "0 13 * * *"], target=report)
    def broken(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        raise ValueError("no calendar")

    company.load(more=dg.Definitions(assets=[report], schedules=[broken]))
    days = company.dry_run("nightly", since="2024-01-30", until="2024-02-02 12:00")
    assert [run.partition for run in days.runs] == ["2024-01-29", "2024-01-30", "2024-01-31", "2024-02-01"]
    twice_a_day = company.dry_run("broken", until="2024-01-02")
    assert [tick.at.hour for tick in twice_a_day] == [1, 13]
    assert all(tick.error == "ValueError: no calendar" for tick in twice_a_day)
    assert len(company.dry_run("nightly")) == 366
    with pytest.raises(ScenarioError, match=r"no schedule 'nighly' .* Did you mean 'nightly'"):
        company.dry_run("nighly")
