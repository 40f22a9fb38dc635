"""What the purge takes from Dagster is still there, and it knows every table. If a release changes it, this says so."""

from datetime import datetime, timezone
from pathlib import Path

from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionStatus
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.storage import tags
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs.schema import RunStorageSqlMetadata
from dagster._core.storage.schedules.schema import ScheduleStorageSqlMetadata

from dedp_assets.retention._dagster import (
    BACKFILLS_UNDER_WAY,
    BOUNDED,
    ENDED_RUNS,
    GROWING,
    OF_RUNS_UNDER_WAY,
    ORIGIN_TAGS,
    RUN_KEY_TAG,
    RUNLESS,
    output_of_ticks,
)

TABLES = {
    name: set(table.columns.keys())
    for metadata in (RunStorageSqlMetadata, SqlEventLogStorageMetadata, ScheduleStorageSqlMetadata)
    for name, table in metadata.tables.items()
}


def test_each_table_of_dagster_is_purged_or_does_not_grow_and_has_the_columns_that_the_purge_names() -> None:
    assert TABLES.keys() | {"alembic_version"} == {*GROWING, *OF_RUNS_UNDER_WAY, *BOUNDED}
    for name, columns in {**GROWING, **OF_RUNS_UNDER_WAY}.items():
        assert columns <= TABLES[name], name


def test_dagster_calls_what_has_ended_and_what_is_under_way_as_the_purge_does() -> None:
    assert {*ENDED_RUNS} == {status.value for status in FINISHED_STATUSES}
    assert {*BACKFILLS_UNDER_WAY} == {each.value for each in {*BulkActionStatus} - {*BULK_ACTION_TERMINAL_STATUSES}}


def test_the_names_of_tags_and_of_events_without_a_run_are_dagsters() -> None:
    assert (RUN_KEY_TAG, *ORIGIN_TAGS) == (tags.RUN_KEY_TAG, tags.PARENT_RUN_ID_TAG, tags.ROOT_RUN_ID_TAG)
    assert RUNLESS == RUNLESS_RUN_ID


def test_the_output_of_a_tick_is_where_the_purge_looks_for_it(tmp_path: Path) -> None:
    logs = LocalComputeLogManager(str(tmp_path))
    with logs.open_log_stream(["__repository__", "landed", "17"], ComputeIOType.STDERR) as stream:
        assert stream
        stream.write("said")
    [file] = output_of_ticks(logs, datetime.max.replace(tzinfo=timezone.utc))
    assert file.read_text() == "said"
