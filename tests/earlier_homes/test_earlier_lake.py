"""Today's code continues with tables and cursors that an earlier version of this project wrote.

The code of commit c0e3710 wrote `lake/tables` and the cursors beside it, in a checkout of that commit, with a real
Spark server. A test there played the following story in the test harness of that commit, with
`dedp load-delta --rows N DAY`. At its end it copied DEDP_DATA_URI, and the cursors of the two sensors:

- 2024-01-09, 08:00: five rows for each day from 2024-01-01 to 2024-01-05. The first four are closed and get counted.
- Three more rows for 2024-01-02, which is counted again.
- Four rows for 2024-01-12, which has not begun: the cursor keeps them waiting.
- The condition sensor is turned off. Two more rows for 2024-01-03: both sensors see them, and nobody counts them.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import dagster as dg
import pytest
from deltalake import DeltaTable

from dedp_assets.late_data_integrator import contract, producer, state, tables
from dedp_assets.late_data_integrator.processing import process
from dedp_assets.resources.lake import LakeResource
from jobs.late_data_integrator import defs
from sensors.pipelines.late_data_integrator import devices_committed, late_data_reconciled
from tests.dedp_assets.late_data_integrator.device_tables import count

EARLIER = Path(__file__).parent / "lake"
COUNTED = {"2024-01-01": 4, "2024-01-02": 5, "2024-01-03": 4, "2024-01-04": 4}
LATE, OPEN, WAITING = "2024-01-03", "2024-01-05", "2024-01-12"


@pytest.fixture
def lake(tmp_path: Path) -> LakeResource:
    """The test's own copy of the earlier tables."""
    shutil.copytree(EARLIER / "tables", tmp_path / "lake")
    return LakeResource(uri=str(tmp_path / "lake"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance that knows what the earlier one had heard of both tables."""
    with dg.DagsterInstance.ephemeral() as instance:
        for day in (*COUNTED, OPEN):
            instance.report_runless_asset_event(dg.AssetMaterialization(contract.DEVICES, partition=day))
        for day, version in COUNTED.items():
            tags = {"dagster/data_version": str(version)}
            instance.report_runless_asset_event(
                dg.AssetMaterialization(contract.DEVICE_COUNTS, partition=day, tags=tags)
            )
        yield instance


class Tick(NamedTuple):
    """The days that a tick reports, with their data versions; the days that it requests; the cursor that it leaves."""

    reported: dict[str | None, str]
    requested: list[str | None]
    cursor: str | None


def tick(
    sensor: dg.SensorDefinition, instance: dg.DagsterInstance, lake: LakeResource, cursor: str | None = None
) -> Tick:
    """A tick of a sensor, by default with the cursor that the earlier code has left."""
    cursor = cursor or (EARLIER / f"{sensor.name}.json").read_text().strip()
    with dg.build_sensor_context(instance, cursor, definitions=defs, resources={"lake": lake}) as context:
        done = sensor.evaluate_tick(context)
    events = [event for event in done.asset_events if isinstance(event, dg.AssetMaterialization)]
    return Tick(
        {event.partition: (event.tags or {})["dagster/data_version"] for event in events},
        [request.partition_key for request in done.run_requests or ()],
        done.cursor,
    )


def counted(lake: LakeResource, day: str) -> Counter[tuple[str, ...]]:
    return _by_device(lake, contract.DEVICE_COUNTS, day)


def recounted(lake: LakeResource, day: str) -> Counter[tuple[str, ...]]:
    return _by_device(lake, contract.DEVICES, day)


def _by_device(lake: LakeResource, key: dg.AssetKey, day: str) -> Counter[tuple[str, ...]]:
    rows = DeltaTable(lake.table_uri(key)).to_pyarrow_table().to_pylist()
    found: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        if str(row["event_time"]) == day:
            found[row["type"], row["full_name"], row["version"]] += row.get("count", 1)
    return found


def never(*_: object) -> NoReturn:
    raise AssertionError("was counted again")


def test_the_cursor_of_the_commit_sensor_is_understood_and_nothing_is_reported_twice(
    instance: dg.DagsterInstance, lake: LakeResource
) -> None:
    """Of all that the earlier code saw, only the day that had not begun is reported, for it has begun since."""
    first = tick(devices_committed, instance, lake)
    assert first.reported == {WAITING: "6"}
    assert tick(devices_committed, instance, lake, first.cursor).reported == {}


def test_a_commit_after_the_earlier_cursor_is_reported_and_nothing_else(
    instance: dg.DagsterInstance, lake: LakeResource
) -> None:
    _append_again(lake, "2024-01-01")
    assert tick(devices_committed, instance, lake).reported == {"2024-01-01": "8", WAITING: "6"}


def test_what_was_counted_is_not_counted_again(lake: LakeResource) -> None:
    up_to_date = [day for day in COUNTED if day != LATE]
    done = process(up_to_date, tables.open_devices_log(lake), lambda: tables.open_counts(lake), never)
    assert {each.day: (each.written, each.version) for each in done} == {
        day: (False, COUNTED[day]) for day in up_to_date
    }
    assert all(counted(lake, day) == recounted(lake, day) for day in up_to_date)


def test_late_data_that_the_earlier_code_left_is_found_and_counted(lake: LakeResource) -> None:
    late = tables.observe_progress(lake, ()).late_commits
    assert {day: commits.versions for day, commits in late.items()} == {LATE: (7,)}
    assert counted(lake, LATE) != recounted(lake, LATE)
    [done] = process([LATE], tables.open_devices_log(lake), lambda: tables.open_counts(lake), count)
    assert (done.written, done.rows_before, done.rows_after, done.version) == (True, 5, 7, 7)
    assert counted(lake, LATE) == recounted(lake, LATE)


def test_late_data_of_today_is_found_in_a_day_that_the_earlier_code_counted(lake: LakeResource) -> None:
    _append_again(lake, "2024-01-02")
    late = tables.observe_progress(lake, ()).late_commits
    assert {day: commits.versions for day, commits in late.items()} == {"2024-01-02": (8,), LATE: (7,)}


def test_the_state_table_is_right_and_is_continued(instance: dg.DagsterInstance, lake: LakeResource) -> None:
    def rows() -> dict[str, tuple[bool, int | None]]:
        found = state.read_state(lake.table_uri(contract.PARTITIONS_STATE), {})
        return {
            row.partition.removeprefix("event_time="): (row.is_processed, row.last_processed_version) for row in found
        }

    assert rows() == {day: (False, version) for day, version in COUNTED.items()}
    _, was_written = tables.publish_state(lake, instance)
    assert not was_written
    process([LATE], tables.open_devices_log(lake), lambda: tables.open_counts(lake), count)
    tables.publish_state(lake, instance)
    assert rows() == {day: (False, version) for day, version in {**COUNTED, LATE: 7}.items()}


def test_the_cursor_of_the_reconciling_sensor_is_understood(instance: dg.DagsterInstance, lake: LakeResource) -> None:
    """The late day has waited long enough by that cursor. Without it, the day would wait for another minute."""
    assert tick(late_data_reconciled, instance, lake).requested == [LATE]
    assert tick(late_data_reconciled, instance, lake, cursor="{}").requested == []


def _append_again(lake: LakeResource, day: str) -> None:
    """Append the devices of a day once more, with today's writer."""
    devices = list(recounted(lake, day).elements())
    producer.load(lake.table_uri(contract.DEVICES), producer.day_of(day), lambda *_: devices)
