"""Where each day stands, according to real tables and their logs."""

import json
import shutil
from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
import pytest

from dedp_assets.late_data_integrator import contract, overview
from dedp_assets.late_data_integrator.tables import observe_progress
from dedp_assets.resources_from_settings import LakeFromSettings
from tests.dedp_assets.late_data_integrator.device_tables import Lake, Run, commit_file

DAYS = D1, D2, D3, D4 = "2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"
LATER = datetime(2024, 2, 1, tzinfo=timezone.utc)


class Rows(Protocol):
    """The rows of the overview as of now, by day. The arguments say what Dagster knows of runs."""

    def __call__(
        self, in_progress: Collection[str] = ..., failed: Collection[str] = ..., now: datetime = ...
    ) -> dict[str, overview.Row]: ...


@pytest.fixture
def rows(lake: Lake) -> Rows:
    def rows(
        in_progress: Collection[str] = (), failed: Collection[str] = (), now: datetime = LATER
    ) -> dict[str, overview.Row]:
        progress = observe_progress(LakeFromSettings(), in_progress)
        history = overview.read_history(lake.log, progress.snapshot.version)
        return {row.day: row for row in overview.day_rows(progress, history, overview.known_days(now), failed)}

    return rows


def statuses(rows: dict[str, overview.Row]) -> dict[str, overview.Status]:
    return {day: row.status for day, row in rows.items()}


def test_a_day_is_open_until_the_next_one_has_appeared_and_then_waits_and_is_clean_once_counted(
    lake: Lake, run: Run, rows: Rows
) -> None:
    lake.append(D1, "a")
    assert statuses(rows()) == {D1: "open"}
    lake.append(D2, "a")
    assert statuses(rows()) == {D1: "waiting", D2: "open"}
    run(D1)
    assert statuses(rows()) == {D2: "open", D1: "clean"}
    assert rows()[D1] == overview.Row(D1, "clean", input_version=0, counts_version=1)


def test_a_day_closed_by_one_that_has_been_deleted_since_stays_closed(lake: Lake, rows: Rows) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    lake.devices.delete(f"event_time = '{D2}'")
    assert statuses(rows()) == {D1: "waiting"}


def test_looking_makes_no_table_of_counts(lake: Lake, rows: Rows) -> None:
    lake.append(D1, "a")
    rows()
    assert not Path(lake.counts_uri).exists()


def test_a_late_day_says_which_commits_made_it_late_when_and_how_late_that_is(lake: Lake, run: Run, rows: Rows) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    run(D1)
    first = lake.append(D1, "b")
    lake.append(D2, "b")
    second = lake.append(D1, "c")
    row = rows()[D1]
    committed = [commit.timestamp for commit in lake.log.commits(-1)][second]
    assert row == overview.Row(
        D1,
        "late",
        input_version=second,
        counts_version=1,
        late_commits=(first, second),
        late_at=committed,
        lateness=timedelta(seconds=int((committed - datetime(2024, 1, 2, tzinfo=timezone.utc)).total_seconds())),
    )
    run(D1)
    assert rows()[D1].status == "clean"


def test_a_compacted_day_is_not_late(lake: Lake, run: Run, rows: Rows) -> None:
    lake.append(D1, "a")
    lake.append(D1, "b")
    run(D1)
    lake.devices.optimize.compact()
    assert rows()[D1] == overview.Row(D1, "clean", input_version=1, counts_version=1)


def test_a_day_that_was_counted_and_is_gone_is_late_until_that_is_reflected(lake: Lake, run: Run, rows: Rows) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    run(D1)
    lake.devices.delete(f"event_time = '{D1}'")
    assert (rows()[D1].status, rows()[D1].gone, rows()[D1].late_commits) == ("late", True, (2,))
    run(D1)
    assert (rows()[D1].status, rows()[D1].gone) == ("clean", False)


def test_a_day_counted_from_a_table_that_was_there_before_is_late(lake: Lake, run: Run, rows: Rows) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    run(D1, D2)
    shutil.rmtree(lake.devices_uri)
    lake.append(D1, "z")
    assert rows()[D1] == overview.Row(D1, "late", input_version=0, counts_version=None, of_another_table=True)
    assert (rows()[D2].status, rows()[D2].gone, rows()[D2].of_another_table) == ("late", True, True)


def test_a_run_under_way_counts_more_than_a_failure_before_and_that_more_than_being_late(
    lake: Lake, run: Run, rows: Rows
) -> None:
    for day in DAYS:
        lake.append(day, "a")
    run(D1, D2)
    lake.append(D1, "late")
    assert list(statuses(rows(in_progress={D3}, failed={D1, D2, D3})).items()) == [
        (D1, "failed"),
        (D3, "running"),
        (D4, "open"),
        (D2, "clean"),
    ]
    assert rows(in_progress={D1}, failed={D1})[D1].status == "running"
    assert rows(failed={D3})[D3].status == "failed"


def test_partitions_that_are_no_days_or_have_not_come_yet_are_left_out_and_close_nothing(
    lake: Lake, rows: Rows
) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    lake.append("2023-12-31", "a")
    on_the_first = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
    assert statuses(rows(now=on_the_first)) == {D1: "open"}


def test_of_a_cleaned_log_what_is_left_is_told(lake: Lake, run: Run, rows: Rows) -> None:
    lake.append(D1, "a")
    lake.append(D2, "a")
    run(D1)
    lake.append(D1, "late")
    lake.append(D1, "later")
    clean_up(lake, 3)
    assert rows()[D1][:5] == (D1, "late", 3, 1, (3,))
    assert rows()[D2] == overview.Row(D2, "open", input_version=None, counts_version=None)


def test_the_history_counts_what_was_cleaned_up_and_what_is_beyond_its_limit(lake: Lake) -> None:
    for name in "abcde":
        lake.append(D1, name)
    assert versions(overview.read_history(lake.log, 4)) == ([0, 1, 2, 3, 4], 0)
    assert versions(overview.read_history(lake.log, 3)) == ([0, 1, 2, 3], 0)
    assert versions(overview.read_history(lake.log, 4, limit=2)) == ([3, 4], 3)
    clean_up(lake, 3)
    assert versions(overview.read_history(lake.log, 4)) == ([3, 4], 3)
    clean_up(lake, 5)
    assert versions(overview.read_history(lake.log, 4)) == ([], 5)


def test_the_history_passes_over_a_commit_that_does_not_say_which_day_it_changed(lake: Lake) -> None:
    for name in "abc":
        lake.append(D1, name)
    removed = {"remove": {"path": "somewhere.parquet", "dataChange": True}}
    commit_file(lake, 1).write_text(json.dumps(removed) + "\n", encoding="utf-8")
    assert versions(overview.read_history(lake.log, 2)) == ([0, 2], 1)


def test_failed_are_the_days_whose_latest_run_that_is_over_failed() -> None:
    keys = {"asset_selection": {contract.DEVICE_COUNTS}, "job_name": "__ASSET_JOB"}
    first_to_third = {"dagster/asset_partition_range_start": D1, "dagster/asset_partition_range_end": D3}
    with dg.DagsterInstance.ephemeral() as instance:

        def finished(status: dg.DagsterRunStatus, tags: dict[str, str], **more: Any) -> None:
            instance.run_storage.add_run(dg.DagsterRun(status=status, tags=tags, **{**keys, **more}))

        finished(dg.DagsterRunStatus.FAILURE, first_to_third)
        finished(dg.DagsterRunStatus.SUCCESS, {"dagster/partition": D1})
        finished(dg.DagsterRunStatus.CANCELED, {"dagster/partition": D2})
        finished(dg.DagsterRunStatus.STARTED, {"dagster/partition": D3})
        other = {dg.AssetKey("of_another_pipeline")}
        finished(dg.DagsterRunStatus.FAILURE, {"dagster/partition": D4}, asset_selection=other)
        assert overview.days_failed(instance) == {D3}


def versions(history: overview.History) -> tuple[list[int], int]:
    return [commit.version for commit in history.commits], history.missing


def clean_up(lake: Lake, before: int) -> None:
    """Write a checkpoint, and remove the commits before a version, as Delta does."""
    lake.devices.create_checkpoint()
    for version in range(before):
        commit_file(lake, version).unlink(missing_ok=True)


@pytest.mark.parametrize("missing", [[2], [2, 3], [0], [5], [1, 3]])
def test_commits_behind_a_gap_in_the_log_are_part_of_the_history(lake: Lake, missing: list[int]) -> None:
    for _ in range(6):
        lake.append(D1, "a")
    lake.devices.create_checkpoint()
    log = Path(lake.devices_uri) / "_delta_log"
    (log / "_last_checkpoint").unlink()
    for version in missing:
        (log / f"{version:020}.json").unlink()
    history = overview.read_history(lake.log, 5)
    assert [commit.version for commit in history.commits] == [version for version in range(6) if version not in missing]
    assert history.missing == len(missing)
