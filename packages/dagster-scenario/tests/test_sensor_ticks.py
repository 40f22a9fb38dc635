"""When sensors look: what keeps them looking, what is skipped, and the mode in which nothing is."""

import os
import time
import warnings
from datetime import datetime, timezone

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioWarning
from dagster_scenario._dagster import TickStatus

ON = dg.DefaultSensorStatus.RUNNING


@dg.asset
def target() -> None: ...


def requested(scenario: Scenario) -> list[str]:
    return [f"{run.requested:%d %H:%M:%S}" for run in scenario.timeline.runs.values()]


@dg.sensor(target=target, default_status=ON)
def at_six(context: dg.SensorEvaluationContext) -> dg.RunRequest | None:
    now = datetime.now(timezone.utc)
    return dg.RunRequest(run_key=f"{now:%Y-%m-%d}") if now.hour == 6 else None


def test_in_the_exact_mode_every_tick_happens(scenario: Scenario) -> None:
    scenario.load(dg.Definitions(assets=[target], sensors=[at_six]))
    scenario.start("2024-01-01 05:55")
    scenario.advance(minutes=10, every_tick=True)
    assert requested(scenario) == ["01 06:00:00"]
    scenario.every_tick = True
    scenario.at("08:00")
    assert requested(scenario) == ["01 06:00:00"]
    looks = scenario.instance.get_ticks(*_ids(scenario, "at_six"), limit=1000)
    assert (
        len([tick for tick in looks if tick.timestamp >= datetime(2024, 1, 1, 6, 5, tzinfo=timezone.utc).timestamp()])
        >= 230
    )


def _ids(scenario: Scenario, name: str) -> tuple[str, str]:
    state = next(state for state in scenario.instance.all_instigator_state() if state.instigator_name == name)
    return state.instigator_origin_id, state.selector_id


def test_ticks_can_be_asked_for_as_in_any_instance(scenario: Scenario) -> None:
    looks = []

    @dg.sensor(target=target, default_status=ON)
    def once() -> dg.RunRequest | dg.SkipReason:
        looks.append(datetime.now(timezone.utc).timestamp())
        return dg.RunRequest(run_key="it") if len(looks) == 2 else dg.SkipReason("nothing")

    scenario.load(dg.Definitions(assets=[target], sensors=[once]))
    scenario.advance(minutes=2, every_tick=True)
    ids, instance = _ids(scenario, "once"), scenario.instance
    times = [tick.timestamp for tick in instance.get_ticks(*ids)]
    assert times == looks[::-1], "the newest one first"
    assert [tick.timestamp for tick in instance.get_ticks(*ids, limit=1)] == looks[-1:]
    assert [tick.timestamp for tick in instance.get_ticks(*ids, before=looks[2], after=looks[0])] == [looks[1]]
    (requested,) = instance.get_ticks(*ids, statuses=[TickStatus.SUCCESS])
    assert requested.timestamp == looks[1]
    assert requested.run_ids == [scenario.timeline.run(1).id]
    if hasattr(instance, "get_tick_summaries"):  # since Dagster 1.13
        assert [tick.timestamp for tick in instance.get_tick_summaries(*ids, limit=2)] == looks[:-3:-1]


def test_the_exact_mode_can_be_asked_for_from_the_beginning() -> None:
    with Scenario(start="2024-01-01 05:50", every_tick=True) as scenario:
        scenario.load(dg.Definitions(assets=[target], sensors=[at_six]))
        scenario.advance(minutes=20)
        assert requested(scenario) == ["01 06:00:00"]


def test_time_that_is_skipped_over_a_sensor_that_reads_the_clock_is_warned_of_once(scenario: Scenario) -> None:
    scenario.load(dg.Definitions(assets=[target], sensors=[at_six]))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        scenario.advance(days=1)
        scenario.advance(days=1)
    ours = [str(warning.message) for warning in found if warning.category is ScenarioWarning]
    assert len(ours) == 1
    assert "'at_six'" in ours[0]
    assert "datetime.now" in ours[0]
    assert "every_tick=True" in ours[0]
    assert "test_sensor_ticks.py" in ours[0]


def _is_old(file: os.PathLike[str]) -> bool:
    return time.time() - os.stat(file).st_mtime > 300


@pytest.mark.parametrize("kind", ["indirect", "off", "without a clock", "exact"])
def test_only_sensors_that_are_on_and_read_the_clock_are_warned_of(scenario: Scenario, kind: str) -> None:
    folder = scenario.folder()

    @dg.sensor(target=target, default_status=dg.DefaultSensorStatus.STOPPED if kind == "off" else ON)
    def settled() -> None:
        for file in folder.path.iterdir():
            _is_old(file)

    @dg.sensor(target=target, default_status=ON)
    def plain() -> None:
        time.sleep(0)
        list(folder.path.iterdir())

    scenario.load(dg.Definitions(assets=[target], sensors=[plain if kind == "without a clock" else settled]))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        scenario.advance(hours=1, every_tick=kind == "exact")
    ours = [warning for warning in found if warning.category is ScenarioWarning]
    assert len(ours) == (1 if kind == "indirect" else 0)


def test_a_sensor_whose_reason_changes_keeps_looking(scenario: Scenario) -> None:
    folder = scenario.folder()

    @dg.sensor(target=target, default_status=ON)
    def settled() -> dg.RunRequest | dg.SkipReason:
        for file in folder.path.iterdir():
            age = time.time() - file.stat().st_mtime
            return dg.RunRequest(run_key="it") if age >= 300 else dg.SkipReason(f"{file.name} is {age:.0f} s old")
        return dg.SkipReason("no file")

    scenario.load(dg.Definitions(assets=[target], sensors=[settled]))
    scenario.run_until_quiet()
    folder.drop("file")
    with pytest.warns(ScenarioWarning, match="settled"):
        scenario.advance(hours=6)
    assert requested(scenario) == ["01 00:05:00"]


def test_a_reason_that_always_changes_does_not_keep_a_scenario_from_being_quiet(scenario: Scenario) -> None:
    @dg.sensor(target=target, default_status=ON)
    def chatty() -> dg.SkipReason:
        return dg.SkipReason(f"nothing new at {datetime.now(timezone.utc)}")

    scenario.load(dg.Definitions(assets=[target], sensors=[chatty]))
    scenario.run_until_quiet()
    before = scenario.now
    with pytest.warns(ScenarioWarning, match="chatty"):
        scenario.advance(days=1)
    assert (scenario.now - before).days == 1


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_a_sensor_that_failed_looks_again_at_its_next_tick(scenario: Scenario, failures: int) -> None:
    looks: list[None] = []

    @dg.sensor(target=target, default_status=ON)
    def flaky() -> dg.RunRequest:
        looks.append(None)
        if len(looks) <= failures:
            raise ConnectionError("not there")
        return dg.RunRequest(run_key="it")

    scenario.load(dg.Definitions(assets=[target], sensors=[flaky]))
    scenario.advance(hours=6)
    assert len(scenario.timeline.runs) == 1
    assert (scenario.timeline.run(1).requested - datetime(2024, 1, 1, tzinfo=timezone.utc)).seconds == 30 * failures


def test_a_sensor_that_always_fails_does_not_keep_a_scenario_from_being_quiet(scenario: Scenario) -> None:
    looks: list[None] = []

    @dg.sensor(target=target, default_status=ON)
    def broken() -> None:
        looks.append(None)
        raise ConnectionError("not there")

    scenario.load(dg.Definitions(assets=[target], sensors=[broken]))
    scenario.run_until_quiet()
    scenario.advance(days=7)
    assert len(looks) < 100


def test_a_sensor_that_looks_seldom_and_failed_looks_again_in_time(scenario: Scenario) -> None:
    looks: list[None] = []

    @dg.sensor(target=target, default_status=ON, minimum_interval_seconds=600)
    def flaky() -> dg.RunRequest:
        looks.append(None)
        if len(looks) <= 2:
            raise ConnectionError("not there")
        return dg.RunRequest(run_key="it")

    scenario.load(dg.Definitions(assets=[target], sensors=[flaky]))
    scenario.advance(hours=6)
    assert requested(scenario) == ["01 00:20:00"]


def test_a_schedule_that_failed_is_noted_and_not_repeated(scenario: Scenario) -> None:
    @dg.schedule(target=target, cron_schedule="0 6 * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
    def broken() -> None:
        raise ConnectionError("not there")

    scenario.load(dg.Definitions(assets=[target], schedules=[broken]))
    scenario.advance(days=1)
    assert str(scenario.timeline).count("broken failed") == 1


def test_a_condition_that_falls_due_right_after_another_tick_is_not_stepped_over(scenario: Scenario) -> None:
    @dg.asset(automation_condition=dg.AutomationCondition.cron_tick_passed("0 6 * * *"))
    def morning() -> None: ...

    automation = dg.AutomationConditionSensorDefinition("automation", target="*", default_status=ON)
    scenario.load(dg.Definitions(assets=[morning], sensors=[automation]))
    scenario.at("05:59:50")
    scenario.advance(hours=10)
    assert requested(scenario) == ["01 06:00:30"]


# What is off


def test_time_does_not_stop_for_a_schedule_that_is_off(scenario: Scenario) -> None:
    minutely = dg.ScheduleDefinition(name="minutely", target=target, cron_schedule="* * * * *")
    scenario.load(dg.Definitions(assets=[target], schedules=[minutely]))
    ticks = _counting(scenario)
    scenario.advance(days=7)
    assert len(ticks) < 5
    scenario.turn_on("minutely")
    scenario.advance(minutes=10)
    assert len(scenario.timeline.runs) == 10
    scenario.turn_off("minutely")
    ticks.clear()
    scenario.advance(days=1)
    assert len(ticks) < 5


@pytest.mark.parametrize("on", [True, False])
def test_time_stops_for_conditions_and_partitions_only_when_something_looks_at_them(
    scenario: Scenario, on: bool
) -> None:
    @dg.asset(automation_condition=dg.AutomationCondition.on_cron("*/10 * * * *"))
    def often() -> None: ...

    @dg.asset(partitions_def=dg.HourlyPartitionsDefinition("2023-12-31-00:00"))
    def hourly() -> None: ...

    scenario.load(dg.Definitions(assets=[often, hourly]))
    if on:
        scenario.turn_on("default_automation_condition_sensor")
    scenario.run_until_quiet()
    ticks = _counting(scenario)
    scenario.advance(days=1)
    assert (len(ticks) > 144) if on else (len(ticks) < 5)


def _counting(scenario: Scenario) -> list[datetime]:
    """The moments of the ticks from now on."""
    ticks: list[datetime] = []
    original = scenario._one_tick

    def one_tick() -> bool:
        ticks.append(scenario.now)
        return original()

    scenario._one_tick = one_tick  # type: ignore[method-assign]
    return ticks
