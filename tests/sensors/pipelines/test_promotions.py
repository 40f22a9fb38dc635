"""Ticks of the sensors over deliveries: what they request, and what a lost cursor or a second tick changes."""

import time
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
from pydantic import ValidationError

from dedp_assets.landing import deliveries
from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.origin import ORIGIN_TAG
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries.config import ToTake
from dedp_assets.promotions.deliveries.tables import LoadState
from dedp_assets.resources.postgres import PostgresResource
from jobs.promotion_reports import defs as reports
from jobs.promotions import defs
from sensors.pipelines.promotions import deliveries_of
from sensors.pipelines.promotions_reconciled import Progress, compared_until, loads_behind
from sensors.reconciliation import Waiting
from tests.ticks import SensorTicks

HEADER = "product_id,product,price,promotion_price,starts_on,ends_on"
NORTH, SOUTH = Delivery("supermarket1", "2024-01-05"), Delivery("supermarket2", "2024-01-05")


class System:
    """The code location with a database and an instance: ticks of its sensor, and its runs."""

    def __init__(self, instance: dg.DagsterInstance, dsn: str, home: Path) -> None:
        self.instance, self.home = instance, home
        self.resources = {"postgres": PostgresResource(dsn=dsn), "notifier": NotifierResource()}
        (sensor,) = [each for each in defs.sensors or () if each.name == "promotions_delivered"]
        assert isinstance(sensor, dg.SensorDefinition)
        self.tick = SensorTicks(sensor, instance, definitions=defs, resources=self.resources)

    def deliver(self, delivery: Delivery, price: str = "2") -> None:
        folder = self.home.joinpath("landing", "promotions", *delivery)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data-1.csv").write_text(f"{HEADER}\n1,milk,{price},1,2024-01-05,2024-01-06\n")
        (folder / "_SUCCESS").touch()

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        job = defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            run_config=request.run_config,
            instance=self.instance,
            partition_key=request.partition_key,
            asset_selection=request.asset_selection,
            tags=dict(request.tags),
        )


@pytest.fixture
def system(instance: dg.DagsterInstance, dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    return System(instance, dsn, own_home)


def test_a_run_is_told_what_it_takes_and_says_what_has_started_it(system: System) -> None:
    system.deliver(NORTH)
    (request,) = system.tick().run_requests
    assert request.partition_key == "supermarket1|2024-01-05"
    assert request.tags[ORIGIN_TAG] == "file"
    (told,) = request.run_config["ops"]["promotion_deliveries"]["config"]["deliveries"]
    assert [told["supplier"], told["day"]] == [*NORTH]
    assert told["look"]
    assert told["ready_at"]
    system.deliver(SOUTH)
    system.deliver(NORTH, price="3")
    (shared,) = system.tick().run_requests
    assert shared.partition_key is None
    assert system.run(shared).success
    run = system.instance.get_runs()[0]
    assert set(deliveries_of(run)) == {NORTH, SOUTH}
    assert system.tick().run_requests == []


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"cursor": 99}'])
def test_a_lost_or_damaged_cursor_takes_nothing_again_and_what_is_new_once(system: System, damage: str) -> None:
    system.deliver(NORTH)
    (request,) = system.tick().run_requests
    assert system.run(request).success
    assert system.tick().run_requests == []
    system.tick.cursor = damage
    assert system.tick().run_requests == []
    system.deliver(SOUTH)
    system.tick.cursor = damage
    (again,) = system.tick().run_requests
    assert again.partition_key == "supermarket2|2024-01-05"
    assert system.tick().run_requests == []


def test_a_tick_whose_cursor_was_not_stored_requests_the_same_runs(system: System) -> None:
    system.tick()
    before = system.tick.cursor
    system.deliver(NORTH)
    (first,) = system.tick().run_requests
    system.tick.cursor = before
    (second,) = system.tick().run_requests
    assert first.run_key == second.run_key


def test_a_rewrite_in_a_folder_of_long_ago_is_found_at_a_glance_before_it_is_its_turn_to_be_scanned(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.deliver(NORTH)
    (request,) = system.tick().run_requests
    assert system.run(request).success
    monkeypatch.setattr(deliveries, "OLD_FOLDERS_PER_TICK", 0)
    assert system.tick().run_requests == []
    time.sleep(0.01)  # the clock of a file system may be as coarse
    system.deliver(NORTH, price="3")
    assert [each.partition_key for each in system.tick().run_requests] == [NORTH.key]


def test_by_hand_the_delivery_of_a_partition_is_taken_and_a_missing_one_is_named(system: System, dsn: str) -> None:
    for delivery in (NORTH, SOUTH):
        system.deliver(delivery)
    assert system.run(dg.RunRequest(partition_key=NORTH.key)).success
    with pytest.raises(dg.Failure, match="supermarket3/2024-01-05 does not exist; expected data files"):
        system.run(dg.RunRequest(partition_key="supermarket3|2024-01-05"))
    connection = psycopg2.connect(dsn)
    with connection.cursor() as cursor:
        cursor.execute("SELECT supplier FROM dedp.promotion_metrics")
        assert cursor.fetchall() == [("supermarket1",)]
    connection.close()


@pytest.mark.parametrize(
    ("location", "tags", "said"),
    [
        (defs, {"dagster/partition": "supermarket1|2023-12-31"}, "there is no partition 'supermarket1|2023-12-31'"),
        (defs, {}, "the run names no partition"),
        (reports, {"dagster/partition": "supermarket9|2024-01-05"}, "there is no partition 'supermarket9|2024-01-05'"),
    ],
)
def test_a_run_of_an_unknown_partition_fails_at_once_and_says_what_is_expected(
    system: System, location: dg.Definitions, tags: dict[str, str], said: str
) -> None:
    job = location.resolve_implicit_global_asset_job_def()
    with pytest.raises(dg.Failure) as failed:
        job.execute_in_process(instance=system.instance, tags=tags)
    assert str(failed.value.description).startswith(f"{said}; expected one of supermarket1|2024-01-01 to supermarket4|")
    events = system.instance.all_logs(system.instance.get_runs()[0].run_id)
    assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in [each.dagster_event_type for each in events]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"supplier": "../../etc"}, "expected a supplier of DEDP_SUPPLIERS"),
        (
            {"supplier": "supermarket9"},
            r"supermarket1, supermarket2, supermarket3, supermarket4\), found 'supermarket9'",
        ),
        ({"day": ".."}, "expected a day such as 2024-01-05"),
        ({"ready_at": "2024-01-05T18:00:00"}, "expected a time with its offset"),
    ],
)
def test_a_run_takes_no_delivery_of_nobody_or_of_no_day(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ToTake(**{"supplier": "supermarket1", "day": "2024-01-05", "look": "", "ready_at": "", **wrong})


def load(number: int, delivery: Delivery = NORTH, *, is_measured: bool = True) -> LoadState:
    return LoadState(delivery, f"version {number}", number, is_measured)


def test_a_load_is_behind_until_it_is_measured_and_reported() -> None:
    loads = [load(1), load(2, SOUTH, is_measured=False)]
    assert loads_behind(loads, {}) == {SOUTH: "not measured: load 2"}
    assert loads_behind(loads[:1], {NORTH: ""}) == {NORTH: "not reported: load 1"}
    assert loads_behind(loads[:1], {NORTH: "version 0"}) == {NORTH: "not reported: load 1"}
    assert loads_behind(loads[:1], {NORTH: "version 1"}) == {}


def test_loads_are_compared_once_and_again_from_the_first_one_that_is_behind() -> None:
    loads = [load(4), load(7, SOUTH), load(9, Delivery("supermarket3", "2024-01-05"))]
    assert compared_until(3, loads, {}) == 9
    assert compared_until(3, loads, {SOUTH: "why"}) == 6
    assert compared_until(3, [], {}) == 3


def test_the_progress_comes_back_as_it_was_and_a_damaged_one_begins_again() -> None:
    progress = Progress(7, 3, {NORTH.key: Waiting("why", 1, 2.0)})
    assert Progress.from_json(progress.to_json()) == progress
    for damaged in (None, "", "[]", "{", '{"waiting": 3}', '{"compared": "x"}'):
        assert Progress.from_json(damaged) == Progress()
