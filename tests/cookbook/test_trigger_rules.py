"""Each trigger rule decides as Airflow 3.3 does, and what Dagster does itself agrees with it."""

from collections.abc import Iterator
from itertools import combinations_with_replacement, product
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario

from dedp_assets.cookbook import trigger_rules_between_runs as between_runs
from dedp_assets.cookbook import trigger_rules_in_a_run as in_a_run
from dedp_assets.cookbook.three_tasks import TASKS, before, config_of, task
from dedp_assets.cookbook.trigger_rules import RULES, Decision, State, decide

OUTCOMES: tuple[State, ...] = ("success", "failed", "skipped", "upstream_failed")
COMBINATIONS = list(product(OUTCOMES, repeat=3))

# What Airflow makes of a task. The columns are the states of its three upstream tasks, in any order: S success,
# F failed, K skipped, U upstream_failed. The cells: R it runs, K it is skipped, U it is upstream_failed.
# From `TriggerRuleDep._evaluate_direct_relatives`, with all three tasks done. A run of Airflow 3.3.2 with these 240
# tasks differed in three cells only: all_success was skipped for SKU, KKU and KUU, because the skip came first.
AIRFLOW = """
                            SSS SSF SSK SSU SFF SFK SFU SKK SKU SUU FFF FFK FFU FKK FKU FUU KKK KKU KUU UUU
all_success                  R   U   K   U   U   U   U   K   U   U   U   U   U   U   U   U   K   U   U   U
all_failed                   K   K   K   K   K   K   K   K   K   K   R   K   R   K   K   R   K   K   K   R
all_done                     R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R
one_success                  R   R   R   R   R   R   R   R   R   R   U   U   U   U   U   U   K   U   U   U
one_failed                   K   R   K   R   R   R   R   K   R   R   R   R   R   R   R   R   K   R   R   R
one_done                     R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   K   K   K   K
none_failed                  R   U   R   U   U   U   U   R   U   U   U   U   U   U   U   U   R   U   U   U
none_failed_min_one_success  R   U   R   U   U   U   U   R   U   U   U   U   U   U   U   U   K   U   U   U
none_skipped                 R   R   K   R   R   K   R   K   K   R   R   K   R   K   K   R   K   K   K   R
all_skipped                  K   K   K   K   K   K   K   K   K   K   K   K   K   K   K   K   R   K   K   K
all_done_min_one_success     R   R   K   R   R   K   R   K   K   R   U   K   U   K   K   U   K   K   K   U
always                       R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R   R
"""
LETTERS: dict[str, State] = {"S": "success", "F": "failed", "K": "skipped", "U": "upstream_failed"}
CELLS: dict[str, Decision] = {"R": "run", "K": "skip", "U": "upstream_failed"}


def airflow_table() -> dict[str, dict[tuple[State, ...], Decision]]:
    """For each rule, what it decides for each combination of states, which are sorted."""
    header, *rows = (line.split() for line in AIRFLOW.strip().splitlines())
    columns = [tuple(sorted(LETTERS[letter] for letter in column)) for column in header]
    return {rule: dict(zip(columns, (CELLS[cell] for cell in cells), strict=True)) for rule, *cells in rows}


TABLE = airflow_table()


def test_the_table_has_every_rule_and_every_combination_of_three_states() -> None:
    assert TABLE.keys() == RULES.keys()
    for cells in TABLE.values():
        assert cells.keys() == {tuple(sorted(states)) for states in combinations_with_replacement(OUTCOMES, 3)}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_decides_as_airflow_for_every_combination(rule: str) -> None:
    decided = {states: decide(rule, states) for states in COMBINATIONS}
    assert decided == {states: TABLE[rule][tuple(sorted(states))] for states in COMBINATIONS}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_decides_early_does_not_start_a_task_that_it_would_not_start_at_the_end(rule: str) -> None:
    for states in product((*OUTCOMES, "unfinished"), repeat=3):
        at_the_end = {
            decide(rule, ended)
            for ended in product(*(OUTCOMES if state == "unfinished" else [state] for state in states))
        }
        decision = decide(rule, states)
        if decision == "run":
            assert at_the_end == {"run"}
        if decision in ("skip", "upstream_failed"):
            assert "run" not in at_the_end


@pytest.mark.parametrize(
    ("rule", "early"),
    [
        ("one_success", ("success", "unfinished", "unfinished")),
        ("one_failed", ("failed", "unfinished", "unfinished")),
        ("one_done", ("failed", "unfinished", "unfinished")),
        ("always", ("unfinished", "unfinished", "unfinished")),
    ],
)
def test_these_rules_start_before_all_tasks_are_done(rule: str, early: tuple[State, ...]) -> None:
    assert decide(rule, early) == "run"


FOLLOWERS = {op.name: op for op in (in_a_run.all_success, in_a_run.none_failed_min_one_success, in_a_run.none_failed)}


def name_of(rule: str, states: tuple[State, ...]) -> str:
    return "__".join((rule, *states))


@dg.job
def every_combination() -> None:
    """Tasks with each outcome, and the example's own ops after each of the 64 combinations of three of them."""
    upstream: dict[tuple[str, State], Any] = {}
    for name, outcome in product(TASKS, OUTCOMES):
        upstream[name, outcome] = task(f"{name}_{outcome}")(before(f"{name}_{outcome}")())
    sure = in_a_run.never_skipped()
    for states in COMBINATIONS:
        tasks = {name: upstream[name, outcome] for name, outcome in zip(TASKS, states, strict=True)}
        every = list(tasks.values())
        FOLLOWERS["all_success"].alias(name_of("all_success", states))(**tasks)
        name = name_of("none_failed_min_one_success", states)
        FOLLOWERS["none_failed_min_one_success"].alias(name)(any_of=every)
        FOLLOWERS["none_failed"].alias(name_of("none_failed", states))(any_of=[*every, sure])


@pytest.fixture(scope="module")
def played() -> Iterator[tuple[dg.DagsterInstance, dg.DagsterRun]]:
    """A run of `every_combination`, and its instance."""
    config = config_of({f"{name}_{outcome}": outcome for name, outcome in product(TASKS, OUTCOMES)})
    with dg.DagsterInstance.ephemeral() as instance:
        result = every_combination.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
        yield instance, result.dagster_run


def test_what_dagster_does_itself_within_a_run_agrees_for_all_64_combinations(
    played: tuple[dg.DagsterInstance, dg.DagsterRun],
) -> None:
    instance, run = played
    events = instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_SUCCESS})
    ran = {event.step_key for event in events}
    for rule, states in product(FOLLOWERS, COMBINATIONS):
        assert (name_of(rule, states) in ran) == (TABLE[rule][tuple(sorted(states))] == "run")


@pytest.mark.parametrize("rule", RULES)
def test_the_states_of_a_real_run_lead_to_airflows_decision_for_all_64_combinations(
    played: tuple[dg.DagsterInstance, dg.DagsterRun], rule: str
) -> None:
    instance, run = played
    steps = [f"{name}_{outcome}" for name, outcome in product(TASKS, OUTCOMES)]
    state = dict(zip(steps, between_runs.states_in(instance, run, steps), strict=True))
    for outcomes in COMBINATIONS:
        states = [state[f"{name}_{outcome}"] for name, outcome in zip(TASKS, outcomes, strict=True)]
        assert decide(rule, states) == TABLE[rule][tuple(sorted(outcomes))]


@pytest.mark.parametrize("letters", ["SSK", "KKK", "SSF"])
def test_the_job_of_the_example_runs_the_steps_whose_rule_is_met(instance: dg.DagsterInstance, letters: str) -> None:
    outcomes = [LETTERS[letter] for letter in letters]
    config = config_of(dict(zip(TASKS, outcomes, strict=True)))
    result = in_a_run.rules_in_a_run.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    ran = {event.step_key for event in result.get_step_success_events()} & RULES.keys()
    rules = [*FOLLOWERS, "always"]
    assert ran == {rule for rule in rules if TABLE[rule][tuple(sorted(outcomes))] == "run"}


def load(scenario: Scenario, *rules: str) -> None:
    """The example, with a job for each of these rules beside its own."""

    def follower(rule: str) -> dg.JobDefinition:
        @dg.op(name=f"step_{rule}")
        def step() -> None: ...

        @dg.job(name=f"job_{rule}")
        def job() -> None:
            step()

        return job

    jobs = {rule: follower(rule) for rule in rules}
    sensors = [between_runs.start_by_rule(job, rule, upstream_job="tasks") for rule, job in jobs.items()]
    scenario.load(dg.Definitions.merge(between_runs.defs, dg.Definitions(jobs=[*jobs.values()], sensors=sensors)))
    scenario.turn_on()
    scenario.run_until_quiet()


@pytest.mark.slow
def test_a_job_for_each_rule_runs_or_does_not_after_a_run_of_the_tasks(scenario: Scenario) -> None:
    load(scenario, *RULES)
    combinations = [[LETTERS[letter] for letter in letters] for letters in ("SSS", "SFK", "KKK", "UUU")]
    for outcomes in combinations:
        scenario.launch("tasks", run_config=config_of(dict(zip(TASKS, outcomes, strict=True))))
    scenario.run_until_quiet()
    started = [run.job for run in scenario.timeline.runs.values() if run.job.startswith("job_")]
    expected = [
        f"job_{rule}" for rule, cells in TABLE.items() for on in combinations if cells[tuple(sorted(on))] == "run"
    ]
    assert sorted(started) == sorted(expected)


def steps_that_ran(scenario: Scenario) -> set[str | None]:
    events = [dg.DagsterEventType.STEP_SUCCESS]
    runs = scenario.instance.get_runs()
    return {event.step_key for run in runs for event in scenario.instance.all_logs(run.run_id, of_type=set(events))}


def test_task_d_runs_when_a_b_and_c_succeed(scenario: Scenario) -> None:
    load(scenario)
    scenario.launch("tasks")
    scenario.run_until_quiet()
    assert "task_D" in steps_that_ran(scenario)
    scenario.expect_job("alert").not_requested()


def test_the_alert_runs_when_one_of_them_fails_while_another_one_is_still_at_work(scenario: Scenario) -> None:
    load(scenario)
    scenario.hold("b")
    scenario.launch("tasks", run_config=config_of({"a": "failed"}))
    scenario.run_until_quiet()
    scenario.expect_job("tasks").running()
    scenario.expect_job("alert").succeeded(times=1)
    scenario.release()
    scenario.run_until_quiet()
    scenario.expect_job("tasks").failed(times=1)
    scenario.expect_job("alert").succeeded(times=1)
    assert "task_D" not in steps_that_ran(scenario)


def test_after_the_failed_task_alone_has_run_again_the_others_count_as_they_ended_before(scenario: Scenario) -> None:
    load(scenario, "all_success", "all_done")
    scenario.fail("b")
    scenario.launch("tasks", tags={"dagster/max_retries": "1", "dagster/retry_on_asset_or_op_failure": "true"})
    scenario.run_until_quiet()
    scenario.expect_job("tasks").succeeded(times=1)
    scenario.expect_job("job_all_success").succeeded(times=1)  # a and c succeeded in the run before
    scenario.expect_job("job_all_done").succeeded(times=2)
