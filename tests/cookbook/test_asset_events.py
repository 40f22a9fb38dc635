"""Events from outside reach the partition that they name, and a step may report assets that no code names."""

import dagster as dg
import pytest
from dagster_scenario import Scenario

from dedp_assets.cookbook import asset_events


class Queue(asset_events.Outside):
    """What others have put into the queue: its names are taken once."""

    def changed_shops(self) -> list[str]:
        taken, WAITING[:] = list(WAITING), []
        return taken


WAITING: list[str] = []


@pytest.fixture
def watching(scenario: Scenario) -> Scenario:
    WAITING.clear()
    scenario.load(asset_events.defs, resources={"outside": Queue()})
    scenario.turn_on()
    scenario.run_until_quiet()
    return scenario


def test_an_event_from_outside_runs_the_partition_that_it_names(watching: Scenario) -> None:
    WAITING.append("lyon")
    watching.happened("lyon has new prices")
    watching.run_until_quiet()
    watching.expect("price_tags").materialized("lyon").by_automation()

    again = watching.mark("and again, beside a new shop")
    WAITING.extend(["lyon", "ghent"])
    watching.happened("lyon and ghent have new prices")
    watching.run_until_quiet()
    watching.expect("price_tags").materialized("lyon", "ghent", since=again, in_any_order=True).by_automation()


def test_a_step_reports_assets_that_no_code_names(instance: dg.DagsterInstance) -> None:
    config = {"ops": {"load_tables": {"config": {"tables": ["orders", "shops"]}}}}
    asset_events.load_some_tables.execute_in_process(run_config=config, instance=instance)
    for table in ("orders", "shops"):
        assert instance.get_latest_materialization_event(dg.AssetKey(["cookbook_tables", table])) is not None
