"""Code that arrives while the company is at work."""

import sys
import types
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster_scenario import Scenario, ScenarioError
from dagster_scenario.world.files import Folder
from orchard import warehouse as the_warehouse
from orchard.resources import Yard


def test_a_warehouse_that_opens_later_begins_with_the_last_prices_there_are(buying: Scenario) -> None:
    buying.materialize("quotes", "prices", partition="2024-03-25")
    buying.run_until_quiet()
    buying.load(warehouse="orchard.warehouse")
    buying.run_until_quiet()
    buying.expect_runs(job="print_labels").count(1).by_sensor("new_prices")
    buying.materialize("quotes", "prices", partition="2024-03-26")
    buying.run_until_quiet()
    labels = [run.tags["prices_of"] for run in buying.timeline.runs.values() if run.job == "print_labels"]
    assert labels == ["2024-03-25", "2024-03-26"]


def test_a_release_of_the_buyers_changes_what_the_next_run_does_and_keeps_what_was(buying: Scenario) -> None:
    buying.materialize("tariffs")
    buying.run_until_quiet()
    released = buying.mark("release")

    @dg.asset
    def tariffs() -> None:
        raise ValueError("customs has a new interface")

    buying.load(buying=dg.Definitions(assets=[tariffs]))
    buying.materialize("tariffs")
    buying.run_until_quiet()
    buying.expect("tariffs").failed(since=released, error="customs has a new interface")
    buying.expect("tariffs").materialized(times=1)
    with pytest.raises(ScenarioError, match="no asset 'landed_costs'"):
        buying.expect("landed_costs")


def test_a_release_renames_a_sensor_which_begins_anew(warehouse: Scenario, yard: Folder) -> None:
    """Its run keys belong to the sensor's name, so all the trucks of the morning are weighed again."""
    yard.drop("1.weight")
    yard.drop("B-AB-123.truck")
    warehouse.run_until_quiet()
    released = warehouse.mark("release")

    @dg.sensor(job=the_warehouse.weigh_truck, default_status=dg.DefaultSensorStatus.RUNNING)
    def lorries(yard: Yard) -> Iterator[dg.RunRequest]:
        yield from (dg.RunRequest(run_key=truck.name) for truck in yard.files("truck"))

    warehouse.load(
        warehouse=dg.Definitions(
            jobs=[the_warehouse.weigh_truck],
            sensors=[lorries],
            resources={"yard": Yard(folder=dg.EnvVar("ORCHARD_HOME"))},
        )
    )
    warehouse.run_until_quiet()
    warehouse.expect_runs(since=released).count(1).by_sensor("lorries")


def test_a_module_that_does_not_load_says_why(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = types.ModuleType("orchard_broken")
    monkeypatch.setitem(sys.modules, "orchard_broken", broken)
    with pytest.raises(ScenarioError, match=r"code location 'orchard_broken' does not load"):
        scenario.load("orchard_broken")
