"""The condition that downstream assets follow, evaluated by Dagster itself on a real instance."""

import logging
import os
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
from dagster import AutomationCondition
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.declarative_automation.automation_condition_tester import (
    EvaluateAutomationConditionsResult,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.events import StepMaterializationData
from dagster._core.execution.api import execute_run

from sensors.automation import automation_sensor, behind_by_events, in_ranges, on_input_change

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-05")
D1, D2, D3, D4 = DAYS.get_partition_keys()


class World:
    """Three assets in a row; the first is updated from outside, the others follow by the condition."""

    def __init__(self, instance: dg.DagsterInstance, condition: AutomationCondition[Any] | None = None) -> None:
        condition = condition or on_input_change()
        self.instance = instance
        self.cursor: AssetDaemonCursor | None = None

        @dg.asset(partitions_def=DAYS)
        def source() -> None: ...

        @dg.asset(deps=[source], partitions_def=DAYS, automation_condition=condition)
        def raw() -> None: ...

        @dg.asset(deps=[raw], partitions_def=DAYS, automation_condition=condition)
        def totals() -> None: ...

        self.defs = dg.Definitions(assets=[source, raw, totals], executor=dg.in_process_executor)

    def run(self, *names: str, days: list[str], tags: dict[str, str] | None = None) -> None:
        """One run over consecutive days, as a daemon would launch it: with its assets selected."""
        self.end(self.request(*names, days=days, tags=tags))

    def request(self, *names: str, days: list[str], tags: dict[str, str] | None = None) -> dg.DagsterRun:
        """Make the run, as a daemon does when it launches one; it is under way until `end`."""
        tags = {
            "dagster/asset_partition_range_start": days[0],
            "dagster/asset_partition_range_end": days[-1],
            **(tags or {}),
        }
        selection = frozenset(dg.AssetKey(name) for name in names)
        return self.instance.create_run_for_job(self._job(selection), tags=tags, asset_selection=selection)

    def end(self, run: dg.DagsterRun) -> None:
        """Let a run that was requested do its work."""
        assert run.asset_selection
        assert execute_run(InMemoryJob(self._job(run.asset_selection)), run, self.instance).success

    def _job(self, selection: Collection[dg.AssetKey]) -> dg.JobDefinition:
        return self.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(selection))

    def tick(self) -> dict[str, list[str]]:
        """What this tick requests: days per asset."""
        result = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        requested = {
            name: sorted(day for day in result.get_requested_partitions(dg.AssetKey(name)) or () if day)
            for name in ("raw", "totals")
        }
        return {name: days for name, days in requested.items() if days}


def test_an_update_of_any_day_is_followed_downstream_in_one_go(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    world.tick()
    world.run("source", days=[D1])
    assert world.tick() == {"raw": [D1], "totals": [D1]}


def test_late_data_in_an_old_day_re_runs_that_day_and_no_other(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    for day in (D1, D2, D3):
        world.run("source", "raw", "totals", days=[day])
    world.tick()
    assert world.tick() == {}
    world.run("source", days=[D1])
    assert world.tick() == {"raw": [D1], "totals": [D1]}


def test_in_the_first_tick_what_was_updated_after_it_was_made_is_behind(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    world.run("source", "raw", "totals", days=[D1])
    world.run("source", "raw", "totals", days=[D2])
    world.run("source", days=[D2])
    run = world.request("raw", "totals", days=[D3])
    world.run("source", days=[D3])
    world.end(run)
    assert world.tick() == {"raw": [D2, D3], "totals": [D2, D3]}
    world.run("raw", "totals", days=[D2, D3])
    assert world.tick() == {}


def test_a_cursor_that_was_lost_loses_no_update(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    for day in (D1, D2):
        world.run("source", "raw", "totals", days=[day])
    world.tick()
    world.run("source", days=[D1])
    world.cursor = None
    assert world.tick() == {"raw": [D1], "totals": [D1]}


def test_what_was_requested_again_and_failed_is_behind() -> None:
    updated, made = {D1: 5, D2: 5, D3: 5, D4: 5}, {D1: 3, D2: 7, D3: 7}
    assert behind_by_events(updated, made, {D1: 2, D2: 6, D3: 4}) == {D1, D3}
    assert behind_by_events(updated, made, {D1: 8, D2: 6}) == {D1}


def test_an_update_between_the_request_and_the_next_tick_is_not_lost(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    world.run("source", days=[D2])
    assert world.tick() == {"raw": [D2], "totals": [D2]}
    run = world.request("raw", "totals", days=[D2])
    world.run("source", days=[D2])
    world.end(run)
    assert world.tick() == {"raw": [D2], "totals": [D2]}


def test_an_update_that_a_tick_saw_before_its_event_is_not_followed_twice(instance: dg.DagsterInstance) -> None:
    """A tick decides by the events up to its beginning; inputs that appear while it decides it sees all the same."""
    world = World(instance)
    world.run("source", days=[D2])
    world.tick()
    world.run("raw", "totals", days=[D2])
    world.tick()
    before = world.cursor
    world.run("source", days=[D2])
    assert world.tick() == {"raw": [D2], "totals": [D2]}
    world.run("raw", "totals", days=[D2])
    world.cursor = before  # as if the update's event had come after that tick's beginning
    assert world.tick() == {}


def test_several_days_that_finish_in_one_tick_are_not_run_twice(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    world.run("source", days=[D1, D2, D3])
    assert world.tick() == {"raw": [D1, D2, D3], "totals": [D1, D2, D3]}
    for day in (D1, D2, D3):
        world.run("raw", "totals", days=[day])
    assert world.tick() == {}
    assert world.tick() == {}


def test_dagsters_own_rule_would_run_them_twice(instance: dg.DagsterInstance) -> None:
    updated = AutomationCondition.any_deps_updated()
    world = World(
        instance,
        (AutomationCondition.newly_missing() | updated).since(AutomationCondition.newly_requested() & ~updated)
        & ~AutomationCondition.any_deps_missing()
        & ~AutomationCondition.in_progress(),
    )
    world.run("source", days=[D1, D2, D3])
    world.tick()
    for day in (D1, D2, D3):
        world.run("raw", "totals", days=[day])
    assert world.tick() == {"totals": [D1, D2]}


def test_an_input_that_is_updated_alone_is_followed(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    world.run("source", "raw", "totals", days=[D1, D2])
    world.tick()
    world.tick()
    world.run("raw", days=[D1, D2])
    assert world.tick() == {"totals": [D1, D2]}


def test_a_backfill_that_goes_on_downstream_by_itself_is_left_to_it(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    world.run("source", "raw", "totals", days=[D1, D2])
    world.tick()
    world.tick()
    backfill = _backfill(world, ["source", "raw", "totals"], [D1, D2])
    world.run("source", days=[D1, D2], tags={"dagster/backfill": backfill})
    assert world.tick() == {}


def test_a_backfill_of_the_input_alone_is_followed(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    world.run("source", "raw", "totals", days=[D1, D2])
    world.tick()
    world.tick()
    backfill = _backfill(world, ["source"], [D1, D2])
    world.run("source", days=[D1, D2], tags={"dagster/backfill": backfill})
    assert world.tick() == {"raw": [D1, D2], "totals": [D1, D2]}


def test_a_day_whose_input_is_missing_waits_for_it(instance: dg.DagsterInstance) -> None:
    world = World(instance)
    world.run("source", days=[D1])
    world.run("source", days=[D3])
    assert world.tick() == {"raw": [D1, D3], "totals": [D1, D3]}
    world.run("source", days=[D2])
    assert world.tick() == {"raw": [D2], "totals": [D2]}


def test_a_consumer_that_is_added_later_gets_every_day_that_is_there(instance: dg.DagsterInstance) -> None:
    World(instance).run("source", days=[D1, D2, D3])
    assert World(instance).tick() == {"raw": [D1, D2, D3], "totals": [D1, D2, D3]}


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_whatever_the_schedule_nothing_is_lost_and_runs_are_bounded(instance: dg.DagsterInstance, seed: int) -> None:
    """Updates, ticks, and requested runs that start (and read) and end at any time, over three days."""
    chance = random.Random(seed)
    world = World(instance)
    current = {day: 0 for day in (D1, D2, D3)}  # the version of the input
    reflected = {day: -1 for day in current}  # the version that the output shows
    waiting: list[tuple[str, dg.DagsterRun]] = []
    reading: dict[str, tuple[int, dg.DagsterRun]] = {}
    updates = runs = 0

    def tick() -> bool:
        requested = world.tick().get("raw", [])
        waiting.extend((day, world.request("raw", "totals", days=[day])) for day in requested)
        return bool(requested)

    def start() -> None:
        day, run = waiting.pop(0)
        reading[day] = current[day], run

    def end(day: str) -> None:
        nonlocal runs
        reflected[day], run = reading.pop(day)
        world.end(run)
        runs += 1

    for day in current:
        world.run("source", days=[day])
        current[day], updates = 1, updates + 1
    for _ in range(20):
        choices = ["update", "tick", *["start"] * bool(waiting), *["end"] * len(reading)]
        action = chance.choice(choices)
        if action == "update":
            day = chance.choice(list(current))
            world.run("source", days=[day])
            current[day], updates = current[day] + 1, updates + 1
        elif action == "tick":
            tick()
        elif action == "start" and waiting[0][0] not in reading:
            start()
        elif action == "end":
            end(chance.choice(list(reading)))
    while True:
        for day in list(reading):
            end(day)
        while waiting:
            start()
            end(next(iter(reading)))
        if not tick() and not tick():
            break

    assert reflected == current
    assert runs <= 2 * updates


def test_assets_without_partitions_are_followed_too(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def source() -> None: ...

    @dg.asset(deps=[source], automation_condition=on_input_change())
    def raw() -> None: ...

    def tick(cursor: AssetDaemonCursor | None = None) -> EvaluateAutomationConditionsResult:
        return dg.evaluate_automation_conditions(dg.Definitions(assets=[source, raw]), instance, cursor=cursor)

    before = tick()
    dg.materialize([source], instance=instance)
    updated = tick(before.cursor)
    dg.materialize([raw], instance=instance)
    followed = tick(updated.cursor)
    dg.materialize([source, raw], instance=instance)
    together = tick(followed.cursor)
    dg.materialize([source], instance=instance)
    again = tick(together.cursor)
    assert [result.total_requested for result in (before, updated, followed, together, again)] == [0, 1, 0, 0, 1]


def test_partitions_that_follow_one_another_share_a_request_if_they_ask_for_the_same() -> None:
    days = [f"2024-01-0{number}" for number in range(1, 10)]
    own, shared = dg.AssetKey("own"), dg.AssetKey("shared")

    def request(key: dg.AssetKey, day: str | None, **tags: str) -> dg.RunRequest:
        partition = {"dagster/partition": day} if day else {}
        return dg.RunRequest(asset_selection=[key], partition_key=day, tags=partition | tags)

    requests = [request(shared, days[number]) for number in (4, 0, 1, 2, 6)]
    requests += [request(shared, days[3], why="another"), request(own, days[0]), request(own, days[1])]
    ranges = in_ranges([*requests, request(own, None)], lambda keys: days if shared in keys else (), at_most=2)
    start, end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    assert [(each.partition_key, each.tags.get(start), each.tags.get(end)) for each in ranges] == [
        (None, days[0], days[1]),
        (days[2], None, None),
        (days[4], None, None),
        (days[6], None, None),
        (days[3], None, None),
        (days[0], None, None),
        (days[1], None, None),
        (None, None, None),
    ]
    assert "dagster/partition" not in ranges[0].tags
    assert ranges[1:5] == [requests[3], requests[0], requests[4], requests[5]]


def test_the_sensor_is_on_without_a_click_and_starts_runs_at_once() -> None:
    sensor = automation_sensor()
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert not sensor.emit_backfills


def _backfill(world: World, assets: list[str], days: list[str]) -> str:
    from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="abcdefgh",
        asset_graph=world.defs.resolve_asset_graph(),
        partition_names=days,
        asset_selection=[dg.AssetKey(name) for name in assets],
        backfill_timestamp=0.0,
        tags={},
        dynamic_partitions_store=world.instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    # The backfill is finished already. Otherwise the condition would wait for it, and the test would show nothing.
    finished = backfill._replace(status=BulkActionStatus.COMPLETED_SUCCESS)
    world.instance.add_backfill(finished)
    return backfill.backfill_id


@contextmanager
def counted_queries() -> Iterator[list[str]]:
    """Every statement that this process sends to a database until the block ends."""
    statements: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        # Not SQLite's own questions about the columns of its tables.
        if not statement.startswith("PRAGMA"):
            statements.append(statement)

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("updated_by", ["hand", pytest.param("runs with the asset", marks=pytest.mark.slow)])
def test_a_tick_asks_the_database_as_often_for_many_updated_partitions_as_for_one(
    instance: dg.DagsterInstance, updated_by: str
) -> None:
    days = dg.DailyPartitionsDefinition("2023-01-01", end_date="2023-11-01")
    source = dg.AssetSpec("source", partitions_def=days)

    @dg.asset(partitions_def=days, deps=[source], automation_condition=on_input_change())
    def raw() -> None: ...

    defs = dg.Definitions(assets=[source, raw])
    keys = days.get_partition_keys()[:300]

    def update(key: str, days: Collection[str], *assets: str) -> None:
        for day in days:
            materialization = dg.AssetMaterialization(key, partition=day)
            if not assets:
                instance.report_runless_asset_event(materialization)
                continue
            run = dg.DagsterRun(job_name="job", asset_selection=frozenset(map(dg.AssetKey, assets)))
            instance.run_storage.add_run(run)
            event = dg.DagsterEvent(
                dg.DagsterEventType.ASSET_MATERIALIZATION.value,
                "job",
                event_specific_data=StepMaterializationData(materialization),
            )
            instance.report_dagster_event(event, run.run_id)

    def tick(cursor: AssetDaemonCursor | None = None) -> tuple[int, int, AssetDaemonCursor]:
        with counted_queries() as statements:
            result = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
        return result.total_requested, len(statements), result.cursor

    for name in ("source", "raw"):
        update(name, keys)
    cursor = tick()[-1]
    taken: dict[str, list[int]] = {"a tick": [], "the first tick": []}
    for updated, so_far in ((keys[:1], 1), (keys[1:50], 50), (keys[50:], 300)):
        update("source", updated, *(["source", "raw"] if updated_by != "hand" else []))
        for which, queries in taken.items():
            requested, number, _ = tick(cursor if which == "a tick" else None)
            assert requested == (so_far if updated_by == "hand" else 0)
            queries.append(number)
    for few, *many in taken.values():
        assert max(many) <= few < 50


def test_the_sensor_waits_for_events_to_settle_unless_told_otherwise_and_importing_it_sets_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "DAGSTER_AUTOMATION_TICK_SETTLE_SECONDS"
    monkeypatch.setenv(name, "to be put back")
    monkeypatch.delenv(name)
    sensors = automation_sensor(), automation_sensor().with_attributes(metadata={"some": "thing"})
    assert name not in os.environ
    assert sensors[1].metadata["some"].value == "thing"
    for sensor in sensors:
        monkeypatch.delenv(name, raising=False)
        assert waited(sensor) == ["Sleeping 0.5s"]
        monkeypatch.setenv(name, "0")
        assert waited(sensor) == []


def waited(sensor: dg.AutomationConditionSensorDefinition) -> list[str]:
    """What a tick of the sensor in this process says of its pause."""

    @dg.asset(automation_condition=on_input_change())
    def source() -> None: ...

    said: list[str] = []
    defs = dg.Definitions(assets=[source], sensors=[sensor])
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, repository_def=defs.get_repository_def())
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage().split(" before")[0])  # type: ignore[method-assign]
        context.log.addHandler(handler)
        defs.get_repository_def().get_sensor_def(sensor.name).evaluate_tick(context)
    return [words for words in said if words.startswith("Sleeping")]
