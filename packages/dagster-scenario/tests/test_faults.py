"""Faults: assets that fail, runs that are killed, held, slow or asleep, daemons that are late or look twice."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
from dagster_scenario import InjectedFailure, Scenario, ScenarioError

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
MONITORED = {
    "run_monitoring": {"enabled": True},  # which looks every two minutes
    "run_retries": {"enabled": True, "max_retries": 2},
}


def write_line(file: Path, line: str) -> None:
    """What an asset under test calls, and a scenario can name."""
    with file.open("a") as lines:
        lines.write(f"{line}\n")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """What assets have done, in whichever process: a line for each."""
    file = tmp_path / "journal"
    file.touch()
    return file


@pytest.fixture
def pipeline(journal: Path) -> dg.Definitions:
    """`early` and then `late`, which cleans up; `many` has partitions."""

    @dg.asset
    def early() -> None:
        write_line(journal, "early")

    @dg.asset(deps=[early])
    def late() -> None:
        try:
            write_line(journal, "late begins")
            write_line(journal, "late ends")
        finally:
            write_line(journal, "late cleans up")

    @dg.asset(partitions_def=DAYS)
    def many(context: dg.AssetExecutionContext) -> None:
        write_line(journal, context.partition_key)

    return dg.Definitions(assets=[early, late, many])


def done(journal: Path) -> list[str]:
    return journal.read_text().splitlines()


# Failures


def test_an_asset_fails_as_often_as_it_was_told(scenario: Scenario, pipeline: dg.Definitions, journal: Path) -> None:
    scenario.load(pipeline)
    scenario.fail("early", times=2, error="the disk is full")
    for _ in range(3):
        scenario.materialize("early")
        scenario.tick()
        scenario.advance(minutes=1)
    assert [run.status for run in scenario.timeline.runs.values()] == ["failed", "failed", "succeeded"]
    scenario.expect("early").failed(error="the disk is full")
    assert done(journal) == ["early"]


def test_a_failure_at_the_end_comes_after_the_work_and_before_the_record(
    scenario: Scenario, pipeline: dg.Definitions, journal: Path
) -> None:
    scenario.load(pipeline)
    scenario.fail("early", at="end")
    scenario.materialize("early")
    scenario.run_until_quiet()
    scenario.expect("early").not_materialized()
    assert done(journal) == ["early"]


def test_a_failure_in_a_named_function(scenario: Scenario, pipeline: dg.Definitions, journal: Path) -> None:
    scenario.load(pipeline)
    scenario.fail("late", after=f"{__name__}.write_line", error=OSError(28, "No space left on device"))
    scenario.materialize("late")
    scenario.run_until_quiet()
    scenario.expect("late").failed(error="No space left on device")
    assert done(journal) == ["late begins", "late cleans up"]


def test_only_the_named_partition_fails(scenario: Scenario, pipeline: dg.Definitions, journal: Path) -> None:
    scenario.start("2024-01-05")
    scenario.load(pipeline)
    scenario.fail("many", times=None, partition="2024-01-02")
    scenario.backfill("many", partitions=["2024-01-01", "2024-01-02", "2024-01-03"])
    scenario.run_until_quiet()
    scenario.expect("many").failed("2024-01-02")
    scenario.expect("many").materialized("2024-01-01", "2024-01-03").by_backfill()


def test_a_step_retries_after_its_delay_of_simulated_time(scenario: Scenario) -> None:
    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2, delay=600))
    def stubborn() -> None:
        pass

    scenario.load(dg.Definitions(assets=[stubborn]))
    scenario.fail("stubborn", times=2)
    scenario.materialize("stubborn")
    began = time.monotonic()
    scenario.advance(minutes=19)
    scenario.expect("stubborn").running()
    scenario.advance(minutes=1)
    scenario.expect("stubborn").materialized(times=1)
    assert time.monotonic() - began < 60
    scenario.expect_runs().no_slot_held_while_waiting()


def test_ops_and_every_kind_of_compute_function_can_fail(scenario: Scenario) -> None:
    @dg.op
    def plain() -> None: ...

    @dg.op
    def generating() -> Iterator[dg.Output[int]]:
        yield dg.Output(1)

    @dg.op
    async def awaiting() -> None: ...

    @dg.multi_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec("right")])
    def both() -> Iterator[dg.MaterializeResult[Any]]:
        yield dg.MaterializeResult("left")
        yield dg.MaterializeResult("right")

    @dg.job(executor_def=dg.in_process_executor)
    def work() -> None:
        plain()
        generating()
        awaiting()

    scenario.load(dg.Definitions(assets=[both], jobs=[work]))
    for target in ("plain", "generating", "awaiting"):
        scenario.fail(target, at="end", error=f"{target} failed")
    scenario.fail("right", at="end", error="both failed")
    scenario.launch("work")
    scenario.materialize("left", "right")
    scenario.run_until_quiet()
    failed = " ".join(event.text for event in scenario.timeline.events if event.kind == "step failed")
    for message in ("plain failed", "generating failed", "awaiting failed", "both failed"):
        assert message in failed
    # All but the last output was recorded when the computation failed.
    scenario.expect("left").materialized(times=1)
    scenario.expect("right").not_materialized()


@pytest.fixture
def basket(journal: Path) -> dg.Definitions:
    """A graph asset of three steps, of which the second is a graph of its own."""

    @dg.op
    def pick() -> int:
        write_line(journal, "pick")
        return 1

    @dg.op
    def wash(fruit: int) -> int:
        write_line(journal, "wash")
        return fruit

    @dg.graph
    def clean(fruit: int) -> int:
        return wash.alias("rinse")(fruit)  # type: ignore[no-any-return]

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
    def pack(fruit: int) -> int:
        write_line(journal, "pack")
        return fruit

    @dg.graph_asset
    def basket() -> int:
        return pack(clean(pick()))  # type: ignore[no-any-return]

    return dg.Definitions(assets=[basket])


@pytest.mark.parametrize(
    ("point", "left_behind"),
    [
        ({"at": "start"}, []),
        ({"after": f"{__name__}.write_line"}, ["pick"]),
        ({"at": "end"}, ["pick", "wash", "pack"]),
    ],
    ids=["start", "after", "end"],
)
@pytest.mark.parametrize("verb", ["fail", "kill", "hold"])
def test_a_fault_in_a_graph_asset_lies_in_its_steps(
    scenario: Scenario, basket: dg.Definitions, journal: Path, verb: str, point: dict[str, Any], left_behind: list[str]
) -> None:
    scenario.load(basket)
    if point == {"at": "end"} and verb == "fail":
        left_behind = [*left_behind, "pack"]  # which is retried
    getattr(scenario, verb)("basket", **point)
    scenario.materialize("basket")
    scenario.tick()
    assert done(journal) == left_behind or verb == "hold"
    if verb == "hold":
        assert done(journal) == left_behind
        scenario.expect("basket").running()
        scenario.release("basket")
        scenario.expect("basket").materialized(times=1)


def test_a_graph_asset_takes_its_time_once(scenario: Scenario, basket: dg.Definitions) -> None:
    scenario.load(basket)
    scenario.takes("basket", hours=1)
    scenario.materialize("basket")
    scenario.advance(hours=2)
    run = scenario.timeline.run(1)
    assert run.started is not None
    assert run.ended is not None
    assert (run.ended - run.started).total_seconds() == 3600


def test_one_step_of_a_graph_can_fail_by_the_name_that_it_has_there(
    scenario: Scenario, basket: dg.Definitions, journal: Path
) -> None:
    scenario.load(basket)
    scenario.fail("rinse")
    scenario.materialize("basket")
    scenario.run_until_quiet()
    assert done(journal) == ["pick"]


# Kills


@pytest.mark.parametrize(
    ("point", "left_behind"),
    [
        ({"at": "start"}, ["early"]),
        ({"before": f"{__name__}.write_line"}, ["early"]),
        ({"after": f"{__name__}.write_line"}, ["early", "late begins"]),
        ({"at": "end"}, ["early", "late begins", "late ends", "late cleans up"]),
    ],
    ids=["start", "before", "after", "end"],
)
def test_a_killed_run_stops_there_and_no_cleanup_runs(
    scenario: Scenario, pipeline: dg.Definitions, journal: Path, point: dict[str, Any], left_behind: list[str]
) -> None:
    scenario.load(pipeline)
    scenario.kill("late", **point)
    scenario.materialize("early", "late")
    scenario.run_until_quiet()
    assert done(journal) == left_behind
    scenario.expect("early").materialized(times=1)
    scenario.expect("late").not_materialized()
    assert scenario.timeline.run(1).status == "killed"
    assert scenario.instance.get_runs()[0].status == dg.DagsterRunStatus.STARTED, "nobody has told Dagster"


def test_a_killed_run_loses_its_memory_and_its_connections(scenario: Scenario) -> None:
    remembered = []
    database = scenario.postgres()

    @dg.asset
    def insert() -> None:
        connection = psycopg2.connect(database.dsn)
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE half (line text)")
        remembered.append(os.getpid())

    scenario.load(dg.Definitions(assets=[insert]))
    scenario.kill("insert", at="end")
    scenario.materialize("insert")
    scenario.run_until_quiet()
    assert remembered == []
    # The table was never committed, and its lock went with the process.
    assert database.query("SELECT to_regclass('half')") == [(None,)]


def test_a_run_that_sleeps_before_it_is_killed_takes_no_real_time(scenario: Scenario) -> None:
    @dg.asset
    def tired() -> None:
        time.sleep(7200)

    scenario.load(dg.Definitions(assets=[tired]))
    scenario.kill("tired", at="end")
    scenario.materialize("tired")
    began = time.monotonic()
    scenario.tick()
    assert time.monotonic() - began < 60
    assert scenario.timeline.run(1).status == "killed"


def test_a_run_that_waits_for_the_world_can_not_be_killed_at_its_end(tmp_path: Path) -> None:
    @dg.asset
    def poll() -> None:
        while not (tmp_path / "never").exists():
            time.sleep(60)

    def play() -> None:
        with Scenario() as scenario:
            scenario.load(dg.Definitions(assets=[poll]))
            scenario.kill("poll", at="end")
            scenario.materialize("poll")
            scenario.tick()

    with pytest.raises(ScenarioError, match=r"run 1 \(poll\) did not come to where .* slept for more than a day"):
        play()


class TestWithRunMonitoring:
    @pytest.fixture
    def scenario_settings(self) -> dict[str, object]:
        return MONITORED

    def test_a_killed_run_is_noticed_and_retried(
        self, scenario: Scenario, pipeline: dg.Definitions, journal: Path
    ) -> None:
        scenario.load(pipeline)
        scenario.tick()  # the retry daemon looks at failures from its first look on
        scenario.advance(minutes=3)
        scenario.kill("late", after=f"{__name__}.write_line")
        scenario.materialize("early", "late")
        scenario.advance(hours=5)
        assert [run.status for run in scenario.timeline.runs.values()] == ["failed", "succeeded"]
        scenario.expect("late").materialized(times=1).by_retry()
        assert done(journal) == ["early", "late begins", "late begins", "late ends", "late cleans up"]
        noticed = scenario.timeline.run(1).ended
        assert noticed is not None
        assert (noticed - scenario.timeline.run(1).requested).total_seconds() <= 120


def test_a_fault_that_nothing_comes_to_is_an_error_at_the_end(pipeline: dg.Definitions) -> None:
    def play() -> None:
        with Scenario() as scenario:
            scenario.load(pipeline)
            scenario.kill("early", before=f"{__name__}.done")
            scenario.materialize("early")
            scenario.run_until_quiet()
            scenario.expect("early").materialized(times=1)

    with pytest.raises(ScenarioError, match="nothing came to where it was told to kill early before"):
        play()


class Store(dg.IOManager):
    """An IO manager, whose functions are called before and after the op's."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        write_line(Path(str(obj)), "stored")

    def load_input(self, context: dg.InputContext) -> None: ...


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_run_can_be_killed_in_an_io_manager(scenario: Scenario, journal: Path, point: str) -> None:
    @dg.asset
    def stored() -> str:
        return str(journal)

    scenario.load(dg.Definitions(assets=[stored], resources={"io_manager": Store()}))
    at: dict[str, Any] = {point: f"{__name__}.Store.handle_output"}
    scenario.kill("stored", **at)
    scenario.materialize("stored")
    scenario.run_until_quiet()
    scenario.expect("stored").not_materialized()
    assert done(journal) == {"before": [], "after": ["stored"]}[point]


def test_a_run_can_not_be_killed_and_held(pipeline: dg.Definitions) -> None:
    with Scenario() as scenario:
        scenario.load(pipeline)
        scenario.takes("early", minutes=10)
        scenario.kill("early", at="end")
        scenario.materialize("early")
        with pytest.raises(
            ScenarioError, match=r"run 1 \(early\) is to be killed, and to take early at its end as well"
        ):
            scenario.tick()
        scenario._execution.faults.clear()


# Holding


def test_events_land_while_a_run_is_held(scenario: Scenario, pipeline: dg.Definitions, journal: Path) -> None:
    scenario.load(pipeline)
    scenario.hold("early", at="end")
    scenario.materialize("early")
    scenario.advance(minutes=10)
    scenario.expect("early").running()
    scenario.expect("early").not_materialized()
    scenario.materialize("late")
    scenario.run_until_quiet()
    scenario.expect("late").materialized(times=1)
    scenario.release("early")
    scenario.expect("early").materialized(times=1)
    assert done(journal)[0] == "early"
    run = scenario.timeline.run(1)
    assert run.started is not None
    assert run.ended is not None
    assert (run.ended - run.started).total_seconds() >= 600
    scenario.expect_runs().no_slot_held_while_waiting()


def test_a_run_that_is_canceled_ends_where_it_is_and_cleans_up(
    scenario: Scenario, pipeline: dg.Definitions, journal: Path
) -> None:
    scenario.load(pipeline)
    scenario.hold("late", after=f"{__name__}.write_line")
    scenario.materialize("late")
    scenario.advance(minutes=1)
    scenario.cancel("late")
    assert scenario.timeline.run(1).status == "canceled"
    assert done(journal) == ["late begins", "late cleans up"]
    scenario.expect_runs().none_under_way()
    with pytest.raises(ScenarioError, match="no run of 'late' is queued or under way"):
        scenario.cancel("late")


class TestWithALimitOnTime:
    @pytest.fixture
    def scenario_settings(self) -> dict[str, object]:
        return {"run_monitoring": {"enabled": True, "poll_interval_seconds": 30, "max_runtime_seconds": 600}}

    def test_a_run_that_takes_too_long_is_ended_by_run_monitoring(
        self, scenario: Scenario, pipeline: dg.Definitions, journal: Path
    ) -> None:
        scenario.load(pipeline)
        scenario.takes("early", hours=1)
        scenario.materialize("early")
        scenario.advance(minutes=30)
        scenario.expect("early").not_materialized()
        assert scenario.timeline.run(1).status in ("failed", "canceled")
        ended = scenario.timeline.run(1).ended
        assert ended is not None
        assert 600 <= (ended - scenario.timeline.run(1).requested).total_seconds() <= 700


def test_a_run_takes_as_long_as_it_was_told(scenario: Scenario, pipeline: dg.Definitions) -> None:
    scenario.load(pipeline)
    scenario.takes("early", minutes=20)
    scenario.materialize("early")
    scenario.advance(minutes=19)
    scenario.expect("early").running()
    scenario.advance(minutes=1)
    scenario.expect("early").materialized(times=1)


class TestWithARunQueue:
    @pytest.fixture
    def scenario_settings(self) -> dict[str, object]:
        return {"run_queue": {"max_concurrent_runs": 1}}

    def test_a_held_run_holds_its_place_in_the_queue(self, scenario: Scenario, pipeline: dg.Definitions) -> None:
        scenario.load(pipeline)
        scenario.hold("early")
        scenario.materialize("early")
        scenario.advance(minutes=1)
        scenario.materialize("late")
        scenario.advance(minutes=5)
        scenario.expect("late").not_materialized()
        scenario.release()
        scenario.advance(minutes=5)
        scenario.expect("late").materialized(times=1)


def test_a_run_that_polls_is_found_out(scenario: Scenario, tmp_path: Path) -> None:
    @dg.asset
    def poll() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(60)

    scenario.load(dg.Definitions(assets=[poll]))
    scenario.materialize("poll")
    scenario.advance(hours=2)
    (tmp_path / "ready").touch()
    scenario.advance(minutes=1)
    scenario.expect("poll").materialized(times=1)
    with pytest.raises(AssertionError, match=r"expected runs to hold no slot while they wait, but 1 did") as error:
        scenario.expect_runs().no_slot_held_while_waiting()
    assert "run 1 (poll) slept 1 min, from 2024-01-01 00:00:00, in test_faults.py" in str(error.value)


def test_closing_a_scenario_ends_the_runs_that_it_holds(pipeline: dg.Definitions, journal: Path) -> None:
    with Scenario() as scenario:
        scenario.load(pipeline)
        scenario.hold("late", after=f"{__name__}.write_line")
        scenario.materialize("late")
        scenario.run_until_quiet()
    assert done(journal) == ["late begins", "late cleans up"]
    with Scenario() as scenario:
        scenario.load(pipeline)
        scenario.materialize("early")
        scenario.run_until_quiet()
        scenario.expect_runs().none_failed()


def test_faults_end_with_the_scenario(pipeline: dg.Definitions, journal: Path) -> None:
    for times in (1, 0):
        with Scenario() as scenario:
            scenario.load(pipeline)
            if times:
                scenario.fail("early", times=None, before=f"{__name__}.write_line")
            scenario.materialize("early")
            scenario.run_until_quiet()
            assert scenario.timeline.run(1).status == ("failed" if times else "succeeded")
    write_line(journal, "by the test")


def test_a_fault_may_outlive_the_code_that_it_was_for(scenario: Scenario, pipeline: dg.Definitions) -> None:
    @dg.asset
    def other() -> None: ...

    scenario.load(company=pipeline)
    scenario.hold("early")
    scenario.materialize("early")
    scenario.tick()
    scenario.load(company=dg.Definitions(assets=[other]))
    scenario.materialize("other")
    scenario.advance(minutes=1)
    scenario.expect("other").materialized(times=1)


# Daemons


def test_of_a_schedule_that_was_missed_dagster_runs_the_last_tick_late(
    scenario: Scenario, pipeline: dg.Definitions
) -> None:
    hourly = dg.ScheduleDefinition(
        name="hourly", target="early", cron_schedule="0 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING
    )
    scenario.load(dg.Definitions(assets=pipeline.assets, schedules=[hourly]))
    scenario.advance(minutes=30)
    with scenario.daemons_down("schedules"):
        scenario.at("03:30")
        scenario.expect("early").not_materialized()
    scenario.run_until_quiet()
    scenario.expect("early").materialized(times=1).by_schedule("hourly")
    assert [event.at.minute for event in scenario.timeline.events if event.kind == "materialized"] == [30]


@pytest.mark.parametrize(("run_key", "runs"), [("the file", 1), (None, 2)])
def test_a_tick_that_happens_twice_shows_whether_the_run_key_is_needed(
    scenario: Scenario, pipeline: dg.Definitions, run_key: str | None, runs: int
) -> None:
    @dg.sensor(target="early", default_status=dg.DefaultSensorStatus.RUNNING)
    def arrival(context: dg.SensorEvaluationContext) -> dg.SensorResult | None:
        if context.cursor == "seen":
            return None
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=run_key)], cursor="seen")

    scenario.load(dg.Definitions(assets=pipeline.assets, sensors=[arrival]))
    scenario.tick_twice("arrival")
    scenario.run_until_quiet()
    scenario.expect("early").materialized(times=runs).by_sensor("arrival")
    scenario.run_until_quiet()
    scenario.expect_runs().count(runs)


def test_a_schedule_that_ticks_twice_runs_once(scenario: Scenario, pipeline: dg.Definitions) -> None:
    hourly = dg.ScheduleDefinition(
        name="hourly", target="early", cron_schedule="0 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING
    )
    scenario.load(dg.Definitions(assets=pipeline.assets, schedules=[hourly]))
    scenario.advance(minutes=30)
    scenario.tick_twice("hourly")
    scenario.at("01:30")
    scenario.expect("early").materialized(times=1)


def test_sensors_and_schedules_can_be_turned_on_and_off(scenario: Scenario, pipeline: dg.Definitions) -> None:
    @dg.sensor(target="early")
    def always() -> dg.RunRequest:
        return dg.RunRequest()

    scenario.load(dg.Definitions(assets=pipeline.assets, sensors=[always]))
    scenario.advance(minutes=5)
    scenario.expect("early").not_materialized()
    scenario.turn_on("always")
    scenario.advance(seconds=30)
    scenario.turn_off("always")
    off = scenario.mark()
    scenario.advance(minutes=5)
    scenario.expect("early").materialized()
    scenario.expect("early").not_materialized(since=off)


# Wrong use


def test_wrong_names_and_points_say_what_there_is(scenario: Scenario, pipeline: dg.Definitions) -> None:
    with pytest.raises(ScenarioError, match=r"no code location is loaded; begin with scenario.load"):
        scenario.fail("early")
    scenario.load(pipeline)
    with pytest.raises(
        ScenarioError, match=r"no asset or op 'erly' in the loaded code locations. Did you mean 'early'"
    ):
        scenario.kill("erly")
    with pytest.raises(ScenarioError, match="at='middle' is not a point of a computation; expected 'start' or 'end'"):
        scenario.hold("early", at="middle")
    with pytest.raises(ScenarioError, match=r"test_faults has no write_lines; name the function where it is looked up"):
        scenario.fail("early", before=f"{__name__}.write_lines")
    with pytest.raises(ScenarioError, match="early is not partitioned, so it has no partition '2024-01-01'"):
        scenario.fail("early", partition="2024-01-01")
    with pytest.raises(ScenarioError, match=r"nothing is held; hold\(...\) comes first"):
        scenario.release()
    with pytest.raises(ScenarioError, match=r"no daemon 'sensor'\. Did you mean 'sensors'"):
        scenario.stop_daemons("sensor")
    with pytest.raises(ScenarioError, match="no sensor or schedule 'hourly'"):
        scenario.tick_twice("hourly")


def test_an_injected_failure_is_told_from_a_real_one(scenario: Scenario, pipeline: dg.Definitions) -> None:
    scenario.load(pipeline)
    scenario.fail("early")
    scenario.materialize("early")
    scenario.run_until_quiet()
    assert scenario.timeline.run(1).error == f"{InjectedFailure.__module__}.InjectedFailure: injected by the scenario"


def test_what_makes_no_sense_is_refused(scenario: Scenario, pipeline: dg.Definitions) -> None:
    @dg.sensor(target="early")
    def arrival() -> None: ...

    outside = dg.AssetSpec("outside", partitions_def=DAYS)
    scenario.load(dg.Definitions(assets=[*(pipeline.assets or []), outside], sensors=[arrival]))
    scenario.start("2024-01-05")
    refused: dict[str, Callable[[], object]] = {
        "a fault lies at one point": lambda: scenario.fail("early", at="end", before=f"{__name__}.write_line"),
        "times=0 is never": lambda: scenario.fail("early", times=0),
        "is a str, not a function": lambda: scenario.fail("early", before=f"{__name__}.__name__"),
        "'nosuch.module.function' is not the path of a function": lambda: scenario.fail(
            "early", before="nosuch.module.function"
        ),
        "minute: not a duration; give it in weeks, days": lambda: scenario.takes("early", minute=3),
        "outside is an external asset": lambda: scenario.backfill("outside", partitions=["2024-01-01"]),
        "outside is partitioned; say which": lambda: scenario.report("outside"),
        "whose tick? There are: arrival": scenario.tick_twice,
        "load what?": scenario.load,
        "not both": lambda: scenario.expect("many").materialized("2024-01-01", times=2),
    }
    for message, verb in refused.items():
        with pytest.raises(ScenarioError) as error:
            verb()
        assert message in str(error.value)
