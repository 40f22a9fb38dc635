"""Every change of a day in the Delta table is reported, in the tick that sees it; nothing else is, whatever happens."""

import json
import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from itertools import count
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
import time_machine
from deltalake import DeltaTable, write_deltalake
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dedp_assets import settings
from dedp_assets.delta.commits import Commit, PartitionChange, Snapshot
from dedp_assets.delta.log import DeltaLog
from dedp_assets.delta.problems import TableProblem, UnsupportedTable
from dedp_assets.late_data_integrator import contract
from dedp_assets.resources.lake import LakeResource
from sensors import delta_commits
from sensors.delta_commits import Change, Cursor, Look, decide, look, materialization
from sensors.pipelines.late_data_integrator import devices_committed

FIRST, SECOND, THIRD, FOURTH = "2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"
LAST = "2024-01-31"
AT = datetime(2024, 1, 5, tzinfo=timezone.utc)


# Decisions, from what a look found to what is reported.


def commit(version, *days, rows=1, operation="WRITE"):
    """A commit that added one file to each of these partitions."""
    return Commit(
        version=version,
        timestamp=AT + timedelta(minutes=version),
        operation=operation,
        changes={day: PartitionChange(1, 0, rows, 0) for day in days},
        fingerprint_changes={day: 10**version for day in days},
        table_id=None,
        check_table=False,
        mark=f"mark {version}",
    )


def followed(*commits, version=None, **found):
    return Look("table", commits[-1].version if commits else version, "mark", list(commits), **found)


def files(**days):
    """A snapshot's files, by names such as d2024_01_01."""
    return {day[1:].replace("_", "-"): tuple(f"/lake/{name}" for name in names) for day, names in days.items()}


def tick(found, cursor=None, *, first=FIRST, last=LAST):
    return decide(found, cursor, first=first, last=last, column=contract.PARTITION_COLUMN)


def reported(decision):
    return {change.day: change.version for change in decision.changes}


def test_each_day_that_commits_changed_is_reported_once_with_the_latest_of_its_versions():
    decision = tick(followed(commit(3, FIRST), commit(4, SECOND), commit(5, FIRST, THIRD)))
    assert reported(decision) == {FIRST: 5, SECOND: 4, THIRD: 5}
    assert [found.version for found in decision.changes[0].commits] == [3, 5]
    assert decision.notes == [f"3 days changed: {FIRST} (version 5), {SECOND} (version 4), {THIRD} (version 5)"]


def test_a_tick_without_commits_reports_nothing_and_moves_nothing():
    cursor = Cursor("table", 7, "mark", {FIRST: 11}, {"2024-02-01": 7})
    decision = tick(followed(version=7), cursor)
    assert (decision.changes, decision.cursor) == ([], cursor)


def test_the_same_look_gives_the_same_events_again():
    cursor = Cursor("table", 2, "mark", {FIRST: 11})
    found = followed(commit(3, FIRST), commit(4, SECOND))
    assert tick(found, cursor) == tick(found, cursor)


def test_a_day_that_has_not_begun_waits_and_is_reported_when_it_has():
    first = tick(followed(commit(1, "2024-02-02"), commit(2, "2024-02-02", FIRST)))
    assert reported(first) == {FIRST: 2}
    assert first.cursor.waiting == {"2024-02-02": 2}
    assert first.notes[-1] == "1 day after today, 2024-01-31 (UTC), reported when it has begun: 2024-02-02"
    second = tick(followed(version=2), first.cursor, last="2024-02-01")
    assert (reported(second), second.cursor.waiting) == ({}, {"2024-02-02": 2})
    third = tick(followed(version=2), second.cursor, last="2024-02-02")
    assert (reported(third), third.cursor.waiting) == ({"2024-02-02": 2}, {})
    assert reported(tick(followed(version=2), third.cursor, last="2024-02-02")) == {}


def test_a_day_that_waited_and_changed_again_is_reported_by_its_latest_version():
    waiting = tick(followed(commit(1, "2024-02-02"))).cursor
    decision = tick(followed(commit(2, "2024-02-02")), waiting, last="2024-02-02")
    assert reported(decision) == {"2024-02-02": 2}


UNUSABLE = {
    "": "rows without event_time",
    "not-a-date": "'not-a-date' is not a day like 2024-01-31",
    "2024-1-2": "'2024-1-2' is not a day like 2024-01-31",
    "20240102": "'20240102' is not a day like 2024-01-31",
    "2024-02-30": "'2024-02-30' is not a day like 2024-01-31",
    "2024-W01-1": "'2024-W01-1' is not a day like 2024-01-31",
    "2024-01-02 00:00:00": "'2024-01-02 00:00:00' is not a day like 2024-01-31",
    "10000-01-01": "'10000-01-01' is not a day like 2024-01-31",
    "2023-12-31": "2023-12-31 is before the first partition, 2024-01-01",
}


@pytest.mark.parametrize(("value", "reason"), UNUSABLE.items())
def test_what_is_no_partition_is_named_and_stops_nothing_else(value, reason):
    decision = tick(followed(commit(1, value, SECOND), commit(2, value)))
    assert reported(decision) == {SECOND: 1}
    assert decision.cursor.waiting == {}
    assert decision.notes[-1] == f"1 partition never reported: {reason}"


def test_what_is_no_partition_is_still_named_in_later_ticks_as_long_as_it_is_there():
    first = tick(followed(commit(1, "", "not-a-date", "2023-12-31", SECOND)))
    message = (
        "3 partitions never reported: rows without event_time, 2023-12-31 is before the first partition, "
        "2024-01-01, 'not-a-date' is not a day like 2024-01-31"
    )
    assert first.notes[-1] == message
    assert tick(followed(version=1), first.cursor).notes == [message]
    gone = replace(commit(2, ""), fingerprint_changes={"": -10})
    assert "rows without" in tick(followed(gone), first.cursor).notes[-1]
    later = tick(followed(version=2), tick(followed(gone), first.cursor).cursor)
    assert later.notes[-1].startswith("2 partitions never reported: 2023-12-31")


def test_many_names_are_counted_and_some_are_named():
    decision = tick(followed(commit(1, *(f"day {number:02}" for number in range(25)))))
    (note,) = decision.notes
    assert note.startswith("25 partitions never reported: 'day 00'")
    assert note.endswith(", and 5 more")
    assert note.count("is not a day") == 20


def test_a_comparison_reports_what_differs_also_what_is_gone():
    before = Snapshot("table", 3, files(d2024_01_01="ab", d2024_01_02="cd", d2024_01_03="e"), "/lake")
    now = Snapshot("table", 9, files(d2024_01_01="ba", d2024_01_02="cx", d2024_01_04="f"), "/lake")
    cursor = Cursor("table", 3, "mark", before.fingerprints())
    decision = tick(Look("table", 9, "mark 9", snapshot=now, gap=True), cursor)
    assert reported(decision) == {SECOND: 9, THIRD: 9, FOURTH: 9}
    assert [change.files for change in decision.changes] == [2, 0, 1]
    assert decision.cursor == Cursor("table", 9, "mark 9", now.fingerprints())


def test_a_comparison_after_some_commits_reports_both_and_each_day_once():
    now = Snapshot("table", 9, files(d2024_01_01="a", d2024_01_02="b", d2024_01_03="c"), "/lake")
    cursor = Cursor("table", 3, "mark", {THIRD: now.fingerprint(THIRD)})
    decision = tick(Look("table", 9, "mark", [commit(4, FIRST), commit(5, SECOND)], now, gap=True), cursor)
    assert reported(decision) == {FIRST: 9, SECOND: 9}
    assert [found.version for found in decision.changes[1].commits] == [5]
    assert decision.cursor.fingerprints == now.fingerprints()
    assert not decision.cursor.touched


def test_after_a_gap_a_day_that_commits_have_touched_is_reported_whatever_they_seemed_to_say():
    now = Snapshot("table", 9, files(d2024_01_01="a", d2024_01_02="b"), "/lake")
    cursor = Cursor("table", 3, "mark", now.fingerprints(), touched=frozenset({SECOND}))
    assert reported(tick(Look("table", 9, "mark", snapshot=now, gap=True), cursor)) == {SECOND: 9}
    assert reported(tick(Look("table", 9, "mark", snapshot=now), cursor)) == {}


def test_a_look_at_the_whole_table_reports_what_no_commit_told():
    now = Snapshot("table", 3, files(d2024_01_01="a", d2024_01_02="b"), "/lake")
    cursor = Cursor("table", 3, "mark", {FIRST: now.fingerprint(FIRST)})
    decision = tick(Look("table", 3, "mark", snapshot=now), cursor)
    assert reported(decision) == {SECOND: 3}
    assert decision.notes[0].startswith(
        "1 partition of /lake changed at or before version 3 by no commit that was read"
    )
    assert decision.cursor == Cursor("table", 3, "mark", now.fingerprints())


def test_a_table_made_anew_reports_also_what_the_old_one_had_and_it_has_not():
    old = Cursor("old table", 30, "mark", {FIRST: 1, SECOND: 2, "not-a-date": 3, "2024-02-02": 4}, {"2024-02-02": 9})
    decision = tick(followed(commit(0, SECOND), commit(1, THIRD), anew=True), old)
    assert reported(decision) == {FIRST: 1, SECOND: 0, THIRD: 1}
    left = Cursor("table", 1, "mark", {SECOND: 1, THIRD: 10}, {"2024-02-02": 1}, frozenset({SECOND, THIRD}))
    assert decision.cursor == left


def test_the_cursor_survives_its_way_through_json():
    cursor = tick(followed(commit(1, FIRST, "", "2024-02-02"))).cursor
    assert cursor.fingerprints
    assert cursor.waiting
    assert Cursor.from_json(cursor.to_json()) == cursor
    assert Cursor.from_json(replace(cursor, mark=None).to_json()) == replace(cursor, mark=None)


# As it was stored before cursors had a format.
OLD_CURSOR = (
    '{"table_id":"0b8c6e9e-7a3d-4a7e-9d6e-0a5a0c9f2f11","version":7,"mark":"5f0c",'
    '"fingerprints":{"2024-01-01":11,"":5},"waiting":{"2024-02-02":7}}'
)


def test_a_cursor_of_the_first_format_is_understood_and_its_sums_are_not_relied_on():
    cursor = Cursor.from_json(OLD_CURSOR)
    assert cursor == Cursor(
        "0b8c6e9e-7a3d-4a7e-9d6e-0a5a0c9f2f11",
        7,
        "5f0c",
        {FIRST: 11, "": 5},
        {"2024-02-02": 7},
        touched=frozenset({FIRST, ""}),
    )
    assert Cursor.from_json(cursor.to_json()) == cursor
    assert json.loads(cursor.to_json())["format"] == 2


def test_a_cursor_of_a_format_to_come_counts_as_none():
    assert Cursor.from_json(cursor_text := Cursor("t", 1, "m").to_json())
    assert Cursor.from_json(cursor_text.replace('"format":2', '"format":3')) is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "garbage",
        "null",
        "[]",
        "7",
        "{}",
        '{"table_id":"t","version":1,"mark":"m","fingerprints":{}}',
        '{"table_id":"t","version":"x","mark":"m","fingerprints":{},"waiting":{}}',
        '{"table_id":"t","version":1,"mark":"m","fingerprints":[],"waiting":{}}',
        '{"table_id":"t","version":1,"mark":"m","fingerprints":{},"waiting":{"2024-01-01":null}}',
        '{"table_id":"t","version":1,"mark":"m","fingerprints":{},"waiting":{},"format":2}',
    ],
)
def test_a_cursor_that_is_not_ours_counts_as_none(text):
    assert Cursor.from_json(text) is None


def test_an_event_tells_version_operation_time_rows_and_files():
    removed = replace(commit(7, FIRST, operation="DELETE"), changes={FIRST: PartitionChange(0, 2, 0, 5)})
    event = materialization(contract.DEVICES, Change(FIRST, 7, (commit(3, FIRST), commit(5, FIRST, rows=4), removed)))
    assert (event.asset_key, event.partition) == (contract.DEVICES, FIRST)
    assert event.tags == {"dagster/data_version": "7"}
    assert event.metadata == {
        "version": dg.MetadataValue.int(7),
        "operation": dg.MetadataValue.text("WRITE, DELETE"),
        "committed": dg.MetadataValue.timestamp(AT + timedelta(minutes=7)),
        "files_added": dg.MetadataValue.int(2),
        "files_removed": dg.MetadataValue.int(2),
        "rows_added": dg.MetadataValue.int(5),
        "rows_removed": dg.MetadataValue.int(5),
        "commits": dg.MetadataValue.json([3, 5, 7]),
    }


def test_an_event_leaves_out_what_nobody_knows():
    unknown = replace(commit(7, FIRST), changes={FIRST: PartitionChange(1, 1, None, None)})
    metadata = materialization(contract.DEVICES, Change(FIRST, 7, (commit(6, FIRST), unknown))).metadata
    assert "rows_added" not in metadata
    assert "rows_removed" not in metadata
    assert "commits" not in materialization(contract.DEVICES, Change(FIRST, 7, (unknown,))).metadata
    assert materialization(contract.DEVICES, Change(FIRST, 7)).metadata == {"version": dg.MetadataValue.int(7)}
    assert materialization(contract.DEVICES, Change(FIRST, 7, files=3)).metadata["files"] == dg.MetadataValue.int(3)


# Ticks over real tables.

KINDS = {"string": pa.string(), "date": pa.date32()}


class Devices:
    """The table that somebody else writes. Every row that is added has a name of its own."""

    def __init__(self, kind="string"):
        self.uri, self.kind, self.names = contract.uri(contract.DEVICES), kind, count()
        Path(self.uri).parent.mkdir(parents=True, exist_ok=True)

    @property
    def delta(self):
        return DeltaTable(self.uri)

    @property
    def snapshot(self):
        return DeltaLog(self.uri).snapshot()

    def rows(self, *days):
        values = [date.fromisoformat(day) if day and self.kind == "date" else day for day in days]
        names = [str(next(self.names)) for _ in days]
        columns = {"type": ["phone"] * len(days), "full_name": names, "version": ["1"] * len(days)}
        return pa.table({**columns, "event_time": pa.array(values, KINDS[self.kind])})

    def append(self, *days, **options):
        write_deltalake(self.uri, self.rows(*days), mode="append", partition_by=["event_time"], **options)

    def overwrite(self, day):
        write_deltalake(self.uri, self.rows(day), mode="overwrite", predicate=f"event_time = '{day}'")

    def remove(self):
        shutil.rmtree(self.uri)

    def commit_file(self, version):
        return Path(self.uri) / "_delta_log" / f"{version:020}.json"

    def actions(self, version, kind):
        lines = [json.loads(line) for line in self.commit_file(version).read_text().splitlines()]
        return [line[kind] for line in lines if kind in line]

    def write_commit(self, version, *actions):
        self.commit_file(version).write_text("".join(f"{json.dumps(action)}\n" for action in actions))

    def append_by_hand(self, version, day):
        """What a writer does that does not read the checkpoint."""
        self.write_commit(version, {"add": removed_from(self, day)})

    def clean_up(self, but=1):
        """Forget the commits before a checkpoint, all but the last so many."""
        version = self.delta.version()
        self.delta.create_checkpoint()
        for old in range(version + 1 - but):
            self.commit_file(old).unlink(missing_ok=True)


class Ticks:
    """The sensor with the cursor that it left; its events go to the instance, as the daemon sees to, if `keeps`."""

    def __init__(self, instance, keeps=True):
        self.instance, self.keeps, self.cursor = instance, keeps, None

    def __call__(self):
        result = devices_committed(
            dg.build_sensor_context(self.instance, self.cursor, resources={"lake": LakeResource()})
        )
        for event in result.asset_events if self.keeps else ():
            self.instance.report_runless_asset_event(event)
        self.cursor = result.cursor
        assert not result.run_requests
        return result

    def reported(self):
        """The days of a tick, by the data version that was reported."""
        return versions(self())

    @property
    def left(self):
        return Cursor.from_json(self.cursor)


def versions(result):
    found = {event.partition: int(event.tags["dagster/data_version"]) for event in result.asset_events}
    assert len(found) == len(result.asset_events)
    return found


def message(result):
    return result.skip_reason.skip_message


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def ticks(instance):
    return Ticks(instance)


@pytest.fixture
def devices():
    return Devices()


@pytest.mark.parametrize("kind", KINDS)
def test_each_commit_is_reported_once_by_the_days_that_it_changed(kind, ticks):
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


def test_dagster_has_the_data_versions_and_says_so_in_the_tick(devices, ticks, instance):
    devices.append(FIRST)
    devices.append(SECOND)
    devices.append(FIRST)
    result = ticks()
    assert (
        message(result) == f"3 commits read, up to version 2; 2 days changed: {FIRST} (version 2), {SECOND} (version 1)"
    )
    assert instance.get_materialized_partitions(contract.DEVICES) == {FIRST, SECOND}
    latest = instance.get_latest_data_version_record(contract.DEVICES, partition_key=FIRST)
    assert latest.asset_materialization.tags["dagster/data_version"] == "2"
    assert latest.asset_materialization.metadata["commits"].value == [0, 2]
    assert latest.asset_materialization.metadata["rows_added"].value == 2
    assert message(ticks()) == f"nothing new in {devices.uri} since version 2"


def test_a_tick_keeps_its_message_beside_its_events(devices, instance):
    devices.append(FIRST)
    tick = devices_committed.evaluate_tick(dg.build_sensor_context(instance, resources={"lake": LakeResource()}))
    assert [event.partition for event in tick.asset_events] == [FIRST]
    assert tick.skip_message.startswith("1 commit read")


def test_two_ticks_over_the_same_commits_give_the_same_events(devices, instance):
    devices.append(FIRST, SECOND)
    devices.append(SECOND)
    with time_machine.travel(AT, tick=False):
        one, other = Ticks(instance)(), Ticks(instance)()
    assert (one.asset_events, one.cursor) == (other.asset_events, other.cursor)


def test_a_table_that_is_not_there_yet_is_waited_for(devices, ticks):
    result = ticks()
    assert message(result) == f"there is no Delta table at {devices.uri} yet: `dedp load-delta` writes one"
    assert result.cursor is None
    devices.append(FIRST)
    assert ticks.reported() == {FIRST: 0}


def test_a_table_without_rows_is_followed(devices, ticks):
    DeltaTable.create(devices.uri, devices.rows(FIRST).schema, partition_by=["event_time"])
    assert ticks.reported() == {}
    devices.append(FIRST)
    assert ticks.reported() == {FIRST: 1}


def test_a_long_log_is_taken_in_over_several_ticks(devices, ticks, monkeypatch):
    monkeypatch.setattr(delta_commits, "MAX_COMMITS", 3)
    for day in (FIRST, SECOND, FIRST, THIRD, FOURTH):
        devices.append(day)
    first = ticks()
    assert versions(first) == {FIRST: 2, SECOND: 1}
    assert message(first).startswith("3 commits read, up to version 2; the next tick goes on")
    second = ticks()
    assert versions(second) == {THIRD: 3, FOURTH: 4}
    assert message(second).startswith("2 commits read, up to version 4; 2 days changed")


def test_a_slow_log_is_taken_in_over_several_ticks(devices):
    for day in (FIRST, SECOND):
        devices.append(day)
    log = DeltaLog(devices.uri)
    first = look(log, None, seconds=0)
    assert [found.version for found in first.commits] == [0]
    assert first.notes == ["1 commit read, up to version 0; the next tick goes on"]
    second = look(log, tick(first).cursor, seconds=0)
    assert [found.version for found in second.commits] == [1]


def test_a_burst_of_many_commits_is_a_thousand_at_a_time(devices, instance):
    ticks = Ticks(instance, keeps=False)
    devices.append(FIRST)
    (add,) = devices.actions(0, "add")
    for version in range(1, 1_201):
        day = (date(2024, 1, 1) + timedelta(days=version)).isoformat() if version < 500 else SECOND
        path = f"event_time={day}/{version}.parquet"
        devices.write_commit(version, {"add": add | {"path": path, "partitionValues": {"event_time": day}}})
    first = ticks()
    assert (len(first.asset_events), ticks.left.version) == (500, 999)
    assert message(first).startswith("1,000 commits read, up to version 999; the next tick goes on")
    assert ticks.reported() == {SECOND: 1_200}
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()


FUTURE = (datetime.now(timezone.utc) + timedelta(days=40)).date()


def test_a_day_of_the_future_is_reported_as_soon_as_dagster_has_a_partition_for_it(devices, ticks, instance):
    devices.append(FIRST, FUTURE.isoformat())
    assert ticks.reported() == {FIRST: 0}
    assert message(ticks()).endswith(f"(UTC), reported when it has begun: {FUTURE}")
    midnight = datetime(FUTURE.year, FUTURE.month, FUTURE.day, tzinfo=timezone.utc)
    with time_machine.travel(midnight - timedelta(seconds=1)):
        assert ticks.reported() == {}
    with time_machine.travel(midnight + timedelta(seconds=1)):
        assert ticks.reported() == {FUTURE.isoformat(): 0}
        assert contract.DAYS.has_partition_key(FUTURE.isoformat())
        assert ticks.reported() == {}


def test_rows_that_belong_to_no_day_stop_nothing_and_stay_visible(devices, ticks):
    devices.append(FIRST, None, "not-a-date", "2024-1-2", "2023-12-31", "a b%:/=é")
    first = ticks()
    assert versions(first) == {FIRST: 0}
    named = (
        "5 partitions never reported: rows without event_time, 2023-12-31 is before the first partition, 2024-01-01, "
        "'2024-1-2' is not a day like 2024-01-31, 'a b%:/=é' is not a day like 2024-01-31, "
        "'not-a-date' is not a day like 2024-01-31"
    )
    assert message(first).endswith(named)
    assert message(ticks()) == named
    devices.append(SECOND)
    assert ticks.reported() == {SECOND: 1}
    devices.delta.delete(f"event_time IS NULL OR event_time NOT IN ('{FIRST}', '{SECOND}')")
    assert ticks.reported() == {}
    assert message(ticks()) == f"nothing new in {devices.uri} since version 2"


def test_a_log_that_was_cleaned_up_behind_us_is_made_up_for_by_comparing(devices, ticks):
    devices.append(FIRST, SECOND, THIRD)
    assert ticks.reported() == {FIRST: 0, SECOND: 0, THIRD: 0}
    devices.overwrite(FIRST)
    devices.delta.delete(f"event_time = '{SECOND}'")
    devices.append(FOURTH)
    devices.clean_up()
    result = ticks()
    assert versions(result) == {FIRST: 3, SECOND: 3, FOURTH: 3}
    assert message(result).startswith(
        f"{devices.uri}: commit 1 was removed from the log; the next commit that is left is 3; "
        "what changed was found by comparing with the files of version 3; 3 days changed"
    )
    assert ticks.left.mark == DeltaLog(devices.uri).mark(3) is not None
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()
    assert ticks.reported() == {}
    devices.append(SECOND)
    assert ticks.reported() == {SECOND: 4}


def test_a_log_that_delta_rs_cleaned_up_is_made_up_for_by_comparing(devices, ticks):
    devices.append(FIRST, configuration={"delta.logRetentionDuration": "interval 0 days"})
    ticks()
    for day in (SECOND, THIRD):
        devices.append(day)
    devices.delta.create_checkpoint()
    devices.delta.cleanup_metadata()
    assert ticks.reported() == {SECOND: 2, THIRD: 2}


def test_a_cleanup_up_to_where_we_are_reports_nothing(devices, ticks):
    devices.append(FIRST)
    devices.append(SECOND)
    ticks()
    devices.clean_up(but=0)
    for _ in range(3):
        assert ticks.reported() == {}
    devices.write_commit(2, {"add": removed_from(devices, THIRD)})
    assert ticks.reported() == {THIRD: 2}
    assert ticks.left.mark == DeltaLog(devices.uri).mark(2)


def removed_from(devices, day):
    """An add action for a file that is not there."""
    return {
        "path": f"event_time={day}/x.parquet",
        "partitionValues": {"event_time": day},
        "size": 1,
        "modificationTime": 1,
        "dataChange": True,
    }


def test_a_first_look_at_a_table_whose_log_was_cleaned_up_reports_all_it_has(devices, ticks):
    devices.append(FIRST, SECOND)
    devices.append(THIRD)
    devices.clean_up()
    result = ticks()
    assert versions(result) == {FIRST: 1, SECOND: 1, THIRD: 1}
    assert result.asset_events[0].metadata["files"].value == 1
    assert "commit 0 was removed from the log" in message(result)


def test_a_removal_that_names_no_partition_is_made_up_for_by_comparing(devices, ticks):
    devices.append(FIRST)
    devices.append(SECOND)
    (add,) = devices.actions(1, "add")
    odd = removed_from(devices, THIRD) | {"path": "x1/part-1.parquet"}
    devices.write_commit(2, {"add": odd})
    ticks()
    devices.append(SECOND)
    devices.write_commit(4, {"remove": {"path": odd["path"], "dataChange": True, "deletionTimestamp": 1}})
    devices.write_commit(5, {"remove": {"path": add["path"], "dataChange": True, "deletionTimestamp": 1}})
    result = ticks()
    assert versions(result) == {SECOND: 5, THIRD: 5}
    assert "commit 4 removes x1/part-1.parquet, and does not say" in message(result)
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()


@pytest.mark.parametrize("further", [0, 2, 5], ids=["a shorter log", "a log of the same length", "a longer log"])
def test_a_table_made_anew_is_followed_from_its_beginning(further, devices, ticks):
    devices.append(FIRST)
    devices.append(SECOND)
    devices.append(FIRST)
    assert ticks.reported() == {FIRST: 2, SECOND: 1}
    devices.remove()
    devices.append(THIRD)
    for _ in range(further):
        devices.append(SECOND)
    result = ticks()
    expected = {FIRST: further, SECOND: further, THIRD: 0}
    assert versions(result) == expected
    assert message(result).startswith(
        f"{devices.uri} is another table than the one that was followed to version 2: it was made anew"
    )
    assert ticks.left.table_id == devices.delta.metadata().id
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()
    assert ticks.reported() == {}
    devices.append(FOURTH)
    assert ticks.reported() == {FOURTH: further + 1}


def test_a_table_made_anew_whose_log_was_cleaned_up_is_taken_in_as_it_is(devices, ticks):
    devices.append(FIRST, SECOND)
    ticks()
    devices.remove()
    devices.append(SECOND)
    devices.append(THIRD)
    devices.clean_up()
    assert ticks.reported() == {FIRST: 1, SECOND: 1, THIRD: 1}


def test_a_long_table_made_anew_loses_nothing_of_the_old_one(devices, ticks, monkeypatch):
    devices.append(FIRST, SECOND)
    ticks()
    monkeypatch.setattr(delta_commits, "MAX_COMMITS", 2)
    devices.remove()
    for day in (THIRD, THIRD, SECOND):
        devices.append(day)
    assert ticks.reported() == {FIRST: 1, SECOND: 1, THIRD: 1}
    devices.remove()
    devices.append(THIRD)
    assert ticks.reported() == {THIRD: 0}


def test_a_table_replaced_within_its_log_is_the_same_table_with_another_identity(devices, ticks):
    devices.append(FIRST)
    ticks()
    (add,), (metadata,) = devices.actions(0, "add"), devices.actions(0, "metaData")
    removal = {
        "path": add["path"],
        "dataChange": True,
        "deletionTimestamp": 1,
        "partitionValues": add["partitionValues"],
    }
    devices.write_commit(
        1, {"metaData": metadata | {"id": "another"}}, {"remove": removal}, {"add": removed_from(devices, SECOND)}
    )
    assert ticks.reported() == {FIRST: 1, SECOND: 1}
    assert ticks.left.table_id == "another"
    devices.write_commit(2, {"add": removed_from(devices, THIRD)})
    assert ticks.reported() == {THIRD: 2}


def test_a_table_put_back_from_a_backup_reports_what_differs(devices, ticks, tmp_path):
    devices.append(FIRST, SECOND)
    backup = shutil.copytree(devices.uri, tmp_path / "backup")
    devices.append(SECOND)
    devices.append(THIRD)
    assert ticks.reported() == {FIRST: 0, SECOND: 1, THIRD: 2}
    devices.remove()
    shutil.copytree(backup, devices.uri)
    shorter = ticks()
    assert versions(shorter) == {SECOND: 0, THIRD: 0}
    assert "its log is not the one that was followed to version 2" in message(shorter)
    assert ticks.reported() == {}

    devices.append(FOURTH)
    assert ticks.reported() == {FOURTH: 1}
    devices.remove()
    shutil.copytree(backup, devices.uri)
    devices.append(FIRST)
    devices.append(SECOND)
    assert ticks.reported() == {FIRST: 2, SECOND: 2, FOURTH: 2}


def test_a_table_that_vanished_is_missed_and_nothing_is_forgotten(devices, ticks):
    devices.append(FIRST, SECOND, FUTURE.isoformat())
    ticks()
    before = ticks.cursor
    devices.remove()
    for _ in range(2):
        result = ticks()
        assert versions(result) == {}
        assert message(result).startswith(f"the Delta table at {devices.uri} is gone; it was followed to version 0.")
        assert ticks.cursor == before
    devices.append(SECOND)
    assert ticks.reported() == {FIRST: 0, SECOND: 0}
    assert ticks.left.waiting == {FUTURE.isoformat(): 0}


class Meddled(DeltaLog):
    """The log of a table that is made anew in the very middle of a look: when its commits were read, once."""

    def __init__(self, uri, meddle):
        super().__init__(uri)
        self.meddle = meddle

    def commits(self, after, limit=None):
        yield from super().commits(after, limit)
        meddle, self.meddle = self.meddle, lambda: None
        meddle()


def test_a_table_made_anew_while_its_log_is_read_does_not_get_mixed_up_with_the_old_one(devices, ticks):
    devices.append(FIRST)
    ticks()
    devices.append(SECOND)

    def meddle():
        devices.remove()
        for _ in range(3):
            devices.append(THIRD)

    found = look(Meddled(devices.uri, meddle), ticks.left)
    decision = tick(found, ticks.left)
    assert found.anew
    assert reported(decision) == {FIRST: 2, THIRD: 2}
    with pytest.raises(TableProblem, match="was made anew while its log was read; the next tick reads it again"):
        look(Meddled(devices.uri, meddle), None)


def test_half_a_commit_is_named_and_taken_in_when_it_is_whole(devices, ticks):
    devices.append(FIRST)
    ticks()
    devices.append(SECOND)
    devices.append(THIRD)
    whole = devices.commit_file(2).read_bytes()
    devices.commit_file(2).write_bytes(whole[: len(whole) // 2])
    first = ticks()
    assert versions(first) == {SECOND: 1}
    assert f"{devices.commit_file(2)} is not a complete commit yet" in message(first)
    second = ticks()
    assert versions(second) == {}
    assert f"{devices.commit_file(2)} is not a complete commit yet" in message(second)
    devices.commit_file(2).write_bytes(whole)
    assert ticks.reported() == {THIRD: 2}


@pytest.mark.parametrize("written", [1, 2], ids=["the first commit", "a later commit"])
def test_half_a_commit_in_a_new_table_is_waited_for(written, devices, ticks):
    for day in (FIRST, SECOND)[:written]:
        devices.append(day)
    whole = devices.commit_file(written - 1).read_bytes()
    devices.commit_file(written - 1).write_bytes(whole[:-20])
    first = ticks()
    assert versions(first) == ({FIRST: 0} if written == 2 else {})
    assert "is not a complete commit yet" in message(first)
    devices.commit_file(written - 1).write_bytes(whole)
    assert ticks.reported() == ({SECOND: 1} if written == 2 else {FIRST: 0})


def test_a_commit_that_looked_whole_and_grew_is_taken_in_again(devices, ticks):
    devices.append(FIRST)
    devices.append(SECOND, THIRD)
    whole = devices.commit_file(1).read_bytes()
    lines = whole.splitlines(keepends=True)
    devices.commit_file(1).write_bytes(b"".join(lines[:-1]))
    seen = ticks.reported()
    assert len(seen) == 2
    devices.commit_file(1).write_bytes(whole)
    assert {*seen, *ticks.reported()} == {FIRST, SECOND, THIRD}
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()


def protocol(*features):
    versions = {"minReaderVersion": 3, "minWriterVersion": 7}
    return {"protocol": versions | {"readerFeatures": list(features), "writerFeatures": list(features)}}


def test_a_table_that_cannot_be_read_fails_the_tick_and_loses_nothing(devices, ticks):
    devices.append(FIRST)
    ticks()
    devices.append(SECOND)
    devices.write_commit(2, protocol("typeWidening"))
    before = ticks.cursor
    for _ in range(2):
        with pytest.raises(UnsupportedTable, match=f"{devices.uri}: .*typeWidening"):
            ticks()
    assert ticks.cursor == before
    devices.write_commit(2, protocol("timestampNtz"))
    assert ticks.reported() == {SECOND: 1}


def test_a_table_that_is_unsupported_at_first_sight_fails_the_tick(devices, ticks):
    write_deltalake(devices.uri, devices.rows(FIRST), partition_by=["type"])
    with pytest.raises(UnsupportedTable, match="is partitioned by type; expected event_time alone"):
        ticks()


def test_a_first_file_with_a_deletion_vector_fails_the_tick(devices, ticks):
    devices.append(FIRST)
    devices.write_commit(1, protocol("deletionVectors"))
    assert ticks.reported() == {FIRST: 0}
    (add,) = devices.actions(0, "add")
    removal = {"path": add["path"], "dataChange": True, "deletionTimestamp": 1}
    vector = {"storageType": "u", "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA", "offset": 1, "sizeInBytes": 36}
    devices.write_commit(2, {"remove": removal}, {"add": add | {"deletionVector": vector | {"cardinality": 1}}})
    with pytest.raises(UnsupportedTable, match="deletionVectors"):
        ticks()
    # Who rewrites the file without the vector gives us the table back, and that day.
    removal |= {"deletionVector": vector | {"cardinality": 1}}
    devices.write_commit(3, {"remove": removal}, {"add": add | {"path": f"event_time={FIRST}/purged.parquet"}})
    assert ticks.reported() == {FIRST: 3}


def test_a_lost_cursor_reports_everything_once_more(devices, ticks):
    devices.append(FIRST)
    devices.append(SECOND)
    first = ticks.reported()
    ticks.cursor = "garbled"
    assert ticks.reported() == first
    assert ticks.reported() == {}


# What a log does not show, or shows in an odd way.


def a_minute_later():
    return time_machine.travel(datetime.now(timezone.utc) + timedelta(seconds=61))


def test_a_gap_behind_which_there_is_more_is_seen_within_a_minute(devices, ticks):
    for _ in range(7):
        devices.append(FIRST)
    ticks()
    for day in (SECOND, THIRD, THIRD, THIRD):
        devices.append(day)
    devices.delta.create_checkpoint()
    devices.append(FOURTH)
    (Path(devices.uri) / "_delta_log" / "_last_checkpoint").unlink()
    devices.commit_file(7).unlink()
    with a_minute_later():
        result = ticks()
        assert versions(result) == {SECOND: 11, THIRD: 11, FOURTH: 11}
        assert f"{devices.uri}: commit 7 is not in the log, and the table is at version 11" in message(result)
        assert ticks.reported() == {}
        devices.append(FIRST)
        assert ticks.reported() == {FIRST: 12}


def test_a_day_in_commits_that_were_overwritten_behind_us_is_seen_within_a_minute(devices, ticks):
    for day in (FIRST, SECOND, SECOND, FIRST):
        devices.append(day)
    ticks()
    devices.write_commit(1, {"add": removed_from(devices, THIRD)})
    with a_minute_later():
        result = ticks()
        # Nothing of the other writer is lost; what it overwrote is gone from its day.
        assert versions(result) == {SECOND: 3, THIRD: 3}
        assert "changed at or before version 3 by no commit that was read" in message(result)
        assert ticks.reported() == {}


def test_between_two_looks_at_the_whole_table_only_new_commits_are_read(devices, ticks, monkeypatch):
    devices.append(FIRST)
    with time_machine.travel(AT, tick=False):
        ticks()  # with commits
        ticks()  # without any
        monkeypatch.setattr(DeltaLog, "snapshot", None)
        devices.append(SECOND)
        assert ticks.reported() == {SECOND: 1}
        assert ticks.reported() == {}


def test_a_checkpoint_that_cannot_be_read_stops_no_commits(devices, ticks):
    devices.append(FIRST)
    devices.append(SECOND)
    ticks()
    devices.delta.create_checkpoint()
    checkpoint = Path(devices.uri) / "_delta_log" / f"{1:020}.checkpoint.parquet"
    checkpoint.write_bytes(checkpoint.read_bytes()[:50])
    devices.append_by_hand(2, THIRD)
    devices.commit_file(0).unlink()
    with a_minute_later():
        result = ticks()
    assert versions(result) == {THIRD: 2}
    assert f"remove {checkpoint}" in message(result)


def test_a_file_that_is_added_once_more_makes_no_day_late_and_hides_none(devices, ticks):
    devices.append(FIRST)
    devices.append(FIRST)
    (first,), (second,) = devices.actions(0, "add"), devices.actions(1, "add")
    ticks()
    removal = {"path": first["path"], "dataChange": False, "partitionValues": first["partitionValues"]}
    compacted = removed_from(devices, FIRST) | {"dataChange": False}
    devices.write_commit(2, {"remove": removal}, {"add": compacted}, {"add": second | {"dataChange": False}})
    assert ticks.reported() == {}
    with a_minute_later():
        before = ticks.cursor
        assert ticks.reported() == {}
        assert ticks.cursor == before
        devices.write_commit(3, {"add": removed_from(devices, SECOND)})
        assert ticks.reported() == {SECOND: 3}
        assert ticks.left.fingerprints == devices.snapshot.fingerprints()
    devices.write_commit(4, {"add": removed_from(devices, SECOND) | {"path": "y.parquet"}})
    devices.clean_up(but=0)
    devices.write_commit(5, {"add": removed_from(devices, THIRD)})
    assert set(ticks.reported()) == {SECOND, THIRD}


def test_a_file_rewritten_in_place_is_reported_and_a_gap_does_not_hide_it(devices, ticks):
    devices.append(FIRST)
    devices.append(SECOND)
    ticks()
    (add,) = devices.actions(0, "add")
    devices.write_commit(2, {"add": add | {"size": 7, "modificationTime": 7}})
    assert ticks.reported() == {FIRST: 2}


@pytest.mark.parametrize("kind", KINDS)
def test_a_date_has_one_name_however_the_log_writes_it(kind, ticks):
    devices = Devices(kind)
    devices.append(SECOND)
    ticks()
    odd = removed_from(devices, "x") | {"partitionValues": {"event_time": "2024-1-1"}}
    devices.write_commit(1, {"add": odd})
    result = ticks()
    assert versions(result) == ({FIRST: 1} if kind == "date" else {})
    assert ("'2024-1-1' is not a day" in message(result)) == (kind == "string")
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()


def test_a_date_that_is_out_of_reach_is_named_and_stops_no_other_day(ticks):
    devices = Devices("date")
    devices.append(FIRST)
    far = [{"partitionValues": {"event_time": value}} for value in ("+10000-01-01", "-0001-01-01", "9999-12-31")]
    devices.write_commit(1, *({"add": removed_from(devices, day) | odd} for day, odd in zip("xyz", far, strict=True)))
    result = ticks()
    assert versions(result) == {FIRST: 0}
    for said in ("'+10000-01-01' is not a day", "'-0001-01-01' is not a day", "reported when it has begun: 9999-12-31"):
        assert said in message(result)
    with a_minute_later():
        devices.write_commit(2, {"add": removed_from(devices, SECOND)})
        assert ticks.reported() == {SECOND: 2}


def test_deletion_vectors_that_come_and_go_between_two_looks_are_followed(devices, ticks):
    devices.append(FIRST, SECOND)
    ticks()
    add = next(add for add in devices.actions(0, "add") if FIRST in add["path"])
    of_file = {"path": add["path"], "partitionValues": add["partitionValues"]}
    vector = {"storageType": "u", "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA", "offset": 1, "sizeInBytes": 36}
    vector |= {"cardinality": 1}
    devices.write_commit(1, protocol("deletionVectors"))
    devices.write_commit(2, {"remove": of_file | {"dataChange": True}}, {"add": add | {"deletionVector": vector}})
    purged = removed_from(devices, FIRST) | {"dataChange": False}
    devices.write_commit(3, {"remove": of_file | {"dataChange": False, "deletionVector": vector}}, {"add": purged})
    assert ticks.reported() == {FIRST: 2}
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()


# Any order of commits, cleanups and ticks.

DAYS = [FIRST, SECOND, THIRD]
SOME_DAYS = st.lists(st.sampled_from(DAYS), min_size=1, max_size=3)
examples = count()


class CommitsOverTime(RuleBasedStateMachine):
    """Somebody writes, deletes, restores, compacts, cleans up and starts again; ticks come in between.

    The machine knows each day's rows after each step, and so which days changed since the tick before.
    """

    @initialize(kind=st.sampled_from([*KINDS]))
    def begin(self, kind):
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("DEDP_DATA_URI", f"{settings.data_uri()}/{next(examples)}")
        self.devices, self.ticks = Devices(kind), Ticks(dg.DagsterInstance.ephemeral(), keeps=False)
        self.rows = {}
        self.begin_anew()

    def begin_anew(self):
        self.rows_before = self.rows
        self.changed = set()
        self.restored = set()  # days that may have got other files with the same rows, by a commit that changed data
        self.compacted = set()  # or by one that did not
        self.log_is_whole = True

    def there(self):
        return Path(self.devices.uri).exists()

    def step(self, work):
        before = self.rows
        work()
        self.rows = {}
        table = self.devices.delta.to_pyarrow_table(columns=["full_name", "event_time"])
        for name, day in zip(table["full_name"].to_pylist(), table["event_time"].to_pylist(), strict=True):
            self.rows.setdefault(str(day), set()).add(name)
        self.changed |= differing(before, self.rows)

    @rule(days=SOME_DAYS)
    def rows_are_appended(self, days):
        self.step(lambda: self.devices.append(*days))

    @precondition(there)
    @rule(day=st.sampled_from(DAYS))
    def a_day_is_overwritten(self, day):
        self.step(lambda: self.devices.overwrite(day))

    @precondition(there)
    @rule(day=st.sampled_from(DAYS))
    def a_day_is_deleted(self, day):
        self.step(lambda: self.devices.delta.delete(f"event_time = '{day}'"))

    @precondition(there)
    @rule(name=st.integers(0, 12))
    def a_row_is_deleted(self, name):
        self.step(lambda: self.devices.delta.delete(f"full_name = '{name}'"))

    @precondition(there)
    @rule()
    def the_table_is_compacted(self):
        self.compacted |= set(self.rows)
        self.step(lambda: self.devices.delta.optimize.compact())

    @precondition(lambda self: self.there() and self.devices.commit_file(0).exists())
    @precondition(lambda self: self.devices.commit_file(1).exists())
    @rule(back=st.integers(1, 4))
    def an_older_version_is_restored(self, back):
        self.restored |= set(DAYS)
        self.step(lambda: self.devices.delta.restore(max(self.devices.delta.version() - back, 0)))

    @precondition(there)
    @rule()
    def old_commits_are_cleaned_up(self):
        self.devices.clean_up()
        self.log_is_whole = False

    @precondition(there)
    @rule(days=SOME_DAYS)
    def the_table_is_made_anew(self, days):
        self.devices.remove()
        self.log_is_whole = False
        self.step(lambda: self.devices.append(*days))

    @rule()
    def a_tick_follows(self):
        touched = self.ticks.left.touched if self.ticks.left else set()
        seen = set(self.ticks.reported())
        if self.log_is_whole:
            assert self.changed <= seen <= self.changed | self.restored
        else:
            assert (
                differing(self.rows_before, self.rows)
                <= seen
                <= self.changed | self.restored | self.compacted | touched
            )
        if self.there():
            assert self.ticks.left.fingerprints == self.devices.snapshot.fingerprints()
            assert self.ticks.left.version == self.devices.delta.version()
        self.begin_anew()

    @rule()
    def an_idle_tick_follows(self):
        self.a_tick_follows()
        assert self.ticks.reported() == {}

    def teardown(self):
        self.an_idle_tick_follows()
        self.ticks.instance.dispose()
        shutil.rmtree(settings.data_uri(), ignore_errors=True)
        self.patch.undo()


def differing(rows, others):
    return {day for day in {*rows, *others} if rows.get(day) != others.get(day)}


CommitsOverTime.TestCase.settings = hypothesis_settings(
    max_examples=60, stateful_step_count=15, deadline=None, derandomize=True, database=None
)
test_no_order_of_commits_cleanups_and_ticks_loses_a_change = CommitsOverTime.TestCase
