"""The promotions' two code locations: made again after a change of logic, and with suppliers that stay silent."""

from datetime import date
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from dagster_scenario import Scenario

from dedp_assets.promotions import contract
from dedp_assets.promotions.deliveries import loading
from dedp_assets.promotions.generator import offers, write_delivery

METRICS, DIFFERENCES, NOTIFICATION = "promotions/metrics", "promotions/differences", "promotions/notification"
DASHBOARD = "promotions/dashboard"
TAKEN = ("promotions/raw", "promotions/cleaned", METRICS)
SUPPLIERS = [f"supermarket{number}" for number in range(1, 5)]


@pytest.fixture
def scenario_settings() -> dict[str, object]:
    """As many slots as the notes have."""
    return {"concurrency": {"runs": {"max_concurrent_runs": 16}}}


@pytest.fixture
def shop(scenario: Scenario, empty_dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """Both code locations are at work, and nobody has delivered yet."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", empty_dsn)
    monkeypatch.setenv("DEDP_NOTIFY", f"file:{own_home}/messages")
    scenario.start("2024-01-05 15:55")
    scenario.load("jobs.promotions", "jobs.promotion_reports")
    scenario.advance(minutes=1)
    return scenario


def deliver(shop: Scenario, supplier: str, day: str) -> None:
    shop.happened(f"{supplier} delivers for {day}")
    lines = [offer.line for offer in offers(supplier, date.fromisoformat(day), 5)]
    write_delivery(contract.landing_folder() / supplier / day, lines)


def rows(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


LOADS = "SELECT supplier || '|' || day, load_number FROM dedp.promotion_deliveries ORDER BY 1"
DAYS = ["2024-01-03", "2024-01-04", "2024-01-05"]


@pytest.fixture
def delivered(shop: Scenario) -> Scenario:
    """Each supplier has delivered for three days, and all of it is loaded and reported on."""
    for supplier in SUPPLIERS:
        for day in DAYS:
            deliver(shop, supplier, day)
    shop.advance(minutes=4)
    shop.expect(NOTIFICATION).materialized(times=12)
    shop.expect_runs().none_failed()
    return shop


def test_after_a_change_of_logic_chosen_suppliers_and_days_are_made_again_down_to_the_dashboard_in_few_runs(
    delivered: Scenario, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(rows(empty_dsn, LOADS))
    chosen = [f"{supplier}|{day}" for supplier in SUPPLIERS[:2] for day in DAYS[1:]]

    deployed = delivered.mark("new logic")
    monkeypatch.setattr(loading, "LOGIC", "2")
    delivered.advance(minutes=10)
    delivered.expect_runs(since=deployed).count(0)  # nothing is made again unless somebody asks

    delivered.backfill(*TAKEN, partitions=chosen)
    delivered.advance(minutes=5)
    after = dict(rows(empty_dsn, LOADS))
    assert {key for key in after if after[key] != before[key]} == set(chosen)
    delivered.expect(METRICS).materialized(*chosen, since=deployed, in_any_order=True).by_backfill()
    delivered.expect(DIFFERENCES).materialized(*chosen, since=deployed, in_any_order=True)
    delivered.expect(DASHBOARD).materialized(times=1, since=deployed)
    delivered.expect(NOTIFICATION).not_materialized(since=deployed)  # the deliveries are the same
    # One for each supplier's range of days, and one of all reports.
    delivered.expect_runs(since=deployed).count(3)

    again = delivered.mark("again")
    delivered.backfill(*TAKEN, partitions=chosen)
    delivered.advance(minutes=5)
    assert dict(rows(empty_dsn, LOADS)) == after
    delivered.expect(DIFFERENCES).not_materialized(since=again)
    delivered.expect_runs(since=again).count(2)


@pytest.mark.slow
def test_any_choice_of_deliveries_is_made_again_in_one_run_by_its_config_and_reported_on_in_another(
    delivered: Scenario, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "LOGIC", "2")
    chosen = [("supermarket1", DAYS[0]), ("supermarket3", DAYS[2]), ("supermarket4", DAYS[1])]
    config = {"deliveries": [{"supplier": supplier, "day": day} for supplier, day in chosen]}
    before, asked = dict(rows(empty_dsn, LOADS)), delivered.mark("asked")
    # The config names all of them. The partition is only where the UI shows the run.
    delivered.materialize(
        *TAKEN,
        partition="|".join(chosen[0]),
        run_config={"ops": {"promotion_deliveries": {"config": config}}},
    )
    delivered.advance(minutes=5)
    after = dict(rows(empty_dsn, LOADS))
    assert {key for key in after if after[key] != before[key]} == {f"{supplier}|{day}" for supplier, day in chosen}
    delivered.expect_runs(since=asked).count(2)


@pytest.mark.slow
def test_a_request_from_outside_refreshes_one_supermarket_down_to_the_dashboard_and_no_sensor_does_it_as_well(
    delivered: Scenario, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, asked = dict(rows(empty_dsn, LOADS)), delivered.mark("asked")
    monkeypatch.setattr(loading, "LOGIC", "2")
    delivered.launch("refresh_supermarket", run_config={"supermarket_id": 1})
    delivered.advance(minutes=5)
    after = dict(rows(empty_dsn, LOADS))
    latest = "supermarket1|2024-01-05"
    assert {key for key in after if after[key] != before[key]} == {latest}
    for asset in (*TAKEN, DIFFERENCES):
        delivered.expect(asset).materialized(latest, since=asked)
    delivered.expect(DASHBOARD).materialized(times=1, since=asked)
    delivered.expect_runs(since=asked).count(2)
    # A delivery that has come, and that somebody asks for before a sensor has looked.
    came = delivered.mark("came")
    deliver(delivered, "supermarket2", "2024-01-02")
    delivered.launch("refresh_supermarket", run_config={"supermarket_id": 2, "day": "2024-01-02"})
    delivered.advance(minutes=5)
    delivered.expect(METRICS).materialized("supermarket2|2024-01-02", since=came)
    delivered.expect_runs(since=came, job="refresh_supermarket").count(1)
    delivered.expect_runs(since=came).count(2)
    delivered.expect_runs().none_failed()


@pytest.mark.slow
def test_the_differences_alone_are_made_again_from_there_down(delivered: Scenario) -> None:
    asked = delivered.mark("asked")
    delivered.backfill(DIFFERENCES, partitions=["supermarket1|2024-01-05"])
    delivered.advance(minutes=5)
    delivered.expect(DIFFERENCES).materialized("supermarket1|2024-01-05", since=asked).by_backfill()
    delivered.expect(METRICS).not_materialized(since=asked)
    delivered.expect(NOTIFICATION).not_materialized(since=asked)


@pytest.mark.slow
def test_silent_suppliers_take_no_slot_and_nobody_waits_for_them_for_six_days(shop: Scenario) -> None:
    """In the notes three sensors a day keep polling, so that on the sixth day all of 16 slots are taken."""
    for day in range(5, 11):
        shop.at(f"2024-01-{day:02} 17:00")
        deliver(shop, "supermarket1", f"2024-01-{day:02}")
        arrived = shop.mark()
        shop.advance(minutes=2)
        shop.expect(NOTIFICATION).materialized(f"supermarket1|2024-01-{day:02}", since=arrived)
    # One run of the delivery and one of its reports each day. The dashboard also shows who is missing, once a window
    # has closed. Nothing else ran, and nothing waits.
    runs = shop.instance.get_runs()
    of_deliveries = [run for run in runs if contract.METRICS in (run.asset_selection or ())]
    assert len(of_deliveries) == 6
    assert len(runs) - len(of_deliveries) <= 6 + 5
    shop.expect_runs().no_slot_held_while_waiting()
    shop.expect_runs().none_under_way()
    shop.expect_runs().none_failed()
    # After six days the other three deliver, all at once.
    back = shop.mark("they are back")
    for supplier in SUPPLIERS[1:]:
        deliver(shop, supplier, "2024-01-10")
    shop.advance(minutes=4)
    shop.expect(NOTIFICATION).materialized(
        *(f"{supplier}|2024-01-10" for supplier in SUPPLIERS[1:]), since=back, in_any_order=True
    )
