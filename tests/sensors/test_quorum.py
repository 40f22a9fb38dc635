"""Conditions over several inputs, evaluated by Dagster itself: all of these, any of these, two of three."""

import random
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor

from sensors.automation import Quorum, on_input_change

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-04")
D1, D2, D3 = DAYS.get_partition_keys()
INPUTS = ("a", "b", "c")


class World:
    """Three inputs that others update, and a report of them."""

    def __init__(self, instance: dg.DagsterInstance, **quorum: Any) -> None:
        self.instance = instance
        self.cursor: AssetDaemonCursor | None = None

        @dg.asset(partitions_def=DAYS, deps=INPUTS, automation_condition=on_input_change(**quorum))
        def report() -> None: ...

        self.defs = dg.Definitions(assets=[*(dg.AssetSpec(name, partitions_def=DAYS) for name in INPUTS), report])

    def update(self, *inputs: str, day: str = D1) -> None:
        for name in inputs:
            self.instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=day))

    def tick(self) -> list[str]:
        """The days that this tick requests. Their runs end before the next tick."""
        result = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        days = sorted(day for day in result.get_requested_partitions(dg.AssetKey("report")) or () if day)
        for day in days:
            self.update("report", day=day)
        return days


def after_each(world: World, *updates: str) -> list[bool]:
    """Whether the first day is requested, in the tick after each of these updates."""
    requested = []
    world.tick()
    for names in updates:
        world.update(*names)
        days = world.tick()
        assert set(days) <= {D1}
        requested.append(bool(days))
        assert world.tick() == []
    return requested


@pytest.mark.parametrize(
    ("quorum", "updates", "requested"),
    [
        ({}, ["b", "a", "c", "a", "c"], [False, False, True, True, True]),
        ({"existing": 2}, ["b", "a", "c", "a"], [False, True, True, True]),
        ({"existing": 2}, ["b", "b", "b", "c"], [False, False, False, True]),
        ({"existing": "any"}, ["c", "a", "b", "c"], [True, True, True, True]),
        ({"updated": "all"}, ["abc", "a", "a", "c", "b", "abc"], [True, False, False, False, True, True]),
        ({"updated": 2}, ["abc", "a", "a", "c", "b", "a"], [True, False, False, True, False, True]),
        ({"existing": 1, "updated": 2}, ["c", "a", "b"], [True, False, True]),
    ],
)
def test_a_report_is_requested_as_soon_as_enough_of_its_inputs_are_there_or_new(
    instance: dg.DagsterInstance, quorum: dict[str, Quorum], updates: list[str], requested: list[bool]
) -> None:
    assert after_each(World(instance, **quorum), *updates) == requested


def test_a_number_of_inputs_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="updated=0: expected 'all', 'any', or at least 1"):
        on_input_change(updated=0)


def test_each_day_is_counted_by_itself(instance: dg.DagsterInstance) -> None:
    world = World(instance, existing=2)
    world.update("a", day=D1)
    world.update("b", day=D2)
    assert world.tick() == []
    world.update("c", day=D2)
    world.update("a", day=D3)
    assert world.tick() == [D2]
    world.update("c", day=D1)
    world.update("b", day=D3)
    assert world.tick() == [D1, D3]


def test_a_report_that_is_added_later_gets_every_day_that_has_enough_inputs(instance: dg.DagsterInstance) -> None:
    World(instance).update("a", "b", day=D1)
    World(instance).update("b", day=D2)
    World(instance).update("a", "b", "c", day=D3)
    assert World(instance, existing=2).tick() == [D1, D3]
    assert World(instance, existing="any").tick() == [D2]


def test_more_inputs_than_there_are_never_exist(instance: dg.DagsterInstance) -> None:
    assert after_each(World(instance, existing=4), "abc") == [False]


@pytest.mark.parametrize("quorum", [{}, {"existing": 2}, {"existing": "any"}, {"updated": "all"}, {"updated": 2}])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_in_any_order_of_updates_and_ticks_nothing_is_lost(
    instance: dg.DagsterInstance, quorum: dict[str, Quorum], seed: int
) -> None:
    """Updates of any input on any day; a run reads its inputs at the request, or after further updates."""
    chance = random.Random(seed)
    world = World(instance, **quorum)
    versions = {(day, name): 0 for day in (D1, D2, D3) for name in INPUTS}
    read = {day: dict.fromkeys(INPUTS, 0) for day in (D1, D2, D3)}
    for _ in range(15):
        if chance.random() < 0.6:
            day, name = chance.choice(list(versions))
            versions[day, name] += 1
            world.update(name, day=day)
        else:
            for day in world.tick():
                read[day] = {name: versions[day, name] for name in INPUTS}
    for day in world.tick():
        read[day] = {name: versions[day, name] for name in INPUTS}
    assert world.tick() == []

    number: dict[Quorum, int] = {"all": 3, "any": 1, 2: 2}
    existing, updated = number[quorum.get("existing", "all")], number[quorum.get("updated", "any")]
    for day in read:
        there = sum(versions[day, name] > 0 for name in INPUTS)
        behind = sum(versions[day, name] > read[day][name] for name in INPUTS)
        was_made = any(read[day].values())
        assert there < existing or (was_made and behind < updated), (day, versions, read[day])


def test_a_cursor_that_was_lost_loses_no_late_day_of_a_month(instance: dg.DagsterInstance) -> None:
    """Days and months are different partitions, so that the first tick has to look up which day is in which month."""
    days = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-04-01")
    months = dg.MonthlyPartitionsDefinition("2024-01-01", end_date="2024-04-01")

    @dg.asset(partitions_def=months, deps=["day"], automation_condition=on_input_change(existing="any"))
    def month() -> None: ...

    defs = dg.Definitions(assets=[dg.AssetSpec("day", partitions_def=days), month])

    def first_tick() -> set[str | None]:
        result = dg.evaluate_automation_conditions(defs, instance)
        return set(result.get_requested_partitions(dg.AssetKey("month")))

    def report(key: str, *partitions: str) -> None:
        for partition in partitions:
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))

    report("day", "2024-01-05", "2024-02-05", "2024-03-05")
    report("month", "2024-01-01", "2024-02-01", "2024-03-01")
    assert first_tick() == set()
    report("day", "2024-01-31", "2024-03-01")
    assert first_tick() == {"2024-01-01", "2024-03-01"}
