"""What goes wrong at a wholesaler, and what is left of it in the morning."""

import json
from pathlib import Path
from typing import Any

import pytest
from dagster_scenario import Run, Scenario
from dagster_scenario.world.files import Folder


def minutes(run: Run) -> float:
    assert run.started is not None
    assert run.ended is not None
    return (run.ended - run.started).total_seconds() / 60


def test_a_busy_market_is_asked_again_after_a_minute(market: Scenario) -> None:
    market.fail("quotes", times=2, error="503")
    market.materialize("quotes", partition="2024-03-25")
    market.advance(minutes=5)
    market.expect("quotes").materialized("2024-03-25").by_hand()
    assert minutes(market.timeline.run(1)) == 2


def test_a_market_that_stays_busy_fails_the_run_which_the_daemon_then_retries(market: Scenario) -> None:
    market.fail("quotes", times=3, error="503")
    market.materialize("quotes", partition="2024-03-25")
    market.advance(minutes=10)
    market.expect("quotes").failed("2024-03-25", error="503")
    market.expect("quotes").materialized("2024-03-25").by_retry()


def test_a_market_that_gives_no_answer_is_left_alone_after_two_runs(market: Scenario) -> None:
    market.fail("quotes", times=None, before="orchard.buying.fetch_quotes", error=TimeoutError("no answer"))
    market.materialize("quotes", partition="2024-03-25")
    market.advance(minutes=10)
    market.expect("quotes").failed("2024-03-25", "2024-03-25", error="no answer")
    market.expect("quotes").not_materialized()


def test_only_the_partition_that_was_named_fails(buying: Scenario) -> None:
    buying.fail("landed_costs", times=None, partition="cherry")
    buying.materialize("tariffs")
    buying.run_until_quiet()
    buying.expect("landed_costs").materialized("apple", "pear")
    buying.expect("landed_costs").failed("cherry", "cherry", error="injected by the scenario")


def test_tariffs_that_change_while_pears_are_computed_are_lost_on_pears(buying: Scenario) -> None:
    buying.hold("landed_costs", partition="pear", at="end")
    buying.materialize("tariffs")
    buying.run_until_quiet()
    buying.expect("landed_costs").materialized("apple", "cherry")
    buying.expect("landed_costs").running("pear")

    changed = buying.mark("the tariffs change while pears are computed")
    buying.materialize("tariffs")
    buying.run_until_quiet()
    buying.release("landed_costs")
    buying.run_until_quiet()
    # What we have to live with while landed_costs is eager(): pears have the old tariff, and nobody will notice.
    buying.expect("landed_costs").materialized("apple", "cherry", "pear", since=changed)


KILLED: dict[str, dict[str, Any]] = {
    "before it begins": {"at": "start"},
    "after it has computed": {"at": "end"},
    "before it asks the market": {"before": "orchard.buying.fetch_quotes"},
    "after the market has answered": {"after": "orchard.buying.fetch_quotes"},
}


@pytest.mark.parametrize("point", KILLED.values(), ids=KILLED)
def test_quotes_whose_process_is_killed_are_fetched_by_another_run(
    market: Scenario, home: Path, point: dict[str, Any]
) -> None:
    market.kill("quotes", **point)
    market.launch("buy", "2024-03-25")
    market.tick()
    market.expect("quotes").not_materialized()
    assert not (home / "crates").exists()

    market.advance(minutes=5)
    market.expect_runs(job="buy").count(2)
    market.expect("quotes").materialized("2024-03-25").by_retry()


def test_quotes_that_were_stored_but_not_recorded_are_stored_again(market: Scenario, home: Path) -> None:
    crate = home / "crates" / "quotes" / "2024-03-25.json"
    market.kill("quotes", after="orchard.crates.Crates.handle_output")
    market.launch("buy", "2024-03-25")
    market.tick()
    market.expect("quotes").not_materialized()
    assert json.loads(crate.read_text())["apple"] == 1.25

    crate.write_text("half of i")
    market.advance(minutes=5)
    market.expect("quotes").materialized("2024-03-25").by_retry()
    assert json.loads(crate.read_text())["apple"] == 1.25


def test_prices_whose_quotes_can_not_be_read_fail(market: Scenario) -> None:
    market.fail("prices", times=None, before="orchard.crates.Crates.load_input", error=OSError("disk is gone"))
    market.materialize("quotes", "prices", partition="2024-03-25")
    market.run_until_quiet()
    market.expect("quotes").materialized("2024-03-25")
    market.expect("prices").failed(error="disk is gone")


def test_long_runs_overlap_where_the_queue_allows_it(market: Scenario) -> None:
    market.takes("quotes", minutes=20)
    market.backfill("quotes", partitions=["2024-03-25", "2024-03-26"])
    market.advance(minutes=10)
    market.expect("quotes").running("2024-03-25", "2024-03-26")
    market.advance(minutes=15)
    market.expect("quotes").materialized("2024-03-25", "2024-03-26")


class TestOneRunAtATime:
    """The settings of the test environment, whose machine is small."""

    @pytest.fixture
    def scenario_settings(self) -> dict[str, Any]:
        return {"run_queue": {"max_concurrent_runs": 1}}

    def test_a_truck_that_waits_for_the_scales_keeps_everybody_else_waiting(
        self, warehouse: Scenario, yard: Folder
    ) -> None:
        yard.drop("B-AB-123.truck")
        warehouse.run_until_quiet()
        yard.drop("1-miller.note")
        warehouse.advance(minutes=20)
        warehouse.expect("deliveries").not_materialized()
        yard.drop("1.weight")
        warehouse.advance(minutes=6)
        warehouse.expect("deliveries").materialized("miller")

    def test_long_runs_come_one_after_another(self, market: Scenario) -> None:
        market.takes("quotes", minutes=20)
        market.backfill("quotes", partitions=["2024-03-25", "2024-03-26"])
        market.advance(minutes=45)
        first, second = (market.timeline.run(number) for number in (1, 2))
        assert minutes(first) == minutes(second) == 20
        assert first.ended is not None
        assert second.started is not None
        assert second.started >= first.ended

    def test_a_killed_run_keeps_the_only_slot_since_nobody_looks_after_it(self, market: Scenario) -> None:
        market.kill("quotes")
        market.backfill("quotes", partitions=["2024-03-25", "2024-03-26"])
        market.advance(hours=1)
        market.expect("quotes").not_materialized()
        killed, waiting = (market.timeline.run(number).status for number in (1, 2))
        assert (killed, waiting) == ("killed", "requested")
