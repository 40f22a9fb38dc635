"""Somebody is told of a failure, and a report that is not there at its deadline is seen without a run."""

import json
from pathlib import Path

from dagster_scenario import Scenario

from dedp_assets.cookbook import alerts
from dedp_assets.notifications.resource import NotifierResource


def test_somebody_is_told_of_a_failure_and_of_nothing_else(scenario: Scenario, tmp_path: Path) -> None:
    told = tmp_path / "told.jsonl"
    scenario.load(alerts.defs, resources={"notifier": NotifierResource(target=f"file:{told}")})
    scenario.turn_on("tell_of_failures")
    scenario.run_until_quiet()
    scenario.launch("refresh")
    scenario.run_until_quiet()
    assert not told.exists()
    scenario.fail("morning_report", error="the warehouse is away")
    scenario.launch("refresh")
    scenario.run_until_quiet()
    (message,) = [json.loads(line) for line in told.read_text().splitlines()]
    assert message["subject"] == "refresh failed"
    assert message["severity"] == "error"


def test_a_report_that_is_not_there_at_six_is_not_fresh_though_no_run_was_started(scenario: Scenario) -> None:
    scenario.start("2024-01-05 05:00")
    scenario.load(alerts.defs)
    scenario.materialize("morning_report")
    scenario.run_until_quiet()
    scenario.at("2024-01-05 06:10")
    scenario.expect("morning_report").fresh()
    scenario.at("2024-01-06 06:10")
    scenario.expect("morning_report").stale()
