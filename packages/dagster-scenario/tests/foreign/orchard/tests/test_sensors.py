"""What drives into the yard, and who hears of it."""

from pathlib import Path

import pytest
from dagster_scenario import Scenario
from dagster_scenario.world.files import Folder


def test_a_delivery_note_makes_its_grower_known_and_their_fruit_graded(warehouse: Scenario, yard: Folder) -> None:
    warehouse.expect_sensor("delivery_notes").waiting(because="no new delivery note")
    yard.drop("1-miller.note")
    warehouse.run_until_quiet()
    warehouse.expect("deliveries").materialized("miller").by_sensor("delivery_notes")
    warehouse.expect("grades").materialized("miller").by_automation("warehouse_automation")


def test_a_sensor_that_dies_after_its_requests_delivers_once_thanks_to_its_run_keys(
    warehouse: Scenario, yard: Folder
) -> None:
    yard.drop("1-miller.note")
    yard.drop("2-smith.note")
    warehouse.tick_twice("delivery_notes")
    warehouse.run_until_quiet()
    warehouse.expect("deliveries").materialized("miller", "smith")


def test_without_run_keys_a_complaint_is_answered_twice_when_the_sensor_dies(warehouse: Scenario, yard: Folder) -> None:
    warehouse.turn_on("complaints")
    warehouse.tick_twice("complaints")
    yard.drop("1.complaint")
    warehouse.run_until_quiet()
    warehouse.expect_runs(job="answer_complaint").count(2).by_sensor("complaints")

    quiet_day = warehouse.mark()
    yard.drop("2.complaint")
    warehouse.run_until_quiet()
    warehouse.expect_runs(job="answer_complaint", since=quiet_day).count(1)


def test_out_of_season_nobody_answers_complaints(warehouse: Scenario, yard: Folder) -> None:
    yard.drop("1.complaint")
    warehouse.advance(hours=1)
    warehouse.expect_runs().count(0)
    warehouse.turn_on("complaints")
    warehouse.run_until_quiet()
    warehouse.expect_runs(job="answer_complaint").count(1)


def test_labels_are_printed_for_prices_that_the_other_code_location_made(company: Scenario) -> None:
    company.materialize("quotes", "prices", partition="2024-03-26")
    company.run_until_quiet()
    company.expect_runs(job="print_labels").count(1).by_sensor("new_prices")
    [labels] = [run for run in company.timeline.runs.values() if run.job == "print_labels"]
    assert labels.tags["prices_of"] == "2024-03-26"


def test_the_office_is_told_of_a_failure_in_any_code_location(company: Scenario, home: Path) -> None:
    company.fail("tariffs", times=None, error="customs is closed")
    company.materialize("tariffs")
    company.run_until_quiet()
    company.expect("tariffs").failed(error="customs is closed")
    # Once for the run, once for the retry that dagster.yaml asks for.
    assert (home / "alerts.txt").read_text() == "__ASSET_JOB failed\n" * 2


def test_a_truck_gets_its_receipt_when_it_was_weighed(warehouse: Scenario, yard: Folder) -> None:
    yard.drop("1.weight")
    yard.drop("B-AB-123.truck")
    warehouse.run_until_quiet()
    warehouse.expect_runs(job="weigh_truck").count(1).by_sensor("trucks")
    warehouse.expect_runs(job="print_receipt").count(1).by_sensor("weighed")
    warehouse.expect_runs().no_slot_held_while_waiting()


def test_trucks_that_wait_for_the_scales_wait_side_by_side_each_in_a_slot(warehouse: Scenario, yard: Folder) -> None:
    for number in (1, 2, 3):
        yard.drop(f"B-AB-{number}.truck")
    warehouse.advance(minutes=8)
    yard.drop("1.weight")
    warehouse.advance(minutes=5)
    warehouse.expect_runs(job="weigh_truck").count(3)
    warehouse.expect_runs().none_under_way()
    for run in warehouse.timeline.runs.values():
        if run.job == "weigh_truck":
            assert run.started is not None
            assert run.ended is not None
            assert (run.ended - run.started).total_seconds() == 600

    with pytest.raises(AssertionError, match=r"slept 5 min, from .* in warehouse.py:\d+ \(weigh\)"):
        warehouse.expect_runs().no_slot_held_while_waiting()
