"""A wait holds no slot, and ends in a complaint when it takes too long."""

import datetime as dt

import pytest
from dagster_scenario import Scenario

from dedp_assets.cookbook import waiting


@pytest.mark.parametrize(
    ("is_there", "hours", "is_told", "expected"),
    [
        (True, 0, False, "take"),
        (True, 9, True, "take"),
        (False, 5, False, "wait"),
        (False, 6, False, "complain"),
        (False, 9, True, "wait"),
    ],
)
def test_what_a_look_leads_to(is_there: bool, hours: int, is_told: bool, expected: str) -> None:
    assert waiting.decide(is_there, dt.timedelta(hours=hours), is_told) == expected


def test_a_wait_takes_no_slot_complains_once_after_its_time_out_and_takes_the_late_file(scenario: Scenario) -> None:
    inbox = scenario.folder()
    scenario.start("2024-01-05 08:00")
    scenario.load(waiting.defs, resources={"inbox": waiting.Inbox(folder=str(inbox.path))})
    scenario.turn_on("report_landed")
    scenario.run_until_quiet()

    scenario.at("13:50")
    scenario.expect_runs().count(0)
    scenario.at("18:00")
    scenario.expect_job("report_is_overdue").failed(times=1, error="ask the shop")

    inbox.drop("report.csv", "a;1\n")
    scenario.run_until_quiet()
    scenario.expect_job("take_report").succeeded(times=1)
    scenario.expect_runs().no_slot_held_while_waiting()
