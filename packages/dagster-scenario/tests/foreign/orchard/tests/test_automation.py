"""What follows from what, without anybody asking for it."""

import pytest
from dagster_scenario import Scenario
from dagster_scenario.world.files import Folder


def test_prices_the_ledger_and_offers_follow_the_quotes_of_a_day(buying: Scenario) -> None:
    buying.at("06:05")
    for asset in ("prices", "sales", "returns"):
        buying.expect(asset).materialized("2024-03-26").by_automation("buying_automation")
    assert {event.run for event in buying.timeline.events if event.asset in ("prices", "sales", "returns")} == {2}

    # One run for the day, but a backfill for its fruits.
    offers = [f"2024-03-26|{fruit}" for fruit in ("apple", "cherry", "pear")]
    buying.expect("offers").materialized(*offers).by_automation("buying_automation").by_backfill()
    assert buying.timeline.open_backfills == 0


def test_new_tariffs_change_the_landed_costs_of_all_fruits_every_time(buying: Scenario) -> None:
    for _ in range(2):
        new = buying.mark("new tariffs")
        buying.materialize("tariffs")
        buying.run_until_quiet()
        buying.expect("tariffs").materialized(times=1, since=new).by_hand()
        buying.expect("landed_costs").materialized("apple", "cherry", "pear", since=new).by_automation().by_backfill()


def test_two_growers_who_deliver_at_once_are_graded_in_a_backfill(warehouse: Scenario, yard: Folder) -> None:
    yard.drop("1-miller.note")
    yard.drop("2-smith.note")
    warehouse.run_until_quiet()
    warehouse.expect("grades").materialized("miller", "smith").by_automation().by_backfill()


def test_the_customs_report_waits_for_the_tariffs_of_the_morning(buying: Scenario) -> None:
    buying.stop_daemons("schedules")
    buying.materialize("tariffs")
    buying.at("08:00")
    # The tariffs of 4:30 are those of yesterday morning.
    buying.expect("customs_report").not_materialized()
    buying.materialize("tariffs")
    buying.run_until_quiet()
    buying.expect("customs_report").materialized(times=1).by_automation()


def test_old_days_are_bought_again_by_hand_and_nothing_follows_them(buying: Scenario) -> None:
    buying.start("2024-03-30 12:00")
    buying.backfill("quotes", partitions=["2024-03-25", "2024-03-26"])
    buying.launch("buy", "2024-03-28")
    buying.run_until_quiet()
    buying.expect("quotes").materialized("2024-03-25", "2024-03-26", "2024-03-28", in_any_order=True)
    # Eager looks at the latest partition only.
    buying.expect("prices").not_materialized()


def test_a_check_that_does_not_pass_is_seen_and_fails_nothing(
    buying: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchard.buying.MARGIN", -1)
    buying.at("06:05")
    checks = [event.text for event in buying.timeline.events if event.kind == "checked"]
    assert checks == ["no_price_is_negative of prices did not pass"]
    buying.expect_runs().none_failed()
