"""Pools, runs at once, runs of one job at once, and who is first."""

from typing import Any

import pytest
import yaml
from dagster_scenario import Scenario

from dedp_assets.cookbook import limits


@pytest.fixture
def scenario_settings() -> dict[str, Any]:
    """The settings in the docstring of the example, with pools of whole runs and with smaller numbers."""
    assert limits.__doc__
    settings: dict[str, Any] = yaml.safe_load(limits.__doc__.partition("for pools:\n")[2])
    settings["concurrency"]["runs"]["max_concurrent_runs"] = 3
    settings["concurrency"]["pools"] = {"granularity": "run", "default_limit": 2}
    return settings


def under_way(scenario: Scenario, job: str) -> int:
    return sum(run.job == job and run.status == "started" for run in scenario.timeline.runs.values())


def test_a_pool_and_the_runs_of_one_job_have_a_limit_and_all_of_them_end(scenario: Scenario) -> None:
    scenario.load(limits.defs)
    scenario.instance.event_log_storage.set_concurrency_slots("warehouse", 2)
    scenario.hold("heavy_query")
    for job in ("nightly", "nightly", "urgent", "urgent"):
        scenario.launch(job)
    scenario.run_until_quiet()
    # Two places in the pool: the urgent ones are first, though they came last.
    assert (under_way(scenario, "urgent"), under_way(scenario, "nightly")) == (2, 0)
    scenario.release()
    scenario.run_until_quiet()
    scenario.expect_job("urgent").succeeded(times=2)
    scenario.expect_job("nightly").succeeded(times=2)


def test_one_run_of_a_team_at_once(scenario: Scenario) -> None:
    scenario.load(limits.defs)
    scenario.instance.event_log_storage.set_concurrency_slots("warehouse", 9)
    scenario.hold("heavy_query")
    for _ in range(3):
        scenario.launch("nightly")
    scenario.run_until_quiet()
    assert under_way(scenario, "nightly") == 1
    scenario.release()
    scenario.run_until_quiet()
    scenario.expect_job("nightly").succeeded(times=3)


def test_so_many_runs_at_once_and_the_others_wait_in_the_queue(scenario: Scenario) -> None:
    scenario.load(limits.defs)
    scenario.hold("part_1")
    for _ in range(5):
        scenario.launch("two_at_once")
    scenario.run_until_quiet()
    assert under_way(scenario, "two_at_once") == 3
    scenario.release()
    scenario.run_until_quiet()
    scenario.expect_job("two_at_once").succeeded(times=5)


def test_so_many_steps_of_a_run_at_once(scenario: Scenario) -> None:
    scenario.load(limits.defs)
    scenario.start("2024-01-05 08:00")
    for name in ("part_1", "part_2", "part_3"):
        scenario.takes(name, minutes=10)
    scenario.launch("two_at_once")
    scenario.advance(minutes=15)
    scenario.expect_job("two_at_once").running()
    scenario.advance(minutes=10)
    (run,) = scenario.timeline.runs.values()
    assert run.ended is not None
    assert run.started is not None
    assert 20 <= (run.ended - run.started).total_seconds() / 60 < 25
