"""What the harness computes in a faster way than Dagster is the same: dates of crons, cursors of conditions."""

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import dagster as dg
import pytest
from dagster_scenario import Scenario, _dagster, kept_cursors
from dagster_scenario.crons import dates_from

CRONS = ["* * * * *", "*/7 * * * *", "*/20 8-10 * * *", "15,45 0-3 * * *", "0 0 1,15 * *", "0 2-3 * * 0", "5 4 * * 1#2"]
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca"]
# A day like any other; those before and of clock changes in 2024, in Europe, Australia and Morocco.
MOMENTS = [
    *["2024-02-14 00:00", "2024-02-14 02:59:59.999", "2024-02-29 23:59:00.001"],
    *["2024-03-30 01:30", "2024-03-31 00:59:59.999", "2024-03-31 01:00", "2024-10-27 00:30", "2024-10-27 01:30"],
    *["2024-04-06 14:45", "2024-10-05 15:30:00.001", "2024-03-10 02:00", "2024-04-14 01:59"],
]


@pytest.fixture
def dagsters_dates() -> Callable[..., Iterator[datetime]]:
    dates: Callable[..., Iterator[datetime]] = getattr(_dagster.SCHEDULES, _dagster.CRON_DATES)
    return dates


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("cron", CRONS)
def test_the_dates_of_a_cron_are_dagsters(
    cron: str, zone: str, dagsters_dates: Callable[..., Iterator[datetime]]
) -> None:
    for moment in MOMENTS:
        start = datetime.fromisoformat(f"{moment}+00:00").timestamp()
        found, expected = (
            [date.isoformat() for date in itertools.islice(dates, 5)]
            for dates in (dates_from(start, cron, zone, dagsters_dates), dagsters_dates(start, cron, zone))
        )
        assert found == expected, moment


def test_dates_go_on_past_a_clock_change(dagsters_dates: Callable[..., Iterator[datetime]]) -> None:
    # Two days before it: further than is looked at without Dagster.
    start = datetime.fromisoformat("2024-03-29 12:00+00:00").timestamp()
    cron, zone, days = "*/20 * * * 0-6", "Europe/Berlin", 4
    found, expected = (
        [date.isoformat() for date in itertools.islice(dates, days * 24 * 3)]
        for dates in (dates_from(start, cron, zone, dagsters_dates), dagsters_dates(start, cron, zone))
    )
    assert found == expected


class Third(dg.AutomationCondition[dg.AssetKey]):
    """A condition of a project's own, with a cursor of its own: true in the third tick."""

    def evaluate(self, context: Any) -> Any:
        count = int(context.cursor or 0) + 1
        subset = context.candidate_subset if count == 3 else context.get_empty_subset()
        return dg.AutomationResult(context, subset, cursor=str(count))


EAGER = dg.AutomationCondition.eager()
DAILY = dg.DailyPartitionsDefinition("2024-01-01")
SHOPS = dg.DynamicPartitionsDefinition(name="shops")


@dg.asset(automation_condition=dg.AutomationCondition.on_cron("0 * * * *"))
def hourly() -> None: ...


@dg.asset(deps=[hourly], automation_condition=EAGER, check_specs=[dg.AssetCheckSpec("fine", asset="after")])
def after() -> Iterator[Any]:
    yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True, check_name="fine")])


@dg.asset(automation_condition=Third())
def third() -> None: ...


@dg.asset(partitions_def=DAILY, deps=[hourly], automation_condition=EAGER)
def of_a_day() -> None: ...


@dg.asset(deps=[of_a_day], automation_condition=EAGER)
def of_all_days() -> None: ...


@dg.asset(partitions_def=SHOPS, automation_condition=EAGER)
def of_a_shop() -> None: ...


@dg.asset(
    partitions_def=dg.MultiPartitionsDefinition({"day": DAILY, "shop": SHOPS}),
    deps=[of_a_day, of_a_shop],
    automation_condition=EAGER,
)
def of_both() -> None: ...


def _play(scenario: Scenario) -> list[str]:
    """A story with all of them. Returns the timeline."""
    assets = [hourly, after, third, of_a_day, of_all_days, of_a_shop, of_both]
    on = dg.DefaultSensorStatus.RUNNING
    automation = dg.AutomationConditionSensorDefinition(
        "automation", target=dg.AssetSelection.all() - dg.AssetSelection.assets(third), default_status=on
    )
    # A condition of the project's own is evaluated where the project's code is.
    own = dg.AutomationConditionSensorDefinition("own", target=[third], use_user_code_server=True, default_status=on)
    definitions = dg.Definitions(assets=assets, sensors=[automation, own])
    scenario.start("2024-01-02 23:50")
    scenario.load(shop=definitions)
    scenario.add_partitions("shops", "lyon", "paris")
    scenario.advance(minutes=15)
    scenario.tick_twice("automation")
    scenario.advance(hours=1)
    # New code, which begins with what the old one has left.
    scenario.load(shop=definitions)
    scenario.at("02:01")
    return list(scenario.timeline.lines())


def test_a_kept_cursor_is_what_dagster_would_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = (getattr(_dagster.ASSET_DAEMON, name) for name in (_dagster.READ_CURSOR, _dagster.WRITE_CURSOR))
    kept: list[int] = []
    written: list[int] = []
    original = kept_cursors._kept

    def compared(cursor: Any, _: Any) -> str:
        text = original(cursor, write)
        found, expected = kept_cursors._read(text, None, read), read(write(cursor), None)
        assert found == expected
        if isinstance(text, kept_cursors.KeptCursor):
            kept.append(sum(each is not None for each in text.kept))
            written.append(sum(each is None for each in text.kept))
        return text

    monkeypatch.setattr(kept_cursors, "_kept", compared)
    with Scenario() as scenario:
        _play(scenario)
        assert [looking.error for looking in scenario.timeline.looking.values()] == ["", ""]
    assert len(kept) > 10
    # Those without partitions; those with partitions, or with one upstream.
    assert set(kept) == {2}
    assert set(written) == {4}


def test_a_story_is_the_same_with_cursors_that_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with Scenario() as scenario:
        kept = _play(scenario)
    monkeypatch.setattr(kept_cursors, "_reads_back_as_it_is", lambda condition: False)
    with Scenario() as scenario:
        assert _play(scenario) == kept
    assert len(kept) > 20
