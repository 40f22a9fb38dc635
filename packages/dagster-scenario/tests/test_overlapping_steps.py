"""Steps of one run that are under way at the same time, as an executor of several processes has them."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioError

START = datetime(2024, 1, 1, tzinfo=timezone.utc)
MULTIPROCESS: Any = dg.multiprocess_executor


def job_of(*names: str, executor: Any = MULTIPROCESS, **settings: Any) -> dg.Definitions:
    """A job of these steps, none of which needs another, each of an op of its own."""

    @dg.job(executor_def=executor)
    def together() -> None:
        for name in names:
            dg.op(name=name, **settings)(lambda: None)()

    return dg.Definitions(jobs=[together])


def minutes(scenario: Scenario, kind: str) -> dict[str, list[float]]:
    """The minutes, from the start on, at which the steps of all runs had events of this kind."""
    found: dict[str, list[float]] = {}
    for run in scenario.timeline.runs.values():
        for entry in scenario.instance.all_logs(run.id):
            event = entry.dagster_event
            if event is not None and event.event_type_value == kind:
                after = datetime.fromtimestamp(entry.timestamp, timezone.utc) - START
                found.setdefault(str(event.step_key), []).append(round(after / timedelta(minutes=1), 1))
    return found


def play(scenario: Scenario, definitions: dg.Definitions, steps: str, until: float = 60) -> None:
    """Launch the job, each of whose steps takes ten minutes, and let so many minutes pass."""
    scenario.load(definitions)
    for step in steps:
        scenario.takes(step, minutes=10)
    scenario.launch("together")
    scenario.advance(minutes=until)


def length(scenario: Scenario) -> float:
    run = scenario.timeline.run(1)
    assert run.ended is not None
    assert run.started is not None
    return (run.ended - run.started) / timedelta(minutes=1)


def test_two_steps_of_ten_minutes_take_ten_minutes(scenario: Scenario) -> None:
    play(scenario, job_of("a", "b"), "ab")
    scenario.expect_job("together").succeeded(times=1)
    assert length(scenario) == 10
    assert minutes(scenario, "STEP_START") == {"a": [0], "b": [0]}
    assert minutes(scenario, "STEP_SUCCESS") == {"a": [10], "b": [10]}
    lines = [(event.at, event.text) for event in scenario.timeline.events if event.kind == "step started"]
    assert lines == [(START, "b, while a runs")]


def test_a_scenario_of_overlapping_steps_has_the_same_timeline_every_time() -> None:
    told = set()
    for _ in range(3):
        with Scenario() as scenario:
            play(scenario, job_of(*"abcd", executor=MULTIPROCESS.configured({"max_concurrent": 3})), "abd")
            told.add(str(scenario.timeline))
    assert len(told) == 1


@pytest.mark.parametrize(
    "executor", [dg.in_process_executor, MULTIPROCESS.configured({"max_concurrent": 1})], ids=["in process", "limit 1"]
)
def test_steps_in_process_run_one_after_another(scenario: Scenario, executor: dg.ExecutorDefinition) -> None:
    play(scenario, job_of("a", "b", executor=executor), "ab")
    assert length(scenario) == 20
    assert minutes(scenario, "STEP_START") == {"a": [0], "b": [10]}


@pytest.mark.parametrize(("chosen", "expected"), [("multiprocess", 10), ("in_process", 20)])
def test_the_default_executor_does_what_the_run_config_chooses(
    scenario: Scenario, chosen: str, expected: float
) -> None:
    @dg.job(config={"execution": {"config": {chosen: {}}}})
    def together() -> None:
        dg.op(name="a")(lambda: None)()
        dg.op(name="b")(lambda: None)()

    play(scenario, dg.Definitions(jobs=[together]), "ab")
    assert length(scenario) == expected


@pytest.mark.parametrize("executor", [MULTIPROCESS, None], ids=["multiprocess", "default"])
def test_no_more_steps_are_under_way_than_the_machine_has_cpus(scenario: Scenario, executor: Any) -> None:
    play(scenario, job_of(*"abcde", executor=executor), "abcde")
    assert minutes(scenario, "STEP_START") == {"a": [0], "b": [0], "c": [0], "d": [0], "e": [10]}


def test_the_number_of_cpus_can_be_set(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.cpus = 2
    play(scenario, job_of(*"abc"), "abc")
    assert minutes(scenario, "STEP_START") == {"a": [0], "b": [0], "c": [10]}
    # As in Dagster, the variable comes before the number of CPUs.
    monkeypatch.setenv("DAGSTER_MULTIPROCESS_EXECUTOR_MAX_CONCURRENT", "3")
    scenario.launch("together")
    scenario.advance(minutes=60)
    assert minutes(scenario, "STEP_START") == {"a": [0, 60.5], "b": [0, 60.5], "c": [10, 60.5]}


@pytest.mark.parametrize("number", [0, -1, 1.5, "4"])
def test_a_number_of_cpus_that_is_none_is_refused(scenario: Scenario, number: Any) -> None:
    with pytest.raises(ScenarioError, match=r"is not a number of CPUs; give 1 or more"):
        scenario.cpus = number


def test_no_more_steps_are_under_way_than_max_concurrent_allows(scenario: Scenario) -> None:
    play(scenario, job_of(*"abc", executor=MULTIPROCESS.configured({"max_concurrent": 2})), "abc")
    assert minutes(scenario, "STEP_START") == {"a": [0], "b": [0], "c": [10]}
    assert length(scenario) == 20


def test_no_more_steps_are_under_way_than_the_limits_of_tags_allow(scenario: Scenario) -> None:
    limits = {"tag_concurrency_limits": [{"key": "database", "limit": 1}]}

    @dg.job(executor_def=MULTIPROCESS.configured(limits))
    def together() -> None:
        dg.op(name="a", tags={"database": "x"})(lambda: None)()
        dg.op(name="b", tags={"database": "x"})(lambda: None)()
        dg.op(name="c")(lambda: None)()

    play(scenario, dg.Definitions(jobs=[together]), "abc")
    assert minutes(scenario, "STEP_START") == {"a": [0], "b": [10], "c": [0]}


def test_a_pool_of_one_slot_lets_one_step_after_another_run(scenario: Scenario) -> None:
    scenario.instance.event_log_storage.set_concurrency_slots("db", 1)
    play(scenario, job_of("a", "b", pool="db"), "ab")
    scenario.expect_job("together").succeeded(times=1)
    assert "waits for a slot of the pool 'db'" in str(scenario.timeline)
    assert minutes(scenario, "STEP_START") == {"a": [0], "b": [10]}
    assert length(scenario) == 20


def test_a_step_that_waits_for_a_slot_also_waits_for_max_concurrent(scenario: Scenario) -> None:
    scenario.instance.event_log_storage.set_concurrency_slots("db", 1)

    @dg.job(executor_def=MULTIPROCESS.configured({"max_concurrent": 2}))
    def together() -> None:
        dg.op(name="a", pool="db")(lambda: None)()
        dg.op(name="b", pool="db")(lambda: None)()
        dg.op(name="c")(lambda: None)()
        dg.op(name="d")(lambda: None)()

    play(scenario, dg.Definitions(jobs=[together]), "abcd")
    assert minutes(scenario, "STEP_START") == {"a": [0], "b": [10], "c": [0], "d": [10]}


def test_a_step_waits_for_its_retry_while_another_one_runs(scenario: Scenario) -> None:
    definitions = job_of("a", "b", retry_policy=dg.RetryPolicy(max_retries=1, delay=180))
    scenario.load(definitions)
    scenario.takes("b", minutes=10)
    scenario.fail("a", times=1)
    scenario.launch("together")
    scenario.advance(hours=1)
    scenario.expect_job("together").succeeded(times=1)
    assert minutes(scenario, "STEP_UP_FOR_RETRY") == {"a": [0]}
    assert minutes(scenario, "STEP_RESTARTED") == {"a": [3]}
    assert minutes(scenario, "STEP_SUCCESS") == {"a": [3], "b": [10]}
    assert [event.text for event in scenario.timeline.events if "retry" in event.text].count(
        "together waits 180 s for its retry"
    ) == 1


def test_a_step_that_ends_while_another_waits_for_its_retry_lets_the_next_one_run(scenario: Scenario) -> None:
    retried = dg.op(name="a", retry_policy=dg.RetryPolicy(max_retries=1, delay=1800))(lambda: None)

    @dg.job(executor_def=MULTIPROCESS)
    def together() -> None:
        retried()
        dg.op(name="c", ins={"after": dg.In(dg.Nothing)})(lambda: None)(dg.op(name="b")(lambda: None)())

    scenario.load(dg.Definitions(jobs=[together]))
    scenario.takes("b", minutes=10)
    scenario.fail("a", times=1)
    scenario.launch("together")
    scenario.advance(hours=1)
    assert minutes(scenario, "STEP_SUCCESS") == {"a": [30], "b": [10], "c": [10]}
    assert str(scenario.timeline).count("for its retry") == 1


def test_a_step_that_fails_leaves_the_others_to_end(scenario: Scenario) -> None:
    scenario.load(job_of("a", "b"))
    scenario.takes("a", minutes=10)
    scenario.takes("b", minutes=20)
    scenario.fail("a", at="end")
    scenario.launch("together")
    scenario.advance(hours=1)
    scenario.expect_job("together").failed(times=1)
    assert minutes(scenario, "STEP_SUCCESS") == {"b": [20]}
    assert length(scenario) == 20


def test_a_step_whose_resource_can_not_be_made_fails_and_leaves_the_others(scenario: Scenario) -> None:
    def broken() -> None:
        raise RuntimeError("no database")

    resource = dg.ResourceDefinition(resource_fn=lambda _: broken())

    @dg.job(executor_def=MULTIPROCESS, resource_defs={"db": resource})
    def together() -> None:
        dg.op(name="a", required_resource_keys={"db"})(lambda _: None)()
        dg.op(name="b")(lambda: None)()

    scenario.load(dg.Definitions(jobs=[together]))
    scenario.takes("b", minutes=10)
    scenario.launch("together")
    scenario.advance(hours=1)
    scenario.expect_job("together").failed(times=1, error="a")
    assert minutes(scenario, "STEP_FAILURE") == {"a": [0]}
    assert minutes(scenario, "STEP_SUCCESS") == {"b": [10]}


def test_a_run_that_is_terminated_ends_all_of_its_steps(scenario: Scenario) -> None:
    play(scenario, job_of("a", "b"), "ab", until=5)
    scenario.instance.run_launcher.terminate(scenario.timeline.run(1).id)
    assert scenario.timeline.run(1).status == "canceled"
    assert minutes(scenario, "STEP_FAILURE") == {"a": [5], "b": [5]}


def test_one_of_two_held_steps_is_released_alone(scenario: Scenario) -> None:
    scenario.load(job_of("a", "b"))
    scenario.hold("a")
    scenario.hold("b")
    scenario.launch("together")
    scenario.advance(minutes=1)
    scenario.release("b")
    scenario.advance(minutes=1)
    assert minutes(scenario, "STEP_SUCCESS") == {"b": [1]}
    scenario.release("a")
    scenario.run_until_quiet()
    assert minutes(scenario, "STEP_SUCCESS") == {"a": [2], "b": [1]}
    scenario.expect_job("together").succeeded(times=1)


def test_a_run_is_killed_with_all_of_its_steps(scenario: Scenario) -> None:
    scenario.load(job_of("a", "b"))
    scenario.kill("b")
    scenario.launch("together")
    scenario.advance(minutes=1)
    assert scenario.timeline.run(1).status == "killed"


def test_steps_of_a_dynamic_output_overlap_and_are_collected(scenario: Scenario) -> None:
    collected: list[list[int]] = []

    @dg.op(out=dg.DynamicOut(int))
    def pieces() -> Any:
        for number in range(3):
            yield dg.DynamicOutput(number, mapping_key=str(number))

    @dg.op
    def work(number: int) -> int:
        time.sleep(600)
        return number * 2

    @dg.op
    def collect(numbers: list[int]) -> None:
        collected.append(numbers)

    @dg.job(executor_def=MULTIPROCESS)
    def together() -> None:
        collect(pieces().map(work).collect())

    scenario.load(dg.Definitions(jobs=[together]))
    scenario.launch("together")
    scenario.advance(hours=1)
    assert collected == [[0, 2, 4]]
    assert length(scenario) == 10


def test_assets_of_a_run_overlap_and_later_ones_load_what_they_gave(scenario: Scenario) -> None:
    sums: list[int] = []

    @dg.asset
    def left() -> int:
        time.sleep(600)
        return 1

    @dg.asset
    def right() -> int:
        time.sleep(1200)
        return 2

    @dg.asset
    def total(left: int, right: int) -> None:
        sums.append(left + right)

    scenario.load(dg.Definitions(assets=[left, right, total]))
    scenario.materialize("left", "right", "total")
    scenario.advance(hours=1)
    assert sums == [3]
    assert length(scenario) == 20
    scenario.expect("total").materialized(times=1)


def test_a_run_that_is_left_behind_ends_with_the_scenario() -> None:
    with Scenario() as scenario:
        play(scenario, job_of("a", "b"), "ab", until=5)
    with Scenario():
        pass


def test_a_step_starts_while_the_one_that_it_needs_runs_where_the_executor_allows_it(scenario: Scenario) -> None:
    @dg.op(out={"early": dg.Out(int), "late": dg.Out(int)})
    def first() -> Any:
        yield dg.Output(1, "early")
        time.sleep(600)
        yield dg.Output(2, "late")

    @dg.op
    def second(early: int) -> None:
        time.sleep(600)

    @dg.job(executor_def=MULTIPROCESS.configured({"step_dependency_config": {"require_upstream_step_success": False}}))
    def together() -> None:
        early, _ = first()
        second(early)

    scenario.load(dg.Definitions(jobs=[together]))
    scenario.launch("together")
    scenario.advance(hours=1)
    assert length(scenario) == 10


def test_values_that_are_kept_in_memory_go_from_step_to_step(scenario: Scenario) -> None:
    sums: list[int] = []

    @dg.asset
    def left() -> int:
        return 1

    @dg.asset
    def right() -> int:
        return 2

    @dg.asset
    def total(left: int, right: int) -> None:
        sums.append(left + right)

    scenario.load(dg.Definitions(assets=[left, right, total], resources={"io_manager": dg.mem_io_manager}))
    scenario.materialize("left", "right", "total")
    scenario.run_until_quiet()
    scenario.stub("left", value=5)
    scenario.materialize("left", "right", "total")
    scenario.run_until_quiet()
    assert sums == [3, 7]


def test_threads_of_overlapping_steps_sleep_and_are_held_on_their_own(scenario: Scenario) -> None:
    def nap(hours: int) -> None:
        time.sleep(hours * 3600)

    def threaded() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(nap, [1, 2]))

    @dg.job(executor_def=MULTIPROCESS)
    def together() -> None:
        dg.op(name="a")(threaded)()
        dg.op(name="b")(threaded)()

    scenario.load(dg.Definitions(jobs=[together]))
    scenario.hold("a", at="end")
    scenario.launch("together")
    scenario.advance(hours=3)
    assert minutes(scenario, "STEP_SUCCESS") == {"b": [120]}
    scenario.release("a")
    scenario.run_until_quiet()
    assert minutes(scenario, "STEP_SUCCESS") == {"a": [180], "b": [120]}


def test_a_step_that_hangs_beside_another_is_reported_with_its_place() -> None:
    def hangs() -> None:
        scenario.stuck_after = 0.5
        while True:
            time.monotonic()

    @dg.job(executor_def=MULTIPROCESS)
    def together() -> None:
        dg.op(name="a")(lambda: time.sleep(600))()
        dg.op(name="b")(hangs)()

    with Scenario() as scenario:
        scenario.load(dg.Definitions(jobs=[together]))
        scenario.launch("together")
        with pytest.raises(ScenarioError, match=r"run 1 \(together\) has not come back .*\n?.* \(hangs\)"):
            scenario.advance(hours=1)
    with Scenario():
        pass


def test_a_run_that_takes_too_long_is_ended_with_its_steps() -> None:
    with Scenario(settings={"run_monitoring": {"enabled": True, "max_runtime_seconds": 300}}) as scenario:
        play(scenario, job_of("a", "b"), "ab")
        assert scenario.timeline.run(1).status == "failed"
        assert list(minutes(scenario, "STEP_FAILURE")) == ["a", "b"]


def test_the_page_of_overlapping_steps_shows_when_they_start(scenario: Scenario) -> None:
    play(scenario, job_of("a", "b"), "ab")
    assert "step started" in scenario.timeline.html()
