"""Deletes old records from Dagster's storage in PostgreSQL, and keeps what Dagster and the sensors still read.

Dagster deletes ticks (`retention` in dagster.yaml) and what conditions have evaluated, but no runs and no events. These
stay, whatever their age:

- runs that have not ended, that hold a slot of a pool, or whose backfill has not ended, with all their events;
- for each asset and each of its partitions, the latest event of every kind, with its tags: materialized, observed,
  planned. Conditions compare their ids, and the UI shows them. Also the latest result of each check;
- the record of a run that one of these events names, that has a run key or the id of a request, or that is the origin
  of such a run. Without it, the same file or request would get a run again. Its other events are deleted;
- the latest tick of each sensor and schedule, where the next one continues.

Each batch is a transaction of its own. It locks nothing but rows of runs that have ended. What no longer is the latest
event never becomes it again, so runs and ticks may go on meanwhile, and a purge that is killed continues the next time.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from psycopg2.extensions import connection as Connection

from dedp_assets.request_ids import REQUEST_TAG
from dedp_assets.retention._dagster import (
    BACKFILLS_UNDER_WAY,
    ENDED_RUNS,
    ORIGIN_TAGS,
    RUN_KEY_TAG,
    RUNLESS,
    ComputeLogManager,
    output_of_ticks,
)

# What `purge` counts, in the order of its table.
RUNS, RUN_TAGS, TRIMMED = "runs", "their tags", "runs that stay, without their log"
EVENTS, EVENT_TAGS, CHECK_RESULTS = "events", "tags of events", "results of checks"
TICKS, EVALUATIONS, BACKFILLS = "ticks", "evaluations of conditions", "backfills"
OUTPUTS, TICK_OUTPUTS = "outputs of runs", "files with the output of ticks"
COUNTED = (
    RUNS,
    RUN_TAGS,
    TRIMMED,
    EVENTS,
    EVENT_TAGS,
    CHECK_RESULTS,
    TICKS,
    EVALUATIONS,
    BACKFILLS,
    OUTPUTS,
    TICK_OUTPUTS,
)

_BATCH_RUNS = 200
_BATCH_ROWS = 5000

_LARGEST_ID = 2**63 - 1

# What the statements need besides their own parameters.
_NAMES = {
    "runless": RUNLESS,
    "ended": list(ENDED_RUNS),
    "under_way": list(BACKFILLS_UNDER_WAY),
    "kept_tags": [RUN_KEY_TAG, REQUEST_TAG],
    "origin_tags": list(ORIGIN_TAGS),
}

# Dagster's tables have the local time of the server's time zone.
_CUTOFF = "SELECT LOCALTIMESTAMP - %s, now() - %s"

# The latest first: where a run has a later attempt, that goes first.
_ENDED_RUNS = """
    SELECT run.id, run.run_id
      FROM runs AS run
     WHERE run.id < %(before_id)s
       AND run.status = ANY(%(ended)s)
       AND run.update_timestamp < %(cutoff)s
       AND NOT EXISTS (SELECT FROM concurrency_slots AS slot WHERE slot.run_id = run.run_id)
       AND NOT EXISTS (SELECT FROM pending_steps AS step WHERE step.run_id = run.run_id)
       AND NOT EXISTS (
               SELECT
                 FROM bulk_actions AS backfill
                WHERE backfill.key = run.backfill_id
                  AND backfill.status = ANY(%(under_way)s)
           )
     ORDER BY run.id DESC
     LIMIT %(batch)s
"""

_REPORTED_EVENTS = """
    SELECT id
      FROM event_logs
     WHERE run_id = %(runless)s
       AND id > %(after_id)s
       AND timestamp < %(cutoff)s
     ORDER BY id
     LIMIT %(batch)s
"""

# Two conditions for the same, with and without a partition: each has an index.
_DELETE_EVENTS = """
    WITH gone AS (
        DELETE FROM event_logs AS event
         WHERE event.run_id = ANY(%(run_ids)s)
           AND event.id BETWEEN %(first)s AND %(last)s
           AND event.timestamp < %(cutoff)s
           AND (
               event.asset_key IS NULL
               OR EXISTS (
                   SELECT
                     FROM event_logs AS newer
                    WHERE newer.asset_key = event.asset_key
                      AND newer.dagster_event_type = event.dagster_event_type
                      AND newer.partition = event.partition
                      AND newer.id > event.id
               )
               OR event.partition IS NULL AND EXISTS (
                   SELECT
                     FROM event_logs AS newer
                    WHERE newer.asset_key = event.asset_key
                      AND newer.dagster_event_type = event.dagster_event_type
                      AND newer.partition IS NULL
                      AND newer.id > event.id
               )
           )
     RETURNING event.id, event.run_id
    ), untagged AS (
        DELETE FROM asset_event_tags WHERE event_id IN (SELECT id FROM gone)
     RETURNING id
    )
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM untagged), (SELECT array_agg(DISTINCT run_id) FROM gone)
"""

_DELETE_CHECKS = """
    DELETE FROM asset_check_executions AS result
     WHERE result.run_id = ANY(%(run_ids)s)
       AND result.create_timestamp < %(cutoff)s
       AND EXISTS (
               SELECT
                 FROM asset_check_executions AS newer
                WHERE newer.asset_key = result.asset_key
                  AND newer.check_name = result.check_name
                  AND newer.partition IS NOT DISTINCT FROM result.partition
                  AND newer.id > result.id
           )
 RETURNING result.id
"""

# The tags of a run go with it, by a foreign key.
_DELETE_RUNS = """
    DELETE FROM runs AS run
     WHERE run.run_id = ANY(%(run_ids)s)
       AND NOT EXISTS (SELECT FROM event_logs AS event WHERE event.run_id = run.run_id)
       AND NOT EXISTS (SELECT FROM asset_check_executions AS result WHERE result.run_id = run.run_id)
       AND NOT EXISTS (SELECT FROM run_tags AS tag WHERE tag.run_id = run.run_id AND tag.key = ANY(%(kept_tags)s))
       AND NOT EXISTS (SELECT FROM run_tags AS tag WHERE tag.key = ANY(%(origin_tags)s) AND tag.value = run.run_id)
 RETURNING run.run_id, (SELECT count(*) FROM run_tags AS tag WHERE tag.run_id = run.run_id)
"""

_DELETE_TICKS = """
    WITH old AS (
        SELECT tick.id
          FROM job_ticks AS tick
         WHERE tick.id > %(after_id)s
           AND tick.timestamp < %(cutoff)s
           AND EXISTS (
                   SELECT
                     FROM job_ticks AS newer
                    WHERE newer.job_origin_id = tick.job_origin_id
                      AND newer.timestamp > tick.timestamp
               )
         ORDER BY tick.id
         LIMIT %(batch)s
    )
    DELETE FROM job_ticks
     USING old
     WHERE job_ticks.id = old.id
 RETURNING job_ticks.id, job_ticks.tick_body::json -> 'log_key'
"""

_DELETE_EVALUATIONS = """
    WITH old AS (
        SELECT id
          FROM asset_daemon_asset_evaluations
         WHERE id > %(after_id)s
           AND create_timestamp < %(cutoff)s
         ORDER BY id
         LIMIT %(batch)s
    )
    DELETE FROM asset_daemon_asset_evaluations AS evaluation
     USING old
     WHERE evaluation.id = old.id
 RETURNING evaluation.id
"""

# A condition looks up the backfill of the run that made the latest materialization.
_DELETE_BACKFILLS = """
    WITH gone AS (
        DELETE FROM bulk_actions AS backfill
         WHERE backfill.timestamp < %(cutoff)s
           AND backfill.status <> ALL(%(under_way)s)
           AND NOT EXISTS (SELECT FROM runs AS run WHERE run.backfill_id = backfill.key)
     RETURNING backfill.key
    ), untagged AS (
        DELETE FROM backfill_tags WHERE backfill_id IN (SELECT key FROM gone)
    )
    SELECT key FROM gone
"""


def purge(
    connection: Connection,
    older_than: timedelta,
    logs: ComputeLogManager[Any],
    *,
    dry_run: bool = False,
    batch_runs: int = _BATCH_RUNS,
    batch_rows: int = _BATCH_ROWS,
) -> "Counter[str]":
    """Delete what is older than a time and is not read any more.

    Args:
        connection: To the database of Dagster's storage, without a transaction under way.
        older_than: A run counts from its last change.
        logs: Has the output of runs and ticks.
        dry_run: Delete nothing, and count only. Each batch is rolled back.
        batch_runs: How many runs a transaction looks at.
        batch_rows: How many other rows it looks at.

    Returns:
        How many were deleted of each kind of `COUNTED`; in a dry run, how many would be.
    """
    with connection.cursor() as cursor:
        cursor.execute(_CUTOFF, [older_than, older_than])
        [[cutoff, moment]] = cursor.fetchall()
    old = _Old(connection, cutoff, None if dry_run else logs)
    counted: Counter[str] = Counter()
    for file in output_of_ticks(logs, moment):
        counted[TICK_OUTPUTS] += 1
        if not dry_run:
            file.unlink(missing_ok=True)
    for batch in chain(
        _runs(old, batch_runs),
        _reported_events(old, batch_rows),
        _ticks(old, batch_rows),
        _evaluations(old, batch_rows),
        _backfills(old),
    ):
        counted.update(batch)
        # Their files are gone by now. What is killed in between is found again, and deleted the next time.
        if dry_run:
            connection.rollback()
        else:
            connection.commit()
    connection.rollback()
    return counted


def table(counted: "Counter[str]") -> list[str]:
    """A line for each kind."""
    return [f"{counted[kind]:>12,}  {kind}" for kind in COUNTED]


class _Old(NamedTuple):
    """What is old. Without `logs`, no file is deleted."""

    connection: Connection
    cutoff: datetime
    logs: ComputeLogManager[Any] | None

    def rows(self, statement: str, **parameters: object) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, {**_NAMES, **parameters, "cutoff": self.cutoff})
            return cursor.fetchall()

    def delete_output(self, **place: Sequence[str]) -> None:
        if self.logs is not None:
            self.logs.delete_logs(**place)


# Each of these yields what a batch has deleted. It is committed before the next one begins.


def _runs(old: _Old, batch: int) -> Iterator[dict[str, int]]:
    before = _LARGEST_ID
    while found := old.rows(_ENDED_RUNS, before_id=before, batch=batch):
        before, run_ids = found[-1][0], [run_id for _, run_id in found]
        counted, without_log = _events(old, run_ids, 0, _LARGEST_ID)
        results = old.rows(_DELETE_CHECKS, run_ids=run_ids)
        deleted, tags = _delete_runs(old, run_ids)
        # A folder has the id as its name: nothing but what Dagster makes up itself.
        outputs = [run_id for run_id in {*without_log, *deleted} if _is_uuid(run_id)]
        for run_id in outputs:
            old.delete_output(prefix=[run_id])
        trimmed = len({*without_log} - {*deleted})
        yield {
            **counted,
            CHECK_RESULTS: len(results),
            RUNS: len(deleted),
            RUN_TAGS: tags,
            TRIMMED: trimmed,
            OUTPUTS: len(outputs),
        }


def _delete_runs(old: _Old, run_ids: Sequence[str]) -> tuple[list[str], int]:
    """Delete the records of these runs that nothing needs. Returns their ids, and how many tags they had."""
    deleted: list[str] = []
    tags = 0
    # Again, because a run may go once its later attempt is gone.
    while gone := old.rows(_DELETE_RUNS, run_ids=run_ids):
        deleted += [run_id for run_id, _ in gone]
        tags += sum(number for _, number in gone)
    return deleted, tags


def _reported_events(old: _Old, batch: int) -> Iterator[dict[str, int]]:
    after = 0
    while found := old.rows(_REPORTED_EVENTS, after_id=after, batch=batch):
        first, after = found[0][0], found[-1][0]
        counted, _ = _events(old, [RUNLESS], first, after)
        yield counted


def _events(old: _Old, run_ids: Sequence[str], first: int, last: int) -> tuple[dict[str, int], list[str]]:
    """Delete the events of these runs that are not needed. Returns how many, and which runs have lost some."""
    [(events, tags, lost)] = old.rows(_DELETE_EVENTS, run_ids=run_ids, first=first, last=last)
    return {EVENTS: events, EVENT_TAGS: tags}, lost or []


def _ticks(old: _Old, batch: int) -> Iterator[dict[str, int]]:
    after = 0
    while found := old.rows(_DELETE_TICKS, after_id=after, batch=batch):
        after = max(number for number, _ in found)
        for place in filter(None, (place for _, place in found)):
            old.delete_output(log_key=place)
        yield {TICKS: len(found)}


def _evaluations(old: _Old, batch: int) -> Iterator[dict[str, int]]:
    after = 0
    while found := old.rows(_DELETE_EVALUATIONS, after_id=after, batch=batch):
        after = max(number for (number,) in found)
        yield {EVALUATIONS: len(found)}


def _backfills(old: _Old) -> Iterator[dict[str, int]]:
    yield {BACKFILLS: len(old.rows(_DELETE_BACKFILLS))}


def _is_uuid(run_id: str) -> bool:
    try:
        return str(UUID(run_id)) == run_id
    except ValueError:
        return False
