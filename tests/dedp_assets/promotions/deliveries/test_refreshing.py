"""The job `refresh_supermarket` in this process: which requests are refused, and what a run of it does."""

import re
from typing import Any

import dagster as dg
import psycopg2
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from dedp_assets.landing.delivery_copies import read_copy
from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.origin import ORIGIN_TAG
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.deliveries.refresh_request import RefusedRequest, checked
from dedp_assets.promotions.generator import HEADER
from dedp_assets.request_ids import request_tag
from dedp_assets.resources.postgres import PostgresResource
from dedp_assets.runs.cli import latest_runs
from jobs.promotions import defs
from sensors.pipelines.promotions import deliveries_of
from sensors.pipelines.promotions_reconciled import Progress
from sensors.reconciliation import Waiting
from tests.ticks import SensorTicks

JOB = defs.resolve_job_def("refresh_supermarket")


class Shop:
    """The code location with a database and an instance."""

    def __init__(self, instance: dg.DagsterInstance, dsn: str) -> None:
        self.instance, self.dsn = instance, dsn

    def deliver(self, supplier: str, day: str, price: str = "2", *, marker: bool = True) -> None:
        folder = contract.landing_folder() / supplier / day
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data-1.csv").write_text(f"{HEADER}\n1,milk,{price},1,2024-01-05,2024-01-06\n")
        if marker:
            (folder / "_SUCCESS").touch()

    def ask(self, request: dict[str, Any], **tags: str) -> dg.DagsterRun:
        """A run that is queued."""
        return self.instance.create_run_for_job(JOB, run_config=request, tags=tags)

    def start(self, run: dg.DagsterRun) -> dg.DagsterRun:
        """The run after it has ended."""
        execute_run(InMemoryJob(JOB), run, self.instance)
        ended = self.instance.get_run_by_id(run.run_id)
        assert ended
        return ended

    def refresh(self, **request: Any) -> dg.DagsterRun:
        """A run of a request, after it has ended."""
        return self.start(self.ask(request))

    def ticks(self, name: str) -> SensorTicks:
        (sensor,) = [each for each in defs.sensors or () if each.name == name]
        assert isinstance(sensor, dg.SensorDefinition)
        resources = {"postgres": PostgresResource(dsn=self.dsn), "notifier": NotifierResource()}
        needed = {key: each for key, each in resources.items() if key in sensor.required_resource_keys}
        return SensorTicks(sensor, self.instance, definitions=defs, resources=needed)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.dsn)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()
        finally:
            connection.close()

    def loaded(self) -> dict[str, int]:
        """The load number of each delivery that is loaded and measured."""
        return dict(
            self.query(
                "SELECT supplier || '|' || day, load_number FROM dedp.promotion_deliveries "
                "JOIN dedp.promotion_metrics USING (supplier, day, load_number)"
            )
        )


@pytest.fixture
def shop(instance: dg.DagsterInstance, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    return Shop(instance, dsn)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"supermarket_id": 7}, "there is no supermarket 7; expected one of 1, 2, 3, 4"),
        ({"supermarket_id": 0}, "there is no supermarket 0"),
        ({"supermarket_id": "one"}, 'not valid for expected type "Int"'),
        ({"supermarket_id": "1"}, 'not valid for expected type "Int"'),
        ({"supermarket_id": True}, 'not valid for expected type "Int"'),
        ({"supermarket_id": 1.0}, 'not valid for expected type "Int"'),
        ({"supermarket_id": None}, "root:supermarket_id must not be None"),
        # Names of variables, whose values a refusal would show.
        ({"supermarket_id": {"env": "PATH"}}, 'not valid for expected type "Int"'),
        ({"supermarket_id": 1, "day": {"env": "PATH"}}, 'not valid for expected type "String"'),
        ({}, 'Missing required config entry "supermarket_id"'),
        ({"supermarket_id": 1, "days": 2}, 'unexpected config entry "days"'),
        ({"supermarket_id": 1, "day": 20240105}, 'not valid for expected type "String"'),
        ({"supermarket_id": 1, "day": "today"}, "expected a day from 2024-01-01 to"),
        ({"supermarket_id": 1, "day": ""}, "expected a day from 2024-01-01 to"),
        ({"supermarket_id": 1, "day": "2024-1-5"}, "found '2024-1-5'"),
        ({"supermarket_id": 1, "day": "2024-02-30"}, "found '2024-02-30'"),
        ({"supermarket_id": 1, "day": "2023-12-31"}, "found '2023-12-31'"),
        ({"supermarket_id": 1, "day": "2999-01-01"}, "found '2999-01-01'"),
        ({"supermarket_id": 1, "again": "yes"}, 'not valid for expected type "Bool"'),
    ],
)
def test_a_request_that_is_not_valid_gets_a_reason_and_no_run(
    instance: dg.DagsterInstance, request_: dict[str, Any], reason: str
) -> None:
    with pytest.raises((dg.DagsterInvalidConfigError, RefusedRequest), match=re.escape(reason)):
        instance.create_run_for_job(JOB, run_config=request_)
    assert instance.get_runs() == []


def test_a_number_names_the_supplier_that_ends_with_it_and_never_one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    def supplier(number: int) -> str:
        return checked({"supermarket_id": number}).supplier

    def suppliers(*names: str) -> None:
        known = dg.StaticPartitionsDefinition(names)
        monkeypatch.setattr("dedp_assets.promotions.deliveries.refresh_request.SUPPLIERS", known)

    suppliers("market2", "market12", "shop03")
    assert [supplier(number) for number in (2, 12, 3)] == ["market2", "market12", "shop03"]
    suppliers("market1", "shop1")
    with pytest.raises(RefusedRequest, match="several supermarkets 1 in DEDP_SUPPLIERS: market1, shop1"):
        supplier(1)
    suppliers("north", "south")
    with pytest.raises(RefusedRequest, match="no name in DEDP_SUPPLIERS has a number"):
        supplier(1)


def test_a_run_takes_the_day_that_was_asked_for_as_the_assets_would(shop: Shop) -> None:
    for day in ("2024-01-05", "2024-01-06"):
        shop.deliver("supermarket1", day)
    assert shop.refresh(supermarket_id=1, day="2024-01-05").is_success
    assert shop.loaded() == {"supermarket1|2024-01-05": 1}
    (run,) = shop.instance.get_runs()
    assert run.tags[ORIGIN_TAG] == "by hand"
    for key in (contract.RAW, contract.CLEANED, contract.METRICS):
        (record,) = shop.instance.fetch_materializations(key, limit=10).records
        assert (record.partition_key, record.run_id) == ("supermarket1|2024-01-05", run.run_id)
    check = dg.AssetCheckKey(contract.CLEANED, "lines_accounted_for")
    (latest,) = shop.instance.event_log_storage.get_asset_check_execution_history(check, limit=5)
    assert latest.status.value == "SUCCEEDED"


def test_without_a_day_the_latest_delivery_is_taken_that_is_complete_or_that_we_have_a_copy_of(shop: Shop) -> None:
    shop.deliver("supermarket1", "2024-01-05")
    shop.deliver("supermarket1", "2024-01-06")
    shop.deliver("supermarket1", "2024-01-07", marker=False)
    shop.deliver("supermarket1", "2999-01-01")
    shop.deliver("supermarket1", "no day")
    assert shop.refresh(supermarket_id=1).is_success
    assert shop.loaded() == {"supermarket1|2024-01-06": 1}
    (contract.landing_folder() / "supermarket1" / "2024-01-06" / "_SUCCESS").unlink()
    assert shop.refresh(supermarket_id=1, again=True).is_success
    assert shop.loaded() == {"supermarket1|2024-01-06": 2}


def test_what_is_loaded_is_loaded_again_only_if_somebody_asks_for_it(shop: Shop) -> None:
    shop.deliver("supermarket1", "2024-01-05")
    for _ in range(2):
        assert shop.refresh(supermarket_id=1).is_success
    assert shop.loaded() == {"supermarket1|2024-01-05": 1}
    assert shop.refresh(supermarket_id=1, day="2024-01-05", again=True).is_success
    assert shop.loaded() == {"supermarket1|2024-01-05": 2}


@pytest.mark.parametrize(
    ("day", "reason"),
    [({}, "supermarket1 has no complete delivery"), ({"day": "2024-01-05"}, "supermarket1/2024-01-05 does not exist")],
)
def test_what_was_not_delivered_fails_at_once_with_a_reason(shop: Shop, day: dict[str, str], reason: str) -> None:
    run = shop.refresh(supermarket_id=1, **day)
    (failure,) = shop.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert reason in str(failure.get_dagster_event().step_failure_data.error)


def test_the_same_request_twice_does_its_work_once(shop: Shop) -> None:
    shop.deliver("supermarket1", "2024-01-05")
    request = {"supermarket_id": 1, "again": True}
    first, second = shop.ask(request, **request_tag("order 17")), shop.ask(request, **request_tag("order 17"))
    assert shop.start(second).status == dg.DagsterRunStatus.CANCELED
    assert shop.start(first).is_success
    assert shop.loaded() == {"supermarket1|2024-01-05": 1}


def test_a_delivery_that_a_request_takes_is_not_taken_by_a_sensor_as_well(shop: Shop) -> None:
    tick = shop.ticks("promotions_delivered")
    shop.deliver("supermarket1", "2024-01-05")
    shop.deliver("supermarket2", "2024-01-05")
    run = shop.ask({"supermarket_id": 1, "day": "2024-01-05"})
    (request,) = tick().run_requests
    assert request.partition_key == "supermarket2|2024-01-05"
    assert shop.start(run).is_success
    tick.cursor = None
    assert [request.partition_key for request in tick().run_requests] == ["supermarket2|2024-01-05"]


def test_a_delivery_that_a_request_takes_is_not_reconciled_meanwhile(shop: Shop) -> None:
    delivery = Delivery("supermarket1", "2024-01-05")
    shop.deliver(*delivery)
    assert shop.refresh(supermarket_id=1).is_success
    shop.query("DELETE FROM dedp.promotion_deliveries RETURNING 1")
    copy = read_copy(contract.internal_folder(delivery))
    assert copy
    behind = Progress(waiting={delivery.key: Waiting(f"not loaded: {copy.version}", 0, 1.0)}).to_json()
    tick = shop.ticks("promotions_reconciled")
    run = shop.ask({"supermarket_id": 1, "day": "2024-01-05"})
    tick.cursor = behind
    assert tick().run_requests == []
    shop.instance.report_run_canceled(run)
    tick.cursor = behind
    assert [request.partition_key for request in tick().run_requests] == [delivery.key]


def test_the_delivery_of_a_run_is_known_once_it_has_chosen_one(shop: Shop) -> None:
    shop.deliver("supermarket1", "2024-01-05")
    run = shop.ask({"supermarket_id": 1})
    assert list(deliveries_of(run)) == []
    assert list(deliveries_of(shop.start(run))) == [("supermarket1", "2024-01-05")]
    assert [row.partition for row in latest_runs(shop.instance, ["by hand"], 5)] == ["supermarket1|2024-01-05"]
