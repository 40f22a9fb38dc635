"""The order in which runs start: that of Dagster's run queue."""

import dagster as dg
import pytest
from dagster_scenario import Scenario

ON = dg.DefaultSensorStatus.RUNNING
MISSING = dg.AutomationCondition.missing() & ~dg.AutomationCondition.in_progress()


def pipeline(priorities: dict[str, str], started: list[str]) -> dg.Definitions:
    """A sensor that requests c, a and b, once, with these priorities; `started` tells which ran, in order."""

    def named(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def computed() -> None:
            started.append(name)

        return computed

    @dg.sensor(target="*", default_status=ON)
    def requests() -> list[dg.RunRequest]:
        return [
            dg.RunRequest(
                run_key=name,
                asset_selection=[dg.AssetKey(name)],
                tags={"dagster/priority": priorities[name]} if name in priorities else {},
            )
            for name in "cab"
        ]

    return dg.Definitions(assets=[named(name) for name in "abc"], sensors=[requests])


@pytest.mark.parametrize("limit", [1, 10])
@pytest.mark.parametrize(("priorities", "expected"), [({}, "cab"), ({"b": "5"}, "bca"), ({"c": "-1", "b": "1"}, "bac")])
def test_runs_start_in_the_order_of_the_queue(priorities: dict[str, str], expected: str, limit: int) -> None:
    started: list[str] = []
    with Scenario(settings={"run_queue": {"max_concurrent_runs": limit}}) as scenario:
        scenario.load(pipeline(priorities, started))
        scenario.run_until_quiet()
        assert "".join(started) == expected
        assert [run.assets[0] for run in scenario.timeline.runs.values()] == ["c", "a", "b"]


def test_runs_of_one_evaluation_of_conditions_start_in_the_order_of_their_names(scenario: Scenario) -> None:
    started: list[str] = []
    partitions = dg.StaticPartitionsDefinition(list("zyx"))

    @dg.asset(automation_condition=MISSING, partitions_def=partitions)
    def parts(context: dg.AssetExecutionContext) -> None:
        started.append(context.partition_key)

    automation = dg.AutomationConditionSensorDefinition("automation", target="*", default_status=ON)
    scenario.load(dg.Definitions(assets=[parts], sensors=[automation]))
    scenario.run_until_quiet()
    assert started == ["x", "y", "z"]


def test_runs_requested_by_hand_start_as_they_were_requested(scenario: Scenario) -> None:
    started: list[str] = []
    scenario.load(pipeline({}, started))
    scenario.stop_daemons("sensors")
    for name in "bca":
        scenario.materialize(name)
    scenario.tick()
    assert started == list("bca")
