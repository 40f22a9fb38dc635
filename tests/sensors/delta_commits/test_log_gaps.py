"""What the log does not show is found by comparing, and no change is lost."""

from pathlib import Path

from dedp_assets.delta.log import DeltaLog
from tests.sensors.delta_commits.world import (
    FIRST,
    FOURTH,
    SECOND,
    THIRD,
    CommitTicks,
    Devices,
    a_minute_later,
    add_of,
    versions,
)


def test_a_log_that_was_cleaned_up_behind_us_is_made_up_for_by_comparing(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST, SECOND, THIRD)
    assert ticks.reported() == {FIRST: 0, SECOND: 0, THIRD: 0}
    devices.overwrite(FIRST)
    devices.delta.delete(f"event_time = '{SECOND}'")
    devices.append(FOURTH)
    devices.clean_up()
    result = ticks()
    assert versions(result) == {FIRST: 3, SECOND: 3, FOURTH: 3}
    assert result.message.startswith(
        f"{devices.uri}: commit 1 was removed from the log; the next commit that is left is 3; "
        "what changed was found by comparing with the files of version 3; 3 days changed"
    )
    assert ticks.left.mark == DeltaLog(devices.uri).mark(3) is not None
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()
    assert ticks.reported() == {}
    devices.append(SECOND)
    assert ticks.reported() == {SECOND: 4}


def test_a_log_that_delta_rs_cleaned_up_is_made_up_for_by_comparing(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST, configuration={"delta.logRetentionDuration": "interval 0 days"})
    ticks()
    for day in (SECOND, THIRD):
        devices.append(day)
    devices.delta.create_checkpoint()
    devices.delta.cleanup_metadata()
    assert ticks.reported() == {SECOND: 2, THIRD: 2}


def test_a_cleanup_up_to_where_we_are_reports_nothing(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    devices.append(SECOND)
    ticks()
    devices.clean_up(kept=0)
    for _ in range(3):
        assert ticks.reported() == {}
    devices.write_commit(2, {"add": add_of(THIRD)})
    assert ticks.reported() == {THIRD: 2}
    assert ticks.left.mark == DeltaLog(devices.uri).mark(2)


def test_the_first_tick_on_a_log_that_was_cleaned_up_reports_every_day_of_the_table(
    devices: Devices, ticks: CommitTicks
) -> None:
    devices.append(FIRST, SECOND)
    devices.append(THIRD)
    devices.clean_up()
    result = ticks()
    assert versions(result) == {FIRST: 1, SECOND: 1, THIRD: 1}
    assert result.events[0].metadata["files"].value == 1
    assert "commit 0 was removed from the log" in result.message


def test_a_removal_that_names_no_partition_is_made_up_for_by_comparing(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    devices.append(SECOND)
    (add,) = devices.actions(1, "add")
    odd = add_of(THIRD) | {"path": "x1/part-1.parquet"}
    devices.write_commit(2, {"add": odd})
    ticks()
    devices.append(SECOND)
    devices.write_commit(4, {"remove": {"path": odd["path"], "dataChange": True, "deletionTimestamp": 1}})
    devices.write_commit(5, {"remove": {"path": add["path"], "dataChange": True, "deletionTimestamp": 1}})
    result = ticks()
    assert versions(result) == {SECOND: 5, THIRD: 5}
    assert "commit 4 removes x1/part-1.parquet, and does not say" in result.message
    assert ticks.left.fingerprints == devices.snapshot.fingerprints()


def test_a_gap_behind_which_there_is_more_is_seen_within_a_minute(devices: Devices, ticks: CommitTicks) -> None:
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
        assert f"{devices.uri}: commit 7 is not in the log, and the table is at version 11" in result.message
        assert ticks.reported() == {}
        devices.append(FIRST)
        assert ticks.reported() == {FIRST: 12}


def test_a_day_in_commits_that_were_overwritten_behind_us_is_seen_within_a_minute(
    devices: Devices, ticks: CommitTicks
) -> None:
    for day in (FIRST, SECOND, SECOND, FIRST):
        devices.append(day)
    ticks()
    devices.write_commit(1, {"add": add_of(THIRD)})
    with a_minute_later():
        result = ticks()
        # Nothing of the other writer is lost; what it overwrote is gone from its day.
        assert versions(result) == {SECOND: 3, THIRD: 3}
        assert "changed at or before version 3, but no commit that was read says so" in result.message
        assert ticks.reported() == {}


def test_a_checkpoint_that_cannot_be_read_stops_no_commits(devices: Devices, ticks: CommitTicks) -> None:
    devices.append(FIRST)
    devices.append(SECOND)
    ticks()
    devices.delta.create_checkpoint()
    checkpoint = Path(devices.uri) / "_delta_log" / f"{1:020}.checkpoint.parquet"
    checkpoint.write_bytes(checkpoint.read_bytes()[:50])
    devices.write_commit(2, {"add": add_of(THIRD)})
    devices.commit_file(0).unlink()
    with a_minute_later():
        result = ticks()
    assert versions(result) == {THIRD: 2}
    assert f"remove {checkpoint}" in result.message
