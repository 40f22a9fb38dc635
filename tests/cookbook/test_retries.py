"""Retries with growing pauses, time limits, and failed tasks that run again alone."""

from collections import Counter
from itertools import pairwise

import dagster as dg
from dagster_scenario import Scenario

from dedp_assets.cookbook import retries


def starts(scenario: Scenario) -> Counter[str | None]:
    kind = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
    runs = scenario.instance.get_runs()
    return Counter(event.step_key for run in runs for event in scenario.instance.all_logs(run.run_id, of_type=kind))


def test_the_pauses_between_retries_grow(scenario: Scenario) -> None:
    scenario.load(retries.defs)
    scenario.fail("store", times=3)
    scenario.launch("ingestion")
    scenario.advance(minutes=20)
    scenario.expect_job("ingestion").succeeded(times=1)
    (run,) = scenario.instance.get_runs()
    kind = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
    tries = [e.timestamp for e in scenario.instance.all_logs(run.run_id, of_type=kind) if e.step_key == "store"]
    assert [round(later - earlier) for earlier, later in pairwise(tries)] == [60, 180, 420]


def test_a_run_that_takes_too_long_is_ended(scenario: Scenario) -> None:
    scenario.load(retries.defs)
    scenario.takes("download", hours=2)
    scenario.launch("ingestion", tags={"dagster/max_retries": "0"})
    scenario.advance(minutes=35)
    scenario.expect_job("ingestion").failed(times=1, error="maximum runtime of 1800 seconds")


def test_after_its_retries_only_the_task_that_failed_runs_again(scenario: Scenario) -> None:
    scenario.load(retries.defs)
    scenario.fail("store", times=4)
    scenario.launch("ingestion")
    scenario.advance(hours=1)
    scenario.expect_job("ingestion").failed(times=1)
    scenario.expect_job("ingestion").succeeded(times=1)
    assert starts(scenario) == {"download": 1, "store": 5}
