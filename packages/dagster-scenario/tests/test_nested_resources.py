"""A resource that another one holds is swapped there, too."""

from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario
from pydantic import PrivateAttr


class Warehouse(dg.ConfigurableResource[Any]):
    """It can't be had in a test: neither its password nor its server is there."""

    password: str

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        raise RuntimeError("no route to the warehouse")

    def rows(self) -> list[str]:
        raise RuntimeError("no route to the warehouse")


class FakeWarehouse(dg.ConfigurableResource[Any]):
    _asked: list[str] = PrivateAttr(default_factory=list)
    name: str = "fake"

    def rows(self) -> list[str]:
        return [self.name]


class Reader(dg.ConfigurableResource[Any]):
    warehouse: Warehouse
    table: str

    def read(self) -> list[str]:
        return [f"{self.table} of {row}" for row in self.warehouse.rows()]


class Shop(dg.ConfigurableResource[Any]):
    reader: Reader

    def read(self) -> list[str]:
        return self.reader.read()


class WarehouseIO(dg.ConfigurableIOManager):
    warehouse: Warehouse

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        seen.extend(self.warehouse.rows())

    def load_input(self, context: dg.InputContext) -> Any:
        return self.warehouse.rows()


class Legacy(dg.ConfigurableResource[Any]):
    token: dg.ResourceDependency[str]

    def read(self) -> list[str]:
        return [self.token]


seen: list[str] = []
warehouse = Warehouse(password=dg.EnvVar("NO_SUCH_PASSWORD"))
reader = Reader(warehouse=warehouse, table="orders")
late = Warehouse.configure_at_launch()


@dg.resource
def token() -> str:
    raise RuntimeError("no token in a test")


@dg.asset
def by_reader(reader: Reader) -> None:
    seen.extend(reader.read())


@dg.asset
def by_shop(shop: Shop) -> None:
    seen.extend(shop.read())


@dg.asset
def by_late(late_reader: Reader) -> None:
    seen.extend(late_reader.read())


@dg.asset
def by_launch(launched: Reader) -> None:
    seen.extend(launched.read())


@dg.asset
def by_legacy(legacy: Legacy) -> None:
    seen.extend(legacy.read())


@dg.asset(io_manager_key="warehouse_io")
def by_io() -> int:
    return 1


@dg.sensor(target=by_reader, default_status=dg.DefaultSensorStatus.RUNNING)
def looking(shop: Shop) -> dg.SkipReason:
    return dg.SkipReason(", ".join(shop.read()))


COMPANY = dg.Definitions(
    assets=[by_reader, by_shop, by_late, by_launch, by_legacy, by_io],
    sensors=[looking],
    resources={
        "warehouse": warehouse,
        "reader": reader,
        "shop": Shop(reader=reader),
        "late": late,
        "late_reader": Reader(warehouse=late, table="late orders"),
        "launched": Reader.configure_at_launch(warehouse=warehouse),
        "token": token,
        "legacy": Legacy(token=token),
        "warehouse_io": WarehouseIO(warehouse=warehouse),
    },
)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


@pytest.mark.parametrize("fake", [FakeWarehouse(), FakeWarehouse(name=dg.EnvVar("SCENARIO_FAKE"))])
def test_what_holds_a_resource_that_was_swapped_has_the_one_in_its_place(
    scenario: Scenario, fake: FakeWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENARIO_FAKE", "fake")
    scenario.load(COMPANY, resources={"warehouse": fake, "late": fake, "token": "t"})
    config = {"resources": {"launched": {"config": {"table": "launched orders"}}}}
    scenario.materialize("by_reader", "by_shop", "by_late", "by_launch", "by_legacy", "by_io", run_config=config)
    scenario.run_until_quiet()
    scenario.expect_runs().none_failed()
    expected = ["orders of fake", "orders of fake", "late orders of fake", "launched orders of fake", "t", "fake"]
    assert sorted(seen) == sorted(expected)
    scenario.expect_sensor("looking").waiting(because="orders of fake")


def test_what_is_no_resource_can_stand_for_one_that_is_held(scenario: Scenario) -> None:
    class Fake:
        def rows(self) -> list[str]:
            return ["an object"]

    scenario.load(COMPANY, resources={"warehouse": Fake()})
    scenario.materialize("by_shop")
    scenario.run_until_quiet()
    assert seen == ["orders of an object"]


def test_a_holder_that_is_swapped_itself_is_held_by_others_as_it_was_given(scenario: Scenario) -> None:
    given = Reader(warehouse=warehouse, table="other orders")
    scenario.load(COMPANY, resources={"reader": given, "warehouse": FakeWarehouse()})
    scenario.materialize("by_reader", "by_shop")
    scenario.run_until_quiet()
    assert seen == ["other orders of fake"] * 2


def test_after_a_scenario_the_projects_resources_are_what_they_were(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_SUCH_PASSWORD", "secret")
    scenario.load(company=COMPANY, resources={"warehouse": FakeWarehouse()})
    scenario.load(company=COMPANY)
    scenario.materialize("by_reader")
    scenario.run_until_quiet()
    scenario.expect("by_reader").failed(error="no route to the warehouse")
