"""Schedules that do not align, played on a simulated clock in Berlin, also in the nights when the clocks change."""

import re
import runpy
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster_scenario import Scenario

import dedp_assets
from dedp_assets.schedules import LAST_OF_SAME_PERIOD, ended_last_before, inputs_of, last_of_longer_period, readers_of

REPOSITORY = Path(dedp_assets.__file__).parent.parent
EXAMPLES = REPOSITORY / "examples" / "relations"
ZONE = "Europe/Berlin"


@pytest.fixture
def scenario_timezone() -> str:
    return ZONE


@pytest.fixture
def pipelines(scenario: Scenario) -> Iterator[Callable[..., Scenario]]:
    """An example, loaded at a time of the year 2024."""

    def start(at: str, example: str = "other_schedules.py") -> Scenario:
        scenario.start(at)
        scenario.load(str(EXAMPLES / example))
        # What is older than the story is of no interest to it.
        scenario.tick()
        return scenario

    yield start
    scenario.expect_runs().none_failed()


def test_what_runs_at_18_00_reads_what_ran_at_16_00_and_does_not_wait_another_day(
    pipelines: Callable[..., Scenario],
) -> None:
    scenario = pipelines("2024-03-30 15:00")
    for ended, partition in (
        ("2024-03-30 16:00", "2024-03-29"),
        ("2024-03-31 16:00", "2024-03-30"),  # 23 hours later: the clocks went forward
    ):
        scenario.at(ended)
        scenario.materialize("supermarkets", partition=partition)
        scenario.advance(hours=1)
    scenario.expect("evening_report").materialized("2024-03-29")
    scenario.at("2024-03-31 18:05")
    scenario.expect("evening_report").materialized("2024-03-29", "2024-03-30").by_automation()


def test_what_runs_at_18_00_waits_if_what_runs_at_16_00_is_late(pipelines: Callable[..., Scenario]) -> None:
    scenario = pipelines("2024-06-04 15:00")
    scenario.at("2024-06-04 21:00")
    scenario.expect("evening_report").not_materialized()
    scenario.materialize("supermarkets", partition="2024-06-03")
    scenario.advance(minutes=5)
    scenario.expect("evening_report").materialized("2024-06-03")


def test_every_five_hours_the_last_whole_day_is_read_and_again_when_it_changes(
    pipelines: Callable[..., Scenario],
) -> None:
    scenario = pipelines("2024-03-31 00:30")
    scenario.materialize("takings", partition="2024-03-30")
    scenario.at("2024-03-31 12:00")
    scenario.expect("staffing").materialized("2024-03-31-00:00", "2024-03-31-05:00")
    scenario.at("2024-04-01 00:30")
    scenario.expect("staffing").materialized(*(f"2024-03-31-{hour}:00" for hour in ("00", "05", "10", "15", "20")))
    late = scenario.mark()
    scenario.materialize("takings", partition="2024-03-30")
    scenario.advance(minutes=5)
    scenario.expect("staffing").materialized(
        *(f"2024-03-31-{hour}:00" for hour in ("00", "05", "10", "15", "20")), since=late, in_any_order=True
    )


def test_a_finished_month_is_summed_up_again_when_a_day_of_it_comes_late(pipelines: Callable[..., Scenario]) -> None:
    scenario = pipelines("2024-03-31 20:00", "months.py")
    for day in (1, 2, 30):  # other days never come
        scenario.materialize("takings", partition=f"2024-03-{day:02}")
    scenario.advance(minutes=5)
    scenario.expect("monthly_takings").not_materialized()
    scenario.at("2024-04-01 00:05")
    scenario.expect("monthly_takings").materialized("2024-03-01").by_automation()
    late = scenario.mark()
    scenario.at("2024-04-09 12:00")
    scenario.materialize("takings", partition="2024-03-31")
    scenario.materialize("takings", partition="2024-04-08")
    scenario.advance(minutes=5)
    scenario.expect("monthly_takings").materialized("2024-03-01", since=late).by_automation()


# The example's own definitions, with every partition until the end of the year.
AT_16 = dg.DailyPartitionsDefinition("2024-03-20", "2025-01-01", hour_offset=16, timezone=ZONE)
AT_18 = dg.DailyPartitionsDefinition("2024-03-20", "2025-01-01", hour_offset=18, timezone=ZONE)
DAYS = dg.DailyPartitionsDefinition("2024-03-01", "2025-01-01", timezone=ZONE)
EVERY_5_HOURS = dg.TimeWindowPartitionsDefinition(
    start="2024-03-02-00:00", end="2025-01-01-00:00", fmt="%Y-%m-%d-%H:%M", cron_schedule="0 */5 * * *", timezone=ZONE
)
MONTHS = dg.MonthlyPartitionsDefinition("2024-03-01", "2025-01-01", timezone=ZONE)
NOW = datetime(2025, 1, 2, tzinfo=ZoneInfo("UTC"))

MAPPINGS = {
    "evening_report": (LAST_OF_SAME_PERIOD, AT_18, AT_16),
    "staffing": (last_of_longer_period(5), EVERY_5_HOURS, DAYS),
    "monthly_takings": (dg.TimeWindowPartitionMapping(), MONTHS, DAYS),
}
# Two weeks around each change of the clocks.
CHANGES = [("2024-03-25", "2024-04-07"), ("2024-10-21", "2024-11-03")]


@pytest.mark.parametrize("asset", ["evening_report", "staffing"])
@pytest.mark.parametrize(("first", "last"), CHANGES)
def test_a_mapping_reads_the_partition_that_ended_last_before_also_when_the_clocks_change(
    asset: str, first: str, last: str
) -> None:
    mapping, definition, input_definition = MAPPINGS[asset]
    partitions = [key for key in definition.get_partition_keys() if first <= key[:10] <= last]
    assert len(partitions) == 14 * {"evening_report": 1, "staffing": 5}[asset]
    for partition in partitions:
        end = definition.time_window_for_partition_key(partition).end
        expected = ended_last_before(input_definition, end)
        assert inputs_of(mapping, partition, definition, input_definition, NOW) == [expected]
        assert partition in readers_of(mapping, expected, definition, input_definition, NOW)


def test_dagsters_default_would_wait_for_the_day_after_next() -> None:
    default = dg.TimeWindowPartitionMapping()
    assert inputs_of(default, "2024-06-03", AT_18, AT_16, NOW) == ["2024-06-03", "2024-06-04"]


def test_each_input_has_readers_and_all_of_them_together_have_the_same_as_each_by_itself() -> None:
    mapping, definition, input_definition = MAPPINGS["staffing"]
    days = [key for key in input_definition.get_partition_keys() if "2024-10-21" <= key <= "2024-11-03"]
    each = [key for day in days for key in readers_of(mapping, day, definition, input_definition, NOW)]
    together = mapping.get_downstream_partitions_for_partitions(
        input_definition.subset_with_partition_keys(days), input_definition, definition, NOW
    )
    assert sorted(together.get_partition_keys()) == each
    assert len(each) == 14 * 5


def test_the_first_partition_has_something_to_read() -> None:
    for mapping, definition, input_definition in MAPPINGS.values():
        first = definition.get_first_partition_key()
        assert first
        assert inputs_of(mapping, first, definition, input_definition, NOW)


def table_of_dates() -> list[tuple[str, str, str, str]]:
    """The rows of the table of dates in the docs: asset, partition, when it ends, and what it reads."""
    text = (REPOSITORY / "docs" / "relations.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)` \| `([\d:-]+)` \| ([\d :-]+ CES?T) \| (`.+`) \|", text, re.MULTILINE)


def test_every_row_of_the_documented_table_of_dates_is_what_the_mapping_says() -> None:
    rows = table_of_dates()
    assert {asset for asset, *_ in rows} == set(MAPPINGS)
    assert len(rows) >= 15
    for asset, partition, ends, reads in rows:
        mapping, definition, input_definition = MAPPINGS[asset]
        read = inputs_of(mapping, partition, definition, input_definition, NOW)
        documented = re.findall("`(.+?)`", reads)
        if " to " in reads:
            assert [read[0], read[-1]] == documented
        else:
            assert read == documented
        assert f"{definition.time_window_for_partition_key(partition).end:%Y-%m-%d %H:%M %Z}" == ends


def test_the_examples_have_the_mappings_and_partitions_of_the_table() -> None:
    for example in ("other_schedules.py", "months.py"):
        graph = runpy.run_path(str(EXAMPLES / example))["defs"].resolve_asset_graph()
        for asset in MAPPINGS.keys() & {key.to_user_string() for key in graph.get_all_asset_keys()}:
            mapping, definition, input_definition = MAPPINGS[asset]
            node = graph.get(dg.AssetKey(asset))
            (parent,) = node.parent_keys
            assert graph.get_partition_mapping(node.key, parent) == mapping
            for found, expected in (
                (node.partitions_def, definition),
                (graph.get(parent).partitions_def, input_definition),
            ):
                assert (found.start, found.cron_schedule, found.timezone, found.fmt) == (
                    expected.start,
                    expected.cron_schedule,
                    expected.timezone,
                    expected.fmt,
                )
