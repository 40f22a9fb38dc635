"""Freshness policies: Dagster's own daemon judges them, and time stops where an asset becomes late."""

from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster_scenario import Scenario

BEGIN = datetime(2024, 1, 1, tzinfo=timezone.utc)
ON = dg.DefaultSensorStatus.RUNNING
AUTOMATION = dg.AutomationConditionSensorDefinition("automation", target="*", default_status=ON)


def states(scenario: Scenario) -> list[tuple[float, str]]:
    """How many hours after the beginning an asset became fresh or late, and what the timeline says of it."""
    events = [event for event in scenario.timeline.events if event.kind == "freshness"]
    return [(round((event.at - BEGIN).total_seconds() / 3600, 1), event.text) for event in events]


@pytest.mark.skipif(
    not hasattr(dg.AutomationCondition, "freshness_failed"), reason="this release has no condition of freshness"
)
def test_an_asset_is_late_when_its_window_is_over_and_a_condition_reacts(scenario: Scenario) -> None:
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=24), warn_window=timedelta(hours=12))

    @dg.asset(freshness_policy=policy)
    def daily() -> None: ...

    @dg.asset(
        deps=[daily],
        automation_condition=dg.AutomationCondition.any_deps_match(
            dg.AutomationCondition.freshness_failed()
        ).newly_true(),
    )
    def alarm() -> None: ...

    scenario.load(dg.Definitions(assets=[daily, alarm], sensors=[AUTOMATION]))
    scenario.materialize("daily")
    scenario.advance(hours=23)
    assert states(scenario) == [
        (0, "daily is fresh"),
        (12, "daily is late: a warning"),
    ]
    scenario.advance(hours=7)
    assert states(scenario)[2:] == [(24, "daily is late: it failed its freshness policy")]
    scenario.expect("alarm").materialized(times=1).by_automation()
    (run,) = [run for run in scenario.timeline.runs.values() if "alarm" in run.assets]
    assert run.requested - BEGIN <= timedelta(hours=24, minutes=1)
    scenario.materialize("daily")
    scenario.advance(hours=1)
    assert states(scenario)[3:] == [(30, "daily is fresh")]


def test_an_asset_is_late_at_its_deadline(scenario: Scenario) -> None:
    policy = dg.FreshnessPolicy.cron("0 9 * * *", lower_bound_delta=timedelta(hours=2), timezone="Europe/Berlin")

    @dg.asset(freshness_policy=policy)
    def morning() -> None: ...

    scenario.load(dg.Definitions(assets=[morning]))
    scenario.at("07:30")
    scenario.materialize("morning")
    scenario.at("2024-01-02 12:00")
    assert states(scenario) == [(7.5, "morning is fresh"), (32, "morning is late: it failed its freshness policy")]


def test_the_daemon_can_be_off_and_down(scenario: Scenario) -> None:
    @dg.asset(freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=24)))
    def daily() -> None: ...

    scenario.load(dg.Definitions(assets=[daily]))
    scenario.materialize("daily")
    scenario.run_until_quiet()
    with scenario.daemons_down("freshness"):
        scenario.advance(hours=30)
        assert states(scenario) == [(0, "daily is fresh")]
    scenario.advance(hours=1)
    assert states(scenario)[1:] == [(30, "daily is late: it failed its freshness policy")]
    scenario.close()
    with Scenario(settings={"freshness": {"enabled": False}}) as other:
        other.load(dg.Definitions(assets=[daily]))
        other.materialize("daily")
        other.advance(hours=30)
        assert states(other) == []


def test_a_project_without_policies_has_nothing_to_do_with_freshness(scenario: Scenario) -> None:
    @dg.asset
    def plain() -> None: ...

    scenario.load(dg.Definitions(assets=[plain]))
    scenario.materialize("plain")
    scenario.advance(hours=30)
    assert states(scenario) == []
    kinds = {event.event_type for event in _stored(scenario)}
    assert dg.DagsterEventType.FRESHNESS_STATE_CHANGE not in kinds


def _stored(scenario: Scenario) -> list[dg.DagsterEvent]:
    records = scenario.instance.event_log_storage.get_logs_for_run("")
    return [record.dagster_event for record in records if record.dagster_event is not None]
