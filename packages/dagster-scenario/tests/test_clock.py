"""The simulated clock: what sees it, how it moves, what falls due on the way."""

import time
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioError

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


def at(hour: int, minute: int = 0, *, day: int = 1) -> datetime:
    return datetime(2024, 1, day, hour, minute, tzinfo=timezone.utc)


@pytest.fixture
def seen(scenario: Scenario) -> list[datetime]:
    """When the asset `look` ran, by its own clock; its schedule is at six every morning."""
    times: list[datetime] = []

    @dg.asset
    def look() -> None:
        times.append(datetime.now(timezone.utc))

    morning = dg.ScheduleDefinition(
        job=dg.define_asset_job("morning", [look]), cron_schedule="0 6 * * *", default_status=RUNNING
    )
    scenario.load(dg.Definitions(assets=[look], schedules=[morning]))
    return times


RUNNING = dg.DefaultScheduleStatus.RUNNING


def test_assets_sensors_and_the_test_see_the_simulated_time(scenario: Scenario) -> None:
    seen = {}

    @dg.asset
    def look() -> None:
        seen["asset"] = datetime.now(timezone.utc), time.time()

    @dg.sensor(target=[look], default_status=dg.DefaultSensorStatus.RUNNING)
    def looking(context: dg.SensorEvaluationContext) -> dg.RunRequest:
        seen["sensor"] = datetime.now(timezone.utc), time.time()
        return dg.RunRequest(run_key="once")

    scenario.load(dg.Definitions(assets=[look], sensors=[looking]))
    scenario.start("2031-05-04 10:00")
    scenario.tick()
    expected = datetime(2031, 5, 4, 10, tzinfo=timezone.utc)
    for now, timestamp in [*seen.values(), (datetime.now(timezone.utc), time.time())]:
        assert abs(now - expected) < timedelta(seconds=1)
        assert abs(timestamp - expected.timestamp()) < 1
    run = scenario.instance.get_run_records()[0]
    assert abs(run.create_timestamp - expected) < timedelta(seconds=1)
    assert run.end_time is not None
    assert abs(run.end_time - expected.timestamp()) < 1


def test_what_measures_durations_stays_real(scenario: Scenario) -> None:
    before = time.monotonic(), time.perf_counter()
    scenario.start("2031-05-04 10:00")
    assert time.monotonic() - before[0] < 60
    assert time.perf_counter() - before[1] < 60


def test_real_time_comes_back_when_the_scenario_ends() -> None:
    before = datetime.now(timezone.utc)
    sleep = time.sleep
    with Scenario(start="2031-05-04 10:00"):
        assert datetime.now(timezone.utc).year == 2031
        assert time.sleep is not sleep
    assert timedelta(0) <= datetime.now(timezone.utc) - before < timedelta(minutes=1)
    assert time.sleep is sleep


def test_real_time_comes_back_when_the_scenario_fails_to_open() -> None:
    with pytest.raises(ScenarioError, match=r"not a dagster\.yaml"):
        Scenario(settings={"run_queue": {"max_concurrent_runs": "many"}}, start="2031-05-04 10:00")
    assert datetime.now(timezone.utc).year != 2031
    with Scenario():
        pass


def test_a_schedule_runs_when_it_is_due_while_time_passes(scenario: Scenario, seen: list[datetime]) -> None:
    scenario.advance(days=3, hours=12)
    assert [(time.day, time.hour, time.minute) for time in seen] == [(1, 6, 0), (2, 6, 0), (3, 6, 0), (4, 6, 0)]
    assert scenario.now == at(12, day=4)


def test_a_time_of_day_is_its_next_occurrence(scenario: Scenario, seen: list[datetime]) -> None:
    scenario.at("16:00")
    assert scenario.now == at(16)
    scenario.at("16:00")
    assert scenario.now == at(16), "it is 16:00 already"
    scenario.at("07:30")
    assert scenario.now == at(7, 30, day=2)
    scenario.at("2024-01-05 08:15")
    assert scenario.now == at(8, 15, day=5)
    assert len(seen) == 5


def test_times_are_in_the_scenarios_time_zone_across_daylight_saving() -> None:
    times: list[datetime] = []

    @dg.asset
    def look() -> None:
        times.append(datetime.now(timezone.utc))

    early = dg.ScheduleDefinition(
        job=dg.define_asset_job("early", [look]),
        cron_schedule="0 6 * * *",
        execution_timezone="Europe/Berlin",
        default_status=RUNNING,
    )
    with Scenario(start="2024-03-30 00:00", timezone="Europe/Berlin") as scenario:
        scenario.load(dg.Definitions(assets=[look], schedules=[early]))
        scenario.at("2024-03-31 12:00")
        assert scenario.now == datetime(2024, 3, 31, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert [(time.day, time.hour) for time in times] == [(30, 5), (31, 4)]


def test_time_stops_where_a_partition_ends(scenario: Scenario) -> None:
    times: list[datetime] = []

    @dg.asset(
        partitions_def=DAYS,
        automation_condition=dg.AutomationCondition.in_latest_time_window()
        & dg.AutomationCondition.newly_missing().since_last_handled(),
    )
    def daily() -> None:
        times.append(datetime.now(timezone.utc))

    scenario.load(
        dg.Definitions(
            assets=[daily],
            sensors=[
                dg.AutomationConditionSensorDefinition(
                    "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING
                )
            ],
        )
    )
    scenario.at("2024-01-01 20:00")
    scenario.at("2024-01-04 20:00")
    assert [(time.day, time.hour, time.minute) for time in times] == [(2, 0, 0), (3, 0, 0), (4, 0, 0)]


def test_time_stops_where_a_cron_condition_falls_due_and_it_holds_once(scenario: Scenario) -> None:
    times: list[datetime] = []

    @dg.asset(automation_condition=dg.AutomationCondition.cron_tick_passed("15 * * * *"))
    def hourly() -> None:
        times.append(datetime.now(timezone.utc))

    automation = dg.AutomationConditionSensorDefinition(
        "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING
    )
    scenario.load(dg.Definitions(assets=[hourly], sensors=[automation]))
    scenario.advance(hours=3)
    assert [(time.hour, time.minute) for time in times] == [(0, 15), (1, 15), (2, 15)]


def test_a_sleeping_run_takes_simulated_time_and_none_of_the_tests(scenario: Scenario) -> None:
    @dg.asset
    def slow() -> None:
        time.sleep(3600)

    scenario.load(dg.Definitions(assets=[slow]))
    scenario.materialize("slow")
    began = time.monotonic()
    scenario.advance(minutes=59)
    scenario.expect("slow").running()
    scenario.advance(minutes=1)
    scenario.expect("slow").materialized(times=1)
    assert time.monotonic() - began < 60
    assert scenario.timeline.run(1).ended == at(1)


def test_time_can_not_go_back(scenario: Scenario, seen: list[datetime]) -> None:
    scenario.at("12:00")
    with pytest.raises(ScenarioError, match="2024-01-01 11:00:00 has passed: it is 2024-01-01 12:00:00"):
        scenario.at("2024-01-01 11:00")
    with pytest.raises(ScenarioError, match="the scenario has begun; move the clock with at"):
        scenario.start("2024-01-01")


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        ("noon", "'noon' is not a time; expected one such as '2024-01-31 16:00'"),
        ("25:00", "'25:00' is not a time of day; expected one such as '16:00'"),
    ],
)
def test_what_is_not_a_time_is_refused(scenario: Scenario, seen: list[datetime], moment: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        scenario.at(moment)
    assert str(error.value).startswith(message)


def test_an_unknown_time_zone_and_an_empty_duration_are_refused(scenario: Scenario, seen: list[datetime]) -> None:
    with pytest.raises(ScenarioError, match=r"how long\? Give a duration such as hours=1"):
        scenario.advance()
    scenario.close()
    with pytest.raises(ScenarioError, match="'Mars/Olympus' is not a time zone"):
        Scenario(timezone="Mars/Olympus")


def test_there_is_one_clock(scenario: Scenario) -> None:
    with pytest.raises(ScenarioError, match="another scenario is open in this process; close it first"):
        Scenario()


@pytest.mark.parametrize(("day", "hours"), [("2024-03-31", 23), ("2024-10-27", 25), ("2024-06-01", 24)])
def test_a_day_on_which_the_clocks_are_changed_has_its_hours(day: str, hours: int) -> None:
    times: list[datetime] = []

    @dg.asset
    def look() -> None:
        times.append(datetime.now(timezone.utc))

    hourly = dg.ScheduleDefinition(
        name="hourly",
        target=[look],
        cron_schedule="15 * * * *",
        execution_timezone="Europe/Berlin",
        default_status=RUNNING,
    )
    with Scenario(start=day, timezone="Europe/Berlin") as scenario:
        scenario.load(dg.Definitions(assets=[look], schedules=[hourly]))
        begin = scenario.now
        for _ in range(hours):
            scenario.advance(hours=1)
        assert (scenario.now.hour, scenario.now.minute) == (0, 0)
        assert scenario.now.timestamp() - begin.timestamp() == hours * 3600
    assert len(times) == hours
    assert len(set(times)) == hours


@pytest.mark.parametrize(
    ("start", "at", "expected"),
    [
        ("2024-10-27T02:30+02:00", "02:45", "2024-10-27T00:45"),  # the first of the two
        ("2024-10-27T02:45+02:00", "02:45", "2024-10-27T00:45"),  # now
        ("2024-10-27T02:50+02:00", "02:45", "2024-10-27T01:45"),  # the second
        ("2024-10-27T02:30+01:00", "02:45", "2024-10-27T01:45"),
        ("2024-10-27T02:50+01:00", "02:45", "2024-10-28T01:45"),
        ("2024-10-27T01:00+02:00", "02:45", "2024-10-27T00:45"),
        ("2024-10-26T23:00+02:00", "02:45", "2024-10-27T00:45"),
        ("2024-03-31T01:30+01:00", "02:30", "2024-03-31T01:30"),  # there is no 02:30: an hour after 01:30
        ("2024-03-31T03:10+02:00", "02:45", "2024-04-01T00:45"),
        ("2024-03-31T01:30+01:00", "03:30", "2024-03-31T01:30"),
    ],
)
def test_a_time_of_day_that_a_clock_change_repeats_or_leaves_out(start: str, at: str, expected: str) -> None:
    with Scenario(start=start, timezone="Europe/Berlin") as scenario:
        scenario.load(dg.Definitions())
        scenario.at(at)
        assert f"{scenario.now.astimezone(timezone.utc):%Y-%m-%dT%H:%M}" == expected


def test_the_timeline_tells_the_two_hours_of_a_clock_change_apart() -> None:
    with Scenario(start="2024-10-27 02:30", timezone="Europe/Berlin") as scenario:
        scenario.load(dg.Definitions())
        for text in ("first", "second", "third"):
            scenario.happened(text)
            scenario.advance(hours=1)
        times = [line[:30].split("  ")[0].strip() for line in scenario.timeline.lines()]
        assert times == ["2024-10-27 02:30:00 CEST", "", "2024-10-27 02:30:00 CET", "2024-10-27 03:30:00"]
        assert str(scenario.mark()) == "2024-10-27 04:30:00"


def test_a_tick_does_not_step_over_what_falls_due(scenario: Scenario, seen: list[datetime]) -> None:
    scenario.at("05:59:50")
    scenario.happened("something, so that it is not quiet")
    scenario.advance(minutes=1)
    assert [(time.hour, time.minute, time.second) for time in seen] == [(6, 0, 0)]


def test_a_sensor_that_looks_seldom_looks_in_time(scenario: Scenario) -> None:
    times: list[datetime] = []
    looks: list[datetime] = []

    @dg.asset
    def look() -> None:
        times.append(datetime.now(timezone.utc))

    @dg.sensor(target=look, minimum_interval_seconds=600, default_status=dg.DefaultSensorStatus.RUNNING)
    def seldom(context: dg.SensorEvaluationContext) -> dg.RunRequest | None:
        looks.append(datetime.now(timezone.utc))
        return dg.RunRequest(run_key="once") if (folder.path / "file").exists() else None

    folder = scenario.folder()
    scenario.load(dg.Definitions(assets=[look], sensors=[seldom]))
    scenario.run_until_quiet()
    folder.drop("file")
    scenario.advance(hours=24)
    assert [(time.hour, time.minute) for time in times] == [(0, 10)]
    assert len(looks) <= 4, "and not every ten minutes of the day, when nothing has changed"
