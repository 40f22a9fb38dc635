"""Limits: 16 slots, and what waits for data needs none of them."""

from pathlib import Path

import dagster as dg
import pytest
from dagster_scenario import Scenario

SLOTS = 16
SHOPS = [f"shop{number:02}" for number in range(1, 51)]


@pytest.fixture
def scenario_settings() -> dict[str, object]:
    return {"concurrency": {"runs": {"max_concurrent_runs": SLOTS}}}


@pytest.fixture
def shops(scenario: Scenario, tmp_path: Path) -> Scenario:
    """Fifty shops, each of which is taken when its file is there, and a pipeline that nobody has to wait for."""
    folder = scenario.folder(tmp_path / "inbox")

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(SHOPS))
    def takings() -> None: ...

    @dg.asset
    def urgent() -> None: ...

    @dg.sensor(target=[takings], minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
    def arrived(context: dg.SensorEvaluationContext) -> list[dg.RunRequest]:
        there = sorted(path.name for path in folder.path.iterdir())
        return [dg.RunRequest(run_key=name, partition_key=name) for name in there]

    scenario.load(dg.Definitions(assets=[takings, urgent], sensors=[arrived]))
    scenario.tick()
    return scenario


def under_way(scenario: Scenario) -> tuple[int, int]:
    """How many runs have a slot, and how many wait for one."""
    runs = scenario.instance.get_runs()
    statuses = [run.status for run in runs]
    return statuses.count(dg.DagsterRunStatus.STARTED), statuses.count(dg.DagsterRunStatus.QUEUED)


def test_fifty_shops_that_are_waited_for_take_no_slot(shops: Scenario) -> None:
    shops.advance(hours=6 * 24)
    shops.expect_sensor("arrived").waiting()
    shops.expect_runs().count(0)
    shops.materialize("urgent")
    shops.advance(minutes=1)
    shops.expect("urgent").materialized()


def test_fifty_that_come_at_once_take_turns_in_sixteen_slots_and_all_of_them_end(
    shops: Scenario, tmp_path: Path
) -> None:
    for name in SHOPS:
        shops.folder(tmp_path / "inbox").drop(name)
    shops.hold("takings")
    shops.advance(minutes=2)
    assert under_way(shops) == (SLOTS, 50 - SLOTS)
    shops.release()
    shops.advance(minutes=5)
    assert under_way(shops) == (0, 0)
    shops.expect("takings").materialized(times=50)
    shops.expect_runs().none_failed()
