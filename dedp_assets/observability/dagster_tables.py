"""The state of Dagster, read from its tables in PostgreSQL: no daemon, web server or code server has to be up.

Dagster's own functions read whole runs and events, which costs more with each of them. Each query here is one pass over
an index. The tables are those of the pinned Dagster (`tests/dedp_assets/observability` reads them with a real one).
Ages are in s, by the clock of the database.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg2
from psycopg2.extensions import connection as Connection

from dedp_assets.errors import TICK_ERROR
from dedp_assets.resources.postgres import named_database_errors

# Failures that are older are not looked at, unless an incident is about them.
FAILURES_DAYS = 7
_MOST_FAILURES = 2000
# How many of the latest ticks of a sensor are looked at. One that is under way has no result yet.
TICKS = 6

_HEARTBEATS = """
    SELECT daemon_type, extract(epoch FROM now()) - extract(epoch FROM "timestamp"), body
    FROM daemon_heartbeats
"""

# A failed run that Dagster is going to start again has not failed yet. If nobody starts it again within ten minutes, it
# has. The tags are written just after the status, hence the five seconds.
_FAILED = f"""
    SELECT run_id, pipeline_name, partition, extract(epoch FROM now()) - end_time, id
    FROM runs AS failed
    WHERE status = 'FAILURE'
        AND (end_time > extract(epoch FROM now()) - {FAILURES_DAYS} * 86400 OR run_id = ANY(%(known)s))
        AND end_time < extract(epoch FROM now()) - 5
        AND NOT EXISTS (
            SELECT FROM run_tags AS tag
            WHERE tag.run_id = failed.run_id AND (
                key = 'dagster/auto_retry_run_id'
                OR (key = 'dagster/will_retry' AND value = 'true' AND end_time > extract(epoch FROM now()) - 600)
            )
        )
    ORDER BY id DESC
    LIMIT {_MOST_FAILURES}
"""

# What each of the failed runs was to materialize, and whether it did, or another run has since.
_PLANNED = """
    SELECT
        planned.run_id, planned.asset_key, planned.partition,
        EXISTS (
            SELECT FROM event_logs AS here
            WHERE here.run_id = planned.run_id AND here.asset_key = planned.asset_key
                AND here.dagster_event_type = 'ASSET_MATERIALIZATION'
                AND here.partition IS NOT DISTINCT FROM planned.partition
        ),
        CASE WHEN planned.partition IS NULL THEN EXISTS (
            SELECT FROM event_logs AS later
            WHERE later.asset_key = planned.asset_key AND later.dagster_event_type = 'ASSET_MATERIALIZATION'
                AND later.id > planned.id AND later.run_id <> planned.run_id
        ) ELSE EXISTS (
            SELECT FROM event_logs AS later
            WHERE later.asset_key = planned.asset_key AND later.dagster_event_type = 'ASSET_MATERIALIZATION'
                AND later.partition = planned.partition
                AND later.id > planned.id AND later.run_id <> planned.run_id
        ) END
    FROM event_logs AS planned
    WHERE planned.run_id = ANY(%s) AND planned.dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED'
"""

# A job without assets is all right again when a later run of it, of the same partition, has succeeded.
_SUCCEEDED_SINCE = """
    SELECT failed.run_id
    FROM runs AS failed
    WHERE failed.run_id = ANY(%s) AND EXISTS (
        SELECT FROM runs AS later
        WHERE later.pipeline_name = failed.pipeline_name AND later.id > failed.id AND later.status = 'SUCCESS'
            AND later.partition IS NOT DISTINCT FROM failed.partition
    )
"""

_WHY_FAILED = """
    SELECT DISTINCT ON (run_id) run_id, event
    FROM event_logs
    WHERE run_id = ANY(%s) AND dagster_event_type IN ('STEP_FAILURE', 'PIPELINE_FAILURE')
    ORDER BY run_id, id
"""

# A waiting run has no start_time. `create_timestamp` is in the time zone of the session, `update_timestamp` in UTC.
_UNDER_WAY = """
    SELECT
        run_id, pipeline_name, status, partition,
        CASE
            WHEN status = 'STARTED' THEN extract(epoch FROM now()) - start_time
            WHEN status IN ('QUEUED', 'NOT_STARTED') THEN extract(epoch FROM localtimestamp - create_timestamp)
            ELSE extract(epoch FROM now()) - extract(epoch FROM update_timestamp)
        END
    FROM runs
    WHERE status IN ('QUEUED', 'NOT_STARTED', 'MANAGED', 'STARTING', 'STARTED', 'CANCELING')
    ORDER BY id
"""

_TICKS = f"""
    SELECT asked.selector_id, tick.status, extract(epoch FROM now()) - extract(epoch FROM tick."timestamp"),
        tick.tick_body
    FROM unnest(%s::text[]) AS asked (selector_id)
    CROSS JOIN LATERAL (
        SELECT status, "timestamp", tick_body
        FROM job_ticks
        WHERE job_ticks.selector_id = asked.selector_id AND status <> 'STARTED'
        ORDER BY "timestamp" DESC
        LIMIT {TICKS}
    ) AS tick
    ORDER BY asked.selector_id, tick."timestamp" DESC
"""


class Heartbeat(NamedTuple):
    """The last sign of life of a daemon. `errors`: what it says is wrong with its last round."""

    daemon: str
    age: float
    errors: list[str]


class Cell(NamedTuple):
    """What a run was to materialize: an asset, or a partition of it."""

    asset: str
    partition: str | None
    is_done_here: bool
    is_done_since: bool


class FailedRun(NamedTuple):
    """A run that has failed for good.

    Attributes:
        age: how long ago it ended.
        number: its place among all runs.
        cells: what it was to materialize.
        is_done_since: whether a later run of the same job and partition has succeeded.
    """

    run_id: str
    job: str
    partition: str | None
    age: float
    number: int
    cells: list[Cell]
    is_done_since: bool


class RunUnderWay(NamedTuple):
    """A run that is not finished. `age`: how long it has been executing, or else waiting."""

    run_id: str
    job: str
    status: str
    partition: str | None
    age: float


class Tick(NamedTuple):
    """A tick of a sensor or a schedule that has ended.

    Attributes:
        message: its error, or why it was skipped. Dagster keeps none of a tick that requests runs.
        log_key: where its log is; empty if it has none.
    """

    status: str
    age: float
    message: str
    log_key: tuple[str, ...] = ()

    @property
    def reports_error(self) -> bool:
        """Whether it has not failed, and says in its message that something is wrong."""
        return self.status != "FAILURE" and self.message.startswith(TICK_ERROR)


@contextmanager
def connected_to_dagster(storage_url: str) -> Iterator[Connection]:
    """Connect to Dagster's tables, for reading, with a snapshot for each query.

    Raises:
        DatabaseUnavailable: no server answers, or the connection fails while the block uses it.
    """
    with named_database_errors():
        connection = psycopg2.connect(storage_url, application_name="dedp", connect_timeout=10)
        try:
            connection.set_session(readonly=True, autocommit=True)
            with connection.cursor() as cursor:
                cursor.execute("SET statement_timeout = '60s'")
            yield connection
        finally:
            connection.close()


def heartbeats(connection: Connection) -> list[Heartbeat]:
    """The last sign of life of each daemon that has ever run."""
    with connection.cursor() as cursor:
        cursor.execute(_HEARTBEATS)
        return [Heartbeat(daemon, float(age), _errors(body)) for daemon, age, body in cursor.fetchall()]


def _errors(body: str | None) -> list[str]:
    stored: Any = json.loads(body) if body else {}
    return [" ".join(str(error.get("message", "")).split()) for error in stored.get("errors") or []]


def failed_runs(connection: Connection, known: Sequence[str] = ()) -> list[FailedRun]:
    """The runs that have failed for good in the last days, the latest one first.

    Args:
        connection: To Dagster's tables.
        known: The ids of runs to look at, however old they are.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FAILED, {"known": list(known)})
        runs = cursor.fetchall()
        run_ids = [run_id for run_id, *_ in runs]
        cells: dict[str, list[Cell]] = {}
        cursor.execute(_PLANNED, [run_ids])
        for run_id, asset_key, *rest in cursor.fetchall():
            cells.setdefault(run_id, []).append(Cell(asset_name(asset_key), *rest))
        cursor.execute(_SUCCEEDED_SINCE, [run_ids])
        done = {run_id for (run_id,) in cursor.fetchall()}
    return [
        FailedRun(run_id, job, partition, float(age), number, cells.get(run_id, []), run_id in done)
        for run_id, job, partition, age, number in runs
    ]


def asset_name(asset_key: str) -> str:
    """An asset key as people write it, from how the tables have it: `["dedp", "devices_raw"]`."""
    return "/".join(json.loads(asset_key))


def why_failed(connection: Connection, run_ids: Sequence[str]) -> dict[str, str]:
    """What the first failure of each run says: the text of its error, in one line."""
    with connection.cursor() as cursor:
        cursor.execute(_WHY_FAILED, [list(run_ids)])
        return {run_id: event_error(json.loads(event)) for run_id, event in cursor.fetchall()}


def event_error(event: Mapping[str, Any]) -> str:
    """What a stored event says of a failure: the text of the first error in the chain of causes, in one line."""
    failed = event.get("dagster_event") or {}
    data: Mapping[str, Any] = failed.get("event_specific_data") or {}
    described = data.get("user_failure_data") or {}
    error = data.get("error") or {}
    while error.get("cause"):
        error = error["cause"]
    return " ".join((described.get("description") or error.get("message") or failed.get("message") or "").split())


def runs_under_way(connection: Connection) -> list[RunUnderWay]:
    """The runs that wait, start, execute or are being canceled, in their order."""
    with connection.cursor() as cursor:
        cursor.execute(_UNDER_WAY)
        return [
            RunUnderWay(run_id, job, status, partition, float(age or 0))
            for run_id, job, status, partition, age in cursor.fetchall()
        ]


def last_ticks(connection: Connection, selector_ids: Sequence[str]) -> dict[str, list[Tick]]:
    """The last ticks of sensors and schedules, the latest one first, by the ids of their selectors."""
    found: dict[str, list[Tick]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_TICKS, [list(selector_ids)])
        for selector_id, status, age, body in cursor.fetchall():
            found.setdefault(selector_id, []).append(tick_of(status, float(age), body))
    return found


def tick_of(status: str, age: float, body: str) -> Tick:
    """A tick, from its record. `body`: all that Dagster has stored of it, as JSON."""
    tick: Mapping[str, Any] = json.loads(body)
    data = tick.get("tick_data") or tick
    error = data.get("error") or {}
    while error.get("cause"):
        error = error["cause"]
    message = " ".join((error.get("message") or data.get("skip_reason") or "").split())
    return Tick(status, age, message, tuple(data.get("log_key") or ()))
