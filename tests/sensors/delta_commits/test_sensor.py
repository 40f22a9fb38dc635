"""Every change of a day is reported in the tick that sees it, and nothing else is."""

import re
from datetime import date, datetime, timedelta, timezone

import dagster as dg
import pytest
import time_machine
from deltalake import DeltaTable, write_deltalake

from dedp_assets.delta.log import DeltaLog
from dedp_assets.late_data_integrator import contract
from sensors.delta_commits import observing
from sensors.delta_commits.observing import observe_table
from tests.sensors.delta_commits.made_commits import plan_for
from tests.sensors.delta_commits.world import (
    AT,
    FIRST,
    FOURTH,
    FUTURE,
    KINDS,
    SECOND,
    THIRD,
    VECTOR,
    CommitTicks,
    Devices,
    protocol_with,
    versions,
)


@pytest.mark.parametrize("kind", KINDS)
def test_each_commit_is_reported_once_by_the_days_that_it_changed(kind: str, ticks: CommitTicks) -> None:
    devices = Devices(kind)
    devices.append(FIRST, SECOND)
    devices.append(SECOND, THIRD)
    assert ticks.reported() == {FIRST: 0, SECOND: 1, THIRD: 1}
    assert ticks.reported() == {}
    devices.overwrite(FIRST)
    assert ticks.reported() == {FIRST: 2}
    devices.delta.optimize.compact()
    devices.delta.alter.set_table_properties({"delta.appendOnly": "false"})
    assert ticks.reported() == {}
    devices.append(SECOND)
    devices.delta.delete(f"event_time = '{THIRD}'")
    assert ticks.reported() == {SECOND: 5, THIRD: 6}
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()


def test_dagster_has_the_data_versions_and_says_so_in_the_tick(
    devices: Devices, ticks: CommitTicks, instance: dg.DagsterInstance
) -> None:
    devices.append(FIRST)
    devices.append(SECOND)
    devices.append(FIRST)
    result = ticks()
    assert (
        result.message == f"3 commits read, up to version 2; 2 days changed: {FIRST} (version 2), {SECOND} (version 1)"
    )
    assert instance.get_materialized_partitions(contract.DEVICES) == {FIRST, SECOND}
    record = instance.get_latest_data_version_record(contract.DEVICES, partition_key=FIRST)
    assert record
    assert (latest := record.asset_materialization)
    assert latest.tags == {"dagster/data_version": "2"}
    assert latest.metadata["commits"].value == [0, 2]
    assert latest.metadata["rows_added"].value == 2
    assert ticks().message == f"nothing new in {devices.uri} since version 2"


def test_a_tick_keeps_its_message_beside_its_events(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    tick = ticks()
    assert versions(tick) == {FIRST: 0}
    assert tick.message.startswith("1 commit read")


def test_two_ticks_over_the_same_commits_give_the_same_events(devices: Devices, instance: dg.DagsterInstance) -> None:
    devices.append(FIRST, SECOND)
    devices.append(SECOND)
    with time_machine.travel(AT, tick=False):
        one, other = CommitTicks(instance)(), CommitTicks(instance)()
    assert (one.events, one.cursor) == (other.events, other.cursor)


def test_a_table_that_is_not_there_yet_is_waited_for(devices: Devices, ticks: CommitTicks) -> None:
    result = ticks()
    assert result.message == f"there is no Delta table at {devices.uri} yet: `dedp load-delta` writes one"
    assert result.cursor is None
    devices.append(FIRST)
    assert ticks.reported() == {FIRST: 0}


def test_a_table_without_rows_is_followed(devices: Devices, ticks: CommitTicks) -> None:
    DeltaTable.create(devices.uri, devices.rows(FIRST).schema, partition_by=["event_time"])
    assert ticks.reported() == {}
    devices.append(FIRST)
    assert ticks.reported() == {FIRST: 1}


def test_a_long_log_is_taken_in_over_several_ticks(
    devices: Devices, ticks: CommitTicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "MAX_COMMITS", 3)
    for day in (FIRST, SECOND, FIRST, THIRD, FOURTH):
        devices.append(day)
    first = ticks()
    assert versions(first) == {FIRST: 2, SECOND: 1}
    assert first.message.startswith("3 commits read, up to version 2; the next tick continues")
    second = ticks()
    assert versions(second) == {THIRD: 3, FOURTH: 4}
    assert second.message.startswith("2 commits read, up to version 4; 2 days changed")


def test_a_slow_log_is_taken_in_over_several_ticks(devices: Devices) -> None:
    for day in (FIRST, SECOND):
        devices.append(day)
    log = DeltaLog(devices.uri)
    first = observe_table(log, None, seconds=0)
    assert [found.version for found in first.commits] == [0]
    assert first.notes == ["1 commit read, up to version 0; the next tick continues"]
    second = observe_table(log, plan_for(first).cursor, seconds=0)
    assert [found.version for found in second.commits] == [1]


def test_a_burst_of_many_commits_is_a_thousand_at_a_time(devices: Devices, instance: dg.DagsterInstance) -> None:
    ticks = CommitTicks(instance, records_events=False)
    devices.append(FIRST)
    (add,) = devices.actions(0, "add")
    for version in range(1, 1_201):
        day = (date(2024, 1, 1) + timedelta(days=version)).isoformat() if version < 500 else SECOND
        path = f"event_time={day}/{version}.parquet"
        devices.write_commit(version, {"add": add | {"path": path, "partitionValues": {"event_time": day}}})
    first = ticks()
    assert (len(first.events), ticks.left.version) == (500, 999)
    assert first.message.startswith("1,000 commits read, up to version 999; the next tick continues")
    assert ticks.reported() == {SECOND: 1_200}
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()


def test_a_day_of_the_future_is_reported_as_soon_as_dagster_has_a_partition_for_it(
    devices: Devices, ticks: CommitTicks, instance: dg.DagsterInstance
) -> None:
    devices.append(FIRST, FUTURE.isoformat())
    assert ticks.reported() == {FIRST: 0}
    assert ticks().message.endswith(f"(UTC), will be reported once the day has begun: {FUTURE}")
    midnight = datetime(FUTURE.year, FUTURE.month, FUTURE.day, tzinfo=timezone.utc)
    with time_machine.travel(midnight - timedelta(seconds=1)):
        assert ticks.reported() == {}
    with time_machine.travel(midnight + timedelta(seconds=1)):
        assert ticks.reported() == {FUTURE.isoformat(): 0}
        assert contract.DAYS.has_partition_key(FUTURE.isoformat())
        assert ticks.reported() == {}


def test_rows_that_belong_to_no_day_stop_nothing_and_stay_visible(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST, None, "not-a-date", "2024-1-2", "2023-12-31", "a b%:/=é")
    first = ticks()
    assert versions(first) == {FIRST: 0}
    named = (
        "5 partitions never reported: rows without event_time, 2023-12-31 is before the first partition, 2024-01-01, "
        "'2024-1-2' is not a day like 2024-01-31, 'a b%:/=é' is not a day like 2024-01-31, "
        "'not-a-date' is not a day like 2024-01-31"
    )
    assert first.message.endswith(named)
    assert ticks().message == named
    devices.append(SECOND)
    assert ticks.reported() == {SECOND: 1}
    devices.delta.delete(f"event_time IS NULL OR event_time NOT IN ('{FIRST}', '{SECOND}')")
    assert ticks.reported() == {}
    assert ticks().message == f"nothing new in {devices.uri} since version 2"


def test_a_table_that_vanished_is_missed_and_nothing_is_forgotten(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST, SECOND, FUTURE.isoformat())
    ticks()
    before = ticks.cursor
    devices.remove()
    for _ in range(2):
        result = ticks()
        assert versions(result) == {}
        assert result.message.startswith(
            f"error: the Delta table at {devices.uri} is gone; it was followed to version 0."
        )
        assert ticks.cursor == before
    devices.append(SECOND)
    assert ticks.reported() == {FIRST: 0, SECOND: 0}
    assert ticks.left.waiting == {FUTURE.isoformat(): 0}


def test_a_tick_names_what_makes_a_table_unreadable_and_loses_nothing(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    ticks()
    devices.append(SECOND)
    devices.write_commit(2, protocol_with("typeWidening"))
    before = ticks.cursor
    for _ in range(2):
        result = ticks()
        assert versions(result) == {}
        assert re.search(f"{devices.uri}: .*typeWidening", result.message)
        assert ticks.cursor == before
    devices.write_commit(2, protocol_with("timestampNtz"))
    assert ticks.reported() == {SECOND: 1}


def test_a_tick_names_why_a_new_table_is_unsupported(devices: Devices, ticks: CommitTicks) -> None:
    write_deltalake(devices.uri, devices.rows(FIRST), partition_by=["type"])
    assert "is partitioned by type; expected event_time alone" in ticks().message
    assert ticks.cursor is None


def test_a_tick_names_the_first_deletion_vector_and_continues_when_it_is_gone(
    devices: Devices, ticks: CommitTicks
) -> None:
    devices.append(FIRST)
    devices.write_commit(1, protocol_with("deletionVectors"))
    assert ticks.reported() == {FIRST: 0}
    (add,) = devices.actions(0, "add")
    removal = {"path": add["path"], "dataChange": True, "deletionTimestamp": 1}
    devices.write_commit(2, {"remove": removal}, {"add": add | {"deletionVector": VECTOR}})
    assert "deletionVectors" in ticks().message
    # Somebody rewrites the file without the vector: then we can read the table again, and its day has changed.
    removal |= {"deletionVector": VECTOR}
    devices.write_commit(3, {"remove": removal}, {"add": add | {"path": f"event_time={FIRST}/purged.parquet"}})
    assert ticks.reported() == {FIRST: 3}


def test_a_lost_cursor_reports_everything_once_more(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    devices.append(SECOND)
    first = ticks.reported()
    ticks.cursor = "garbled"
    assert ticks.reported() == first
    assert ticks.reported() == {}


def test_between_two_snapshots_only_new_commits_are_read(
    devices: Devices, ticks: CommitTicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices.append(FIRST)
    with time_machine.travel(AT, tick=False):
        ticks()  # with commits
        ticks()  # without any
        monkeypatch.setattr(DeltaLog, "snapshot", None)
        devices.append(SECOND)
        assert ticks.reported() == {SECOND: 1}
        assert ticks.reported() == {}
