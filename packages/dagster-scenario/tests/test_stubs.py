"""Resources that are swapped, and stubs that stand for what can't run in a test."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioError
from dagster_scenario.stubs import StandIns, Stub
from pydantic import PrivateAttr

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


class Warehouse(dg.ConfigurableResource[Any]):
    """A resource that can't be had in a test: neither its password nor its server is there."""

    password: str

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        raise RuntimeError("no route to the warehouse")

    def rows(self, table: str) -> list[str]:
        return [table]


class FakeWarehouse(dg.ConfigurableResource[Any]):
    _asked: list[str] = PrivateAttr(default_factory=list)

    def rows(self, table: str) -> list[str]:
        self._asked.append(table)
        return ["1"]


class WarehouseIO(dg.ConfigurableIOManager):
    """An IO manager that can't be had in a test either."""

    password: str

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        raise RuntimeError("no route to the warehouse")

    def load_input(self, context: dg.InputContext) -> Any:
        raise RuntimeError("no route to the warehouse")


def unreachable() -> dict[str, Any]:
    return {"warehouse": Warehouse(password=dg.EnvVar("NO_SUCH_PASSWORD")), "io_manager": dg.mem_io_manager}


# Resources


def test_runs_sensors_and_schedules_have_the_resources_that_were_given(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.asset
    def orders(warehouse: Warehouse) -> list[str]:
        return warehouse.rows("orders")

    @dg.asset_check(asset=orders)
    def there_are_orders(warehouse: Warehouse) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=bool(warehouse.rows("count")))

    @dg.sensor(target=orders, default_status=dg.DefaultSensorStatus.RUNNING)
    def looking(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.RunRequest:
        return dg.RunRequest(run_key=warehouse.rows("sensor")[0])

    @dg.schedule(cron_schedule="0 1 * * *", target=orders, default_status=dg.DefaultScheduleStatus.RUNNING)
    def nightly(warehouse: Warehouse) -> dg.RunRequest:
        return dg.RunRequest(run_key=warehouse.rows("schedule")[0])

    fake = FakeWarehouse()
    defs = dg.Definitions(
        assets=[orders],
        asset_checks=[there_are_orders],
        sensors=[looking],
        schedules=[nightly],
        resources=unreachable(),
    )
    scenario.load(company=defs, resources={"warehouse": fake})
    scenario.at("2024-01-02 02:00")
    scenario.expect_runs().count(3)
    scenario.expect_runs().none_failed()
    monkeypatch.setenv("NO_SUCH_PASSWORD", "secret")
    scenario.load(company=defs)
    scenario.materialize("orders")
    scenario.run_until_quiet()
    scenario.expect("orders").failed(error="no route to the warehouse")


def test_what_is_no_resource_can_stand_for_one(scenario: Scenario) -> None:
    class Fake:
        def rows(self, table: str) -> list[str]:
            return ["1", "2"]

    given = []

    @dg.asset
    def orders(warehouse: dg.ResourceParam[Any]) -> None:
        given.extend(warehouse.rows("orders"))

    @dg.op(required_resource_keys={"bound"})
    def old(context: dg.OpExecutionContext) -> None:
        given.append(context.resources.bound)

    @dg.job(resource_defs={"bound": dg.ResourceDefinition.string_resource()})
    def job() -> None:
        old()

    defs = dg.Definitions(assets=[orders], jobs=[job], resources=unreachable())
    scenario.load(defs, resources={"warehouse": Fake(), "bound": "fake"})
    scenario.materialize("orders")
    scenario.launch("job")
    scenario.run_until_quiet()
    assert sorted(given) == ["1", "2", "fake"]


def test_a_resource_that_is_not_there_is_refused(scenario: Scenario) -> None:
    with pytest.raises(ScenarioError, match=r"no resource 'warehose' in code location 'company'\. Did you mean 'wareh"):
        scenario.load(company=dg.Definitions(resources=unreachable()), resources={"warehose": 1})


# Stubs


@pytest.fixture
def company() -> dg.Definitions:
    """`orders` can't run, for three reasons; `report` reads it."""

    @dg.asset(
        io_manager_key="warehouse_io", check_specs=[dg.AssetCheckSpec("none_twice", asset="orders", blocking=True)]
    )
    def orders(warehouse: Warehouse):  # type: ignore[no-untyped-def]
        raise RuntimeError("not in a test")

    @dg.asset(io_manager_key="warehouse_io")
    def lines(orders: list[str]) -> list[str]:
        raise RuntimeError("not in a test")

    @dg.asset
    def report(lines: list[str]) -> str:
        return ",".join(lines)

    @dg.asset_check(asset=orders)
    def there_are_some(orders: list[str]) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=len(orders) > 0)

    return dg.Definitions(
        assets=[orders, lines, report],
        asset_checks=[there_are_some],
        resources={**unreachable(), "warehouse_io": WarehouseIO(password=dg.EnvVar("NO_SUCH_PASSWORD"))},
    )


def checks(scenario: Scenario) -> list[str]:
    return [event.text for event in scenario.timeline.events if event.kind == "checked"]


def materialization(scenario: Scenario, asset: str) -> dg.AssetMaterialization:
    event = scenario.instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization


def test_a_stub_stands_for_what_can_not_run_and_its_value_is_read_downstream(
    scenario: Scenario, company: dg.Definitions
) -> None:
    scenario.load(company)
    scenario.stub("orders", value=["a"], metadata={"rows": 1}, data_version="v1")
    scenario.stub("lines", value=["x", "y"])
    scenario.materialize("orders", "lines", "report")
    scenario.run_until_quiet()
    scenario.materialize("report")
    scenario.run_until_quiet()
    scenario.expect_runs().none_failed()
    scenario.expect("report").materialized(times=2)
    assert checks(scenario) == ["none_twice of orders passed", "there_are_some of orders passed"]
    orders = materialization(scenario, "orders")
    assert orders.metadata["rows"].value == 1
    assert orders.tags is not None
    assert orders.tags["dagster/data_version"] == "v1"


def test_the_value_is_the_one_that_was_materialized_last(scenario: Scenario) -> None:
    read = []

    @dg.asset
    def orders() -> int:
        raise RuntimeError("not in a test")

    @dg.asset
    def report(orders: int) -> None:
        read.append(orders)

    scenario.load(dg.Definitions(assets=[orders, report]))
    scenario.stub("orders", value=1)
    scenario.materialize("orders", "report")
    scenario.run_until_quiet()
    scenario.stub("orders", value=2)
    scenario.materialize("report")
    scenario.run_until_quiet()
    scenario.materialize("orders")
    scenario.run_until_quiet()
    scenario.materialize("report")
    scenario.run_until_quiet()
    assert read == [1, 1, 2]


def test_partitions_have_values_of_their_own(scenario: Scenario) -> None:
    read: list[object] = []

    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def orders() -> str:
        raise RuntimeError("not in a test")

    @dg.asset(partitions_def=DAYS)
    def day(orders: str) -> None:
        read.append(orders)

    @dg.asset
    def all_days(orders: dict[str, str]) -> None:
        read.append(orders)

    scenario.start("2024-01-04")
    scenario.load(dg.Definitions(assets=[orders, day, all_days]))
    scenario.stub("orders", value=lambda key: f"of {key}")
    scenario.backfill("orders", partitions=["2024-01-01", "2024-01-02", "2024-01-03"])
    scenario.run_until_quiet()
    scenario.expect("orders").materialized("2024-01-01", "2024-01-02", "2024-01-03").in_one_run()
    scenario.materialize("day", partition="2024-01-02")
    scenario.materialize("all_days")
    scenario.run_until_quiet()
    everything = {day: f"of {day}" for day in ("2024-01-01", "2024-01-02", "2024-01-03")}
    assert read in (["of 2024-01-02", everything], [everything, "of 2024-01-02"])


def test_a_stub_fails_as_it_is_told_and_its_retries_are_made(scenario: Scenario) -> None:
    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def orders() -> None: ...

    scenario.load(dg.Definitions(assets=[orders]))
    scenario.stub("orders", fails="the warehouse is closed")
    scenario.materialize("orders")
    scenario.run_until_quiet()
    scenario.expect("orders").failed(error="the warehouse is closed")
    assert [event.kind for event in scenario.timeline.events].count("step failed") == 3
    scenario.stub("orders", fails=OSError(28, "No space left on device"))
    scenario.materialize("orders")
    scenario.run_until_quiet()
    scenario.expect("orders").failed(error="")
    scenario.stub("orders")
    scenario.materialize("orders")
    scenario.run_until_quiet()
    scenario.expect("orders").materialized(times=1)


def test_a_check_comes_out_as_it_is_told(scenario: Scenario, company: dg.Definitions) -> None:
    scenario.load(company)
    scenario.stub("orders", value=[], checks={"none_twice": False})
    scenario.stub("lines")
    scenario.materialize("orders", "lines")
    scenario.run_until_quiet()
    # Its own step ran, on the stub's value; the other one is blocking.
    assert checks(scenario) == ["none_twice of orders did not pass"]
    scenario.expect("lines").not_materialized()
    scenario.stub("orders", value=[], checks={"there_are_some": True})
    scenario.materialize("orders")
    scenario.run_until_quiet()
    assert checks(scenario)[1:] == ["none_twice of orders passed", "there_are_some of orders passed"]
    with pytest.raises(ScenarioError, match=r"no check 'none_twise' of orders\. Did you mean 'none_twice'"):
        scenario.stub("orders", checks={"none_twise": True})


def test_everything_is_stubbed_but_what_is_to_be_tested(scenario: Scenario, company: dg.Definitions) -> None:
    scenario.load(company)
    scenario.stub("lines", value=["x", "y"])
    scenario.stub_all(except_=["report"])
    scenario.materialize("orders", "lines", "report")
    scenario.run_until_quiet()
    scenario.expect_runs().none_failed()
    assert checks(scenario) == ["none_twice of orders passed", "there_are_some of orders passed"]
    with pytest.raises(ScenarioError, match=r"no asset 'raport'.* Did you mean 'report'"):
        scenario.stub_all(except_=["raport"])


def test_every_kind_of_computation_can_be_stubbed(scenario: Scenario) -> None:
    def refuse() -> None:
        raise RuntimeError("not in a test")

    @dg.multi_asset(
        specs=[dg.AssetSpec("left", skippable=True), dg.AssetSpec("right", skippable=True)], can_subset=True
    )
    def both() -> Iterator[dg.MaterializeResult[Any]]:
        refuse()
        yield dg.MaterializeResult("left")

    @dg.op(out=dg.DynamicOut())
    def many() -> Iterator[dg.DynamicOutput[int]]:
        refuse()
        yield dg.DynamicOutput(1, "one")

    @dg.op
    def each(one: int) -> int:
        refuse()
        return one

    @dg.op
    def together(all_of_them: list[int]) -> int:
        refuse()
        return sum(all_of_them)

    @dg.graph_asset
    def basket() -> int:
        return together(many().map(each).collect())  # type: ignore[no-any-return]

    @dg.observable_source_asset
    def watched() -> dg.DataVersion:
        refuse()
        return dg.DataVersion("real")

    @dg.asset
    async def awaited() -> None:
        refuse()

    read = []

    @dg.asset
    def reads(basket: int, left: Any) -> None:
        read.extend([basket, left])

    @dg.op
    def extract() -> int:
        refuse()
        return 0

    @dg.op
    def load(extracted: int) -> None:
        read.append(extracted)

    @dg.job
    def etl() -> None:
        load(extract.alias("first")())

    scenario.load(dg.Definitions(assets=[both, basket, watched, awaited, reads], jobs=[etl]))
    scenario.stub("left", value="l")
    scenario.stub("basket", value=7)
    scenario.stub("watched", data_version="v7")
    scenario.stub("awaited")
    scenario.stub("first", value=5)
    scenario.materialize("left")
    scenario.materialize("left", "right")
    scenario.materialize("basket", "awaited")
    scenario.run_until_quiet()
    scenario.materialize("reads")
    scenario.launch("etl")
    scenario.run_until_quiet()
    scenario.expect_runs().none_failed()
    scenario.expect("left").materialized(times=2)
    scenario.expect("right").materialized(times=1)
    scenario.expect("basket").materialized(times=1)
    assert sorted(read, key=str) == [5, 7, "l"]


def test_an_observation_has_the_version_of_its_stub(scenario: Scenario) -> None:
    @dg.observable_source_asset(automation_condition=dg.AutomationCondition.cron_tick_passed("0 * * * *"))
    def watched() -> dg.DataVersion:
        raise RuntimeError("not in a test")

    scenario.load(dg.Definitions(assets=[watched]))
    scenario.turn_on("default_automation_condition_sensor")
    scenario.stub("watched", data_version="v7")
    scenario.advance(hours=1, minutes=5)
    scenario.expect_runs().none_failed()
    (event,) = scenario.instance.fetch_observations(dg.AssetKey("watched"), limit=10).records
    assert event.asset_observation is not None
    assert event.asset_observation.tags["dagster/data_version"] == "v7"
    scenario.expect("watched").not_materialized()


def test_faults_lie_in_stubs_too(scenario: Scenario, company: dg.Definitions) -> None:
    scenario.load(company)
    scenario.stub_all()
    scenario.fail("orders", at="end")
    scenario.takes("lines", minutes=10)
    scenario.kill("report")
    scenario.materialize("orders")
    scenario.run_until_quiet()
    scenario.expect("orders").failed()
    scenario.materialize("lines")
    scenario.advance(minutes=5)
    scenario.expect("lines").running()
    scenario.advance(minutes=5)
    scenario.materialize("report")
    scenario.run_until_quiet()
    assert scenario.timeline.run(3).status == "killed"


def test_an_external_asset_can_have_a_value(scenario: Scenario) -> None:
    read = []

    @dg.asset(ins={"orders": dg.AssetIn(key="orders")})
    def report(orders: int) -> None:
        read.append(orders)

    scenario.load(dg.Definitions(assets=[dg.AssetSpec("orders"), report]))
    scenario.stub("orders", value=3)
    scenario.report("orders")
    scenario.materialize("report")
    scenario.run_until_quiet()
    assert read == [3]


def test_only_what_is_there_can_be_stubbed(scenario: Scenario, company: dg.Definitions) -> None:
    scenario.load(company)
    with pytest.raises(ScenarioError, match=r"no asset or op 'order' .* Did you mean 'orders'"):
        scenario.stub("order")


def test_after_a_scenario_everything_is_as_it_was(company: dg.Definitions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_SUCH_PASSWORD", "secret")
    for _ in range(2):
        with Scenario() as scenario:
            scenario.load(company)
            scenario.materialize("lines")
            scenario.run_until_quiet()
            scenario.expect("lines").failed()
            scenario.stub_all()
            scenario.materialize("lines")
            scenario.run_until_quiet()
            scenario.expect("lines").materialized(times=1)


def value_of(partition: str | None) -> str:
    return f"of {partition}"


def test_what_can_not_be_sent_to_another_process_is_refused_with_its_name() -> None:
    stand_ins = StandIns()
    stand_ins.stubs["orders"] = Stub("orders", value=value_of)
    stand_ins.check_that_they_can_be_sent()
    stand_ins.stubs["lines"] = Stub("lines", value=lambda partition: partition)
    with pytest.raises(ScenarioError, match="what stands for lines can't be given to the process of a run"):
        stand_ins.check_that_they_can_be_sent()


# What a stub needs: nothing


class Limits(dg.Config):
    limit: int


def test_a_stub_needs_neither_the_config_of_what_it_stands_for_nor_that_of_its_resources(scenario: Scenario) -> None:
    @dg.asset(io_manager_key="shelf")
    def orders(config: Limits, warehouse: Warehouse) -> None:
        raise RuntimeError("not in a test")

    @dg.asset(
        config_schema={"limit": int},
        required_resource_keys={"bucket"},
        automation_condition=dg.AutomationCondition.eager(),
        deps=[orders],
    )
    def lines(context: dg.AssetExecutionContext) -> None:
        raise RuntimeError("not in a test")

    @dg.op
    def counted(config: Limits) -> int:
        raise RuntimeError("not in a test")

    @dg.config_mapping
    def same_for_all(config: Limits) -> dg.RunConfig:
        return dg.RunConfig(ops={"counted": config})

    @dg.graph_asset(config=same_for_all)
    def basket() -> int:
        return counted()  # type: ignore[no-any-return]

    @dg.asset
    def report(orders: int) -> None:
        read.append(orders)

    @dg.resource(config_schema={"name": str})
    def bucket(context: dg.InitResourceContext) -> str:
        raise RuntimeError("not in a test")

    @dg.io_manager(config_schema={"path": str}, required_resource_keys={"disk"})
    def shelf(context: dg.InitResourceContext) -> dg.IOManager:
        raise RuntimeError("not in a test")

    @dg.resource(config_schema={"path": str})
    def disk(context: dg.InitResourceContext) -> str:
        raise RuntimeError("not in a test")

    read: list[int] = []
    job = dg.define_asset_job("all_of_it", "*")
    resources = {
        "bucket": bucket,
        "shelf": shelf,
        "disk": disk,
        "warehouse": Warehouse.configure_at_launch(),
        "io_manager": dg.mem_io_manager,
    }
    scenario.load(dg.Definitions(assets=[orders, lines, basket, report], jobs=[job], resources=resources))
    scenario.stub("orders", value=3)
    scenario.stub("lines")
    scenario.stub("basket")
    scenario.turn_on("default_automation_condition_sensor")
    scenario.materialize("orders", "basket", "report")
    scenario.run_until_quiet()
    scenario.launch("all_of_it")
    scenario.run_until_quiet()
    given: dict[str, Any] = {
        "ops": {"orders": {"config": {"limit": 3}}, "basket": {"config": {"limit": 4}}, "lines": {"config": {"no": 1}}}
    }
    scenario.materialize("orders", "basket", "lines", run_config=given)
    scenario.run_until_quiet()
    scenario.expect_runs().none_failed()
    scenario.expect("lines").materialized(at_least=True)
    scenario.expect("orders").materialized(times=3)
    scenario.expect("basket").materialized(times=3)
    assert read == [3, 3]
