"""A run config that is not what a run asks for says so in plain words, before anything is requested."""

from enum import Enum
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioError
from pydantic import Field


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Limits(dg.Config):
    limit: int
    size: Size = Size.SMALL
    names: list[str] = Field(default_factory=list)


@dg.asset(key=["shop", "orders"])
def orders(config: Limits) -> None: ...


@dg.asset
def plain() -> None: ...


class Warehouse(dg.ConfigurableResource[Any]):
    port: int


@dg.asset
def report(warehouse: Warehouse) -> None: ...


COMPANY = dg.Definitions(
    assets=[orders, plain, report],
    jobs=[dg.define_asset_job("all_orders", [orders])],
    resources={"warehouse": Warehouse.configure_at_launch()},
)


def refused(scenario: Scenario, asset: str, run_config: dict[str, Any] | None = None) -> str:
    with pytest.raises(ScenarioError) as error:
        scenario.materialize(asset, run_config=run_config)
    return str(error.value)


def of(asset: str, config: Any) -> dict[str, Any]:
    return {"ops": {asset: {"config": config}}}


def test_what_is_missing_unknown_or_of_another_type_is_named_with_its_asset(scenario: Scenario) -> None:
    scenario.load(COMPANY)
    assert refused(scenario, "shop/orders").splitlines() == [
        "the run_config of materialize('shop/orders') is not what the run asks for:",
        "  shop/orders: limit is missing; expected a whole number",
        "as in run_config={'ops': {'shop__orders': {'config': {'limit': 0}}}}",
    ]
    assert refused(scenario, "shop/orders", of("shop__orders", {"limit": "ten", "size": "huge", "names": [1]})).split(
        "\n"
    ) == [
        "the run_config of materialize('shop/orders') is not what the run asks for:",
        "  shop/orders: limit is 'ten'; expected a whole number",
        "  shop/orders: names[0] is 1; expected a text",
        "  shop/orders: size is 'huge'; expected SMALL or LARGE, or None",
    ]
    assert refused(scenario, "shop/orders", of("shop__orders", {"limits": 1, "limit": 1})).splitlines()[1] == (
        "  shop/orders: there is no limits. Did you mean 'limit'?"
    )
    assert "  run config: there is no opps. Did you mean 'ops'?" in refused(scenario, "plain", {"opps": {}})
    assert "  resource warehouse: port is missing; expected a whole number" in refused(scenario, "report")
    scenario.expect_runs().count(0)


def test_the_config_of_a_job_is_told_the_same_way(scenario: Scenario) -> None:
    scenario.load(COMPANY)
    with pytest.raises(ScenarioError) as error:
        scenario.launch("all_orders")
    assert str(error.value).splitlines()[:2] == [
        "the run_config of launch('all_orders') is not what the run asks for:",
        "  shop/orders: limit is missing; expected a whole number",
    ]
    scenario.launch("all_orders", run_config=of("shop__orders", {"limit": 1}))
    scenario.run_until_quiet()
    scenario.expect_job("all_orders").succeeded(times=1)


def test_an_environment_variable_that_is_not_set_is_named(scenario: Scenario) -> None:
    scenario.load(COMPANY)
    said = refused(scenario, "shop/orders", of("shop__orders", {"limit": {"env": "NO_SUCH_LIMIT"}}))
    assert "NO_SUCH_LIMIT" in said.splitlines()[1]
    assert "Stack Trace" not in said


def test_a_job_whose_config_is_mapped_is_played_with_a_config_of_its_own(scenario: Scenario) -> None:
    @dg.config_mapping
    def mapped(request: Limits) -> dict[str, Any]:
        return of("shop__orders", {"limit": request.limit})

    job = dg.define_asset_job("some_orders", [orders], config=mapped)
    scenario.load(dg.Definitions(assets=[orders], jobs=[job]))
    scenario.launch("some_orders", run_config={"limit": 3})
    scenario.run_until_quiet()
    scenario.expect("shop/orders").materialized(times=1)
