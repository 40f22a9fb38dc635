"""All that `dedp purge` takes from what Dagster does not publish: its tables, names in them, and where output is.

A release of Dagster may change any of it: tests/dedp_assets/retention/test_canary.py names what has changed.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

# The tables that grow with time, and the columns that the statements of `purging` name.
GROWING: Mapping[str, frozenset[str]] = {
    "runs": frozenset({"id", "run_id", "status", "update_timestamp", "backfill_id"}),
    "run_tags": frozenset({"run_id", "key", "value"}),
    "event_logs": frozenset({"id", "run_id", "timestamp", "asset_key", "dagster_event_type", "partition"}),
    "asset_event_tags": frozenset({"id", "event_id"}),
    "asset_check_executions": frozenset({"id", "run_id", "create_timestamp", "asset_key", "check_name", "partition"}),
    "job_ticks": frozenset({"id", "timestamp", "job_origin_id", "tick_body"}),
    "asset_daemon_asset_evaluations": frozenset({"id", "create_timestamp"}),
    "bulk_actions": frozenset({"key", "timestamp", "status"}),
    "backfill_tags": frozenset({"backfill_id"}),
}

# Those whose rows go when a run ends.
OF_RUNS_UNDER_WAY: Mapping[str, frozenset[str]] = {
    "concurrency_slots": frozenset({"run_id"}),
    "pending_steps": frozenset({"run_id"}),
}

# Those with a row for each thing that there is, whatever the time: daemon, cursor, sensor, asset, partition, pool, job.
BOUNDED = frozenset(
    {
        "alembic_version",
        "asset_keys",
        "concurrency_limits",
        "daemon_heartbeats",
        "dynamic_partitions",
        "instance_info",
        "instigators",
        "jobs",
        "kvs",
        "secondary_indexes",
        "snapshots",
    }
)

ENDED_RUNS = ("SUCCESS", "FAILURE", "CANCELED")
BACKFILLS_UNDER_WAY = ("REQUESTED", "CANCELING", "FAILING")

# The id of a run for events that no run has made: what sensors and other systems report.
RUNLESS = ""

RUN_KEY_TAG = "dagster/run_key"
ORIGIN_TAGS = ("dagster/parent_run_id", "dagster/root_run_id")


def output_of_ticks(logs: ComputeLogManager[Any], before: datetime) -> Iterator[Path]:
    """The files with the output of ticks that have not been written since a time.

    Dagster deletes the records of ticks by their age, and leaves these files. They are in `REPOSITORY/SENSOR/TICK.err`
    of its storage, beside folders of runs and of assets.
    """
    if not isinstance(logs, LocalComputeLogManager):
        return
    for ending in ("out", "err", "complete"):
        for file in Path(logs._base_dir).glob(f"*/*/*.{ending}"):
            with suppress(FileNotFoundError):
                if file.stem.isdecimal() and file.stat().st_mtime < before.timestamp():
                    yield file


__all__ = ["ComputeLogManager"]
