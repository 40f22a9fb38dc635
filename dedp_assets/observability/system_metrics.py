"""The figures of the whole system for Prometheus, read from PostgreSQL when they are asked for.

Each figure is a pass over an index, or over a table that stays small. No label has a value for each run, partition or
file. Figures over a time are gauges with a `window`, as those of the client uploads: Dagster's tables lose old rows to
retention, and a counter must not go down.
"""

import json
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from psycopg2.extensions import connection as Connection

from dedp_assets.observability.accounts import rows_by_pipeline
from dedp_assets.observability.dagster_tables import asset_name, heartbeats, runs_under_way, tick_of

WINDOWS = {"1h": 3600.0, "1d": 86_400.0}
QUANTILES = (0.5, 0.95)

_FINISHED = """
    SELECT
        coalesce(split_part(tag.value, '@', 2), ''), pipeline_name, status, count(*),
        percentile_cont(%(quantiles)s::double precision[]) WITHIN GROUP (ORDER BY end_time - start_time)
    FROM runs
    LEFT JOIN run_tags AS tag ON tag.run_id = runs.run_id AND tag.key = '.dagster/repository'
    WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED')
        AND update_timestamp > (now() AT TIME ZONE 'UTC') - %(seconds)s * interval '1 second'
    GROUP BY 1, 2, 3
"""

# Sensors and schedules that are on: the last tick of each that has ended, and how many of the last hour ended how.
_TICKS = """
    SELECT
        instigator_body, extract(epoch FROM last.timestamp)::double precision, last.status, last.tick_body, recent.ticks
    FROM instigators
    LEFT JOIN LATERAL (
        SELECT "timestamp", status, tick_body FROM job_ticks AS tick
        WHERE tick.selector_id = instigators.selector_id AND status <> 'STARTED'
        ORDER BY "timestamp" DESC LIMIT 1
    ) AS last ON true
    LEFT JOIN LATERAL (
        SELECT json_object_agg(status, number) AS ticks
        FROM (
            SELECT status, count(*) AS number FROM job_ticks AS tick
            WHERE tick.selector_id = instigators.selector_id
                AND tick."timestamp" > (now() AT TIME ZONE 'UTC') - interval '1 hour'
            GROUP BY status
        ) AS by_status
    ) AS recent ON true
    WHERE instigators.status <> 'STOPPED'
"""

# Not asset_keys.last_materialization_timestamp: a run that only plans to materialize an asset sets it, too.
_ASSETS = """
    SELECT asset_key, extract(epoch FROM last."timestamp")::double precision
    FROM asset_keys
    CROSS JOIN LATERAL (
        SELECT "timestamp" FROM event_logs AS event
        WHERE event.asset_key = asset_keys.asset_key AND event.dagster_event_type = 'ASSET_MATERIALIZATION'
        ORDER BY id DESC LIMIT 1
    ) AS last
"""

_FRESHNESS = """
    SELECT DISTINCT ON (asset_key) asset_key, event
    FROM event_logs
    WHERE dagster_event_type = 'FRESHNESS_STATE_CHANGE' AND asset_key IS NOT NULL
    ORDER BY asset_key, id DESC
"""

_BACKFILLS = "SELECT count(*) FROM bulk_actions WHERE status IN ('REQUESTED', 'CANCELING', 'FAILING')"

# From when a file was seen complete until its rows were there, by pipeline. Each table keeps both times.
_LATENCIES = {
    "client_uploads": (
        "dedp.upload_files",
        """
        SELECT percentile_cont(%(quantiles)s::double precision[])
            WITHIN GROUP (ORDER BY extract(epoch FROM dealt_with_at - first_seen_at))
        FROM dedp.upload_files
        WHERE state = 'loaded' AND dealt_with_at > now() - %(seconds)s * interval '1 second'
        """,
    ),
    "promotions": (
        "dedp.promotion_deliveries",
        """
        SELECT percentile_cont(%(quantiles)s::double precision[])
            WITHIN GROUP (ORDER BY extract(epoch FROM loaded_at - ready_at))
        FROM dedp.promotion_deliveries
        WHERE loaded_at > now() - %(seconds)s * interval '1 second'
        """,
    ),
    "user_intake": (
        "dedp.users_intakes",
        """
        SELECT percentile_cont(%(quantiles)s::double precision[])
            WITHIN GROUP (ORDER BY extract(epoch FROM stored_at - fetched_at))
        FROM dedp.users_intakes
        WHERE stored_at > now() - %(seconds)s * interval '1 second'
        """,
    ),
}

# The others: the asset of the input and the one of the rows. Dagster keeps when each partition was materialized.
_FOLLOWED = {
    "sequencer": ('["devices_file"]', '["dedp", "devices_raw"]'),
    "late_data": ('["lake", "devices"]', '["lake", "device_counts"]'),
    "flight_search": ('["flights", "searches"]', '["flights", "searches_per_route"]'),
}
# Of each result, the first input since the result before it. A result without a new input is no answer to one.
_FOLLOWED_LATENCY = """
    SELECT percentile_cont(%(quantiles)s::double precision[])
        WITHIN GROUP (ORDER BY extract(epoch FROM result."timestamp" - input."timestamp")::double precision)
    FROM (
        SELECT id, partition, "timestamp" FROM event_logs
        WHERE asset_key = %(result)s AND dagster_event_type = 'ASSET_MATERIALIZATION'
        ORDER BY id DESC LIMIT 5000
    ) AS result
    CROSS JOIN LATERAL (
        SELECT coalesce(max(id), 0) AS id FROM event_logs
        WHERE asset_key = %(result)s AND dagster_event_type = 'ASSET_MATERIALIZATION'
            AND partition = result.partition AND id < result.id
    ) AS before
    CROSS JOIN LATERAL (
        SELECT "timestamp" FROM event_logs
        WHERE asset_key = %(input)s AND dagster_event_type = 'ASSET_MATERIALIZATION'
            AND partition = result.partition AND id BETWEEN before.id AND result.id
        ORDER BY id LIMIT 1
    ) AS input
    WHERE result."timestamp" > (now() AT TIME ZONE 'UTC') - %(seconds)s * interval '1 second'
"""

_INCIDENTS = """
    SELECT problem ->> 'kind', problem ->> 'severity', count(*)
    FROM dedp.alert_incidents
    WHERE state = 'open'
    GROUP BY 1, 2
"""

# A target that no process has had lately is no longer in the settings.
_ALERTS = """
    WITH waiting AS (
        SELECT FROM dedp.alert_deliveries
        JOIN dedp.alert_targets USING (target)
        WHERE sent_at IS NULL AND seen_at > (SELECT ended_at - interval '10 min' FROM dedp.alert_looks)
    )
    SELECT
        (SELECT extract(epoch FROM ended_at)::double precision FROM dedp.alert_looks),
        (SELECT count(*) FROM waiting)
"""

_CONNECTIONS = """
    SELECT coalesce(state, 'other'), count(*)
    FROM pg_stat_activity
    WHERE backend_type = 'client backend'
    GROUP BY 1
"""

_HAS_TABLE = "SELECT to_regclass(%s) IS NOT NULL"


def database_is_up(is_up: bool) -> Metric:
    """Whether the figures could be read. Without it, there are no others."""
    return GaugeMetricFamily("dedp_database_up", "1 if PostgreSQL answers, else 0", value=float(is_up))


def of_dagster(dagster: Connection) -> Iterator[Metric]:
    """The figures of Dagster. `dagster`: to its tables."""
    if _has(dagster, "runs"):
        yield from _of_runs(dagster)
        yield from _of_daemons(dagster)
        yield from _of_ticks(dagster)
        yield from _of_assets(dagster)


def _of_runs(dagster: Connection) -> Iterator[Metric]:
    under_way = GaugeMetricFamily("dedp_runs_under_way", "Runs that are not finished", labels=["job", "status"])
    queue = GaugeMetricFamily("dedp_queue_length", "Runs that wait for their start")
    oldest = GaugeMetricFamily("dedp_queue_oldest_seconds", "How long the first of them has been waiting")
    longest = GaugeMetricFamily("dedp_run_longest_seconds", "How long the longest run that executes has taken so far")
    runs = runs_under_way(dagster)
    counts: dict[tuple[str, str], int] = {}
    for run in runs:
        counts[run.job, run.status] = counts.get((run.job, run.status), 0) + 1
    for labels, number in counts.items():
        under_way.add_metric(labels, number)
    waiting = [run.age for run in runs if run.status in ("QUEUED", "NOT_STARTED")]
    queue.add_metric([], len(waiting))
    oldest.add_metric([], max(waiting, default=0.0))
    longest.add_metric([], max((run.age for run in runs if run.status == "STARTED"), default=0.0))
    yield from (under_way, queue, oldest, longest, *_of_finished_runs(dagster))
    with dagster.cursor() as cursor:
        cursor.execute(_BACKFILLS)
        (backfills,) = cursor.fetchone() or (0,)
    yield GaugeMetricFamily("dedp_backfills_under_way", "Backfills that are not finished", value=backfills)


def _of_finished_runs(dagster: Connection) -> Iterator[Metric]:
    finished = GaugeMetricFamily(
        "dedp_runs_finished",
        "Runs that finished in the window, each attempt by itself",
        labels=["window", "location", "job", "status"],
    )
    durations = GaugeMetricFamily(
        "dedp_run_duration_seconds",
        "Quantiles of how long these runs executed",
        labels=["window", "location", "job", "status", "quantile"],
    )
    with dagster.cursor() as cursor:
        for window, seconds in WINDOWS.items():
            cursor.execute(_FINISHED, {"quantiles": list(QUANTILES), "seconds": seconds})
            for location, job, status, number, quantiles in cursor.fetchall():
                finished.add_metric([window, location, job, status], number)
                for quantile, value in zip(QUANTILES, quantiles or (), strict=False):
                    if value is not None:
                        durations.add_metric([window, location, job, status, str(quantile)], value)
    yield from (finished, durations)


def _of_daemons(dagster: Connection) -> Iterator[Metric]:
    ages = GaugeMetricFamily(
        "dedp_daemon_silent_seconds", "How long ago a daemon gave its last sign of life", labels=["daemon"]
    )
    errors = GaugeMetricFamily("dedp_daemon_errors", "Errors that a daemon reports", labels=["daemon"])
    for beat in heartbeats(dagster):
        ages.add_metric([beat.daemon], beat.age)
        errors.add_metric([beat.daemon], len(beat.errors))
    yield from (ages, errors)


def _of_ticks(dagster: Connection) -> Iterator[Metric]:
    last = GaugeMetricFamily(
        "dedp_last_tick_timestamp_seconds",
        "When a sensor or schedule that is on was evaluated last, in s since the epoch",
        labels=["location", "name"],
    )
    failed = GaugeMetricFamily(
        "dedp_last_tick_failed", "1 if this tick failed, or says that something is wrong", labels=["location", "name"]
    )
    ticks = GaugeMetricFamily(
        "dedp_ticks", "Ticks of the last hour, by how they ended", labels=["location", "name", "status"]
    )
    with dagster.cursor() as cursor:
        cursor.execute(_TICKS)
        rows = cursor.fetchall()
    for body, timestamp, status, tick, recent in rows:
        location, name = _instigator(json.loads(body))
        if timestamp is not None:
            last.add_metric([location, name], timestamp)
            is_wrong = status == "FAILURE" or tick_of(status, 0.0, tick).reports_error
            failed.add_metric([location, name], float(is_wrong))
        for each, number in (recent or {}).items():
            ticks.add_metric([location, name, each], number)
    yield from (last, failed, ticks)


def _instigator(body: dict[str, Any]) -> tuple[str, str]:
    origin = body["origin"]
    return origin["external_repository_origin"]["repository_location_origin"]["location_name"], origin["job_name"]


def _of_assets(dagster: Connection) -> Iterator[Metric]:
    updated = GaugeMetricFamily(
        "dedp_asset_updated_timestamp_seconds",
        "When an asset was materialized last, in s since the epoch",
        labels=["asset"],
    )
    fresh = GaugeMetricFamily(
        "dedp_asset_is_fresh",
        "1 if an asset is as fresh as its freshness policy asks, 0 if it is not, -1 if that is not known",
        labels=["asset"],
    )
    with dagster.cursor() as cursor:
        cursor.execute(_ASSETS)
        for asset_key, timestamp in cursor.fetchall():
            updated.add_metric([asset_name(asset_key)], timestamp)
        cursor.execute(_FRESHNESS)
        for asset_key, event in cursor.fetchall():
            state = _state(json.loads(event))
            if state != "NOT_APPLICABLE":
                fresh.add_metric([asset_name(asset_key)], {"PASS": 1.0, "WARN": 0.0, "FAIL": 0.0}.get(state, -1.0))
    yield from (updated, fresh)


def _state(event: dict[str, Any]) -> str:
    data = event["dagster_event"]["event_specific_data"]
    new: Any = data.get("new_state", "")
    return str(new.get("__enum__", "") if isinstance(new, dict) else new).rpartition(".")[2]


def of_pipelines(database: Connection) -> Iterator[Metric]:
    """The figures of the pipelines, of the alerts and of PostgreSQL. `database`: to the project's tables."""
    yield from _of_rows(database)
    yield from _of_alerts(database)
    connections = GaugeMetricFamily(
        "dedp_postgres_connections", "Connections to PostgreSQL, by what they do", labels=["state"]
    )
    with database, database.cursor() as cursor:
        cursor.execute(_CONNECTIONS)
        for state, number in cursor.fetchall():
            connections.add_metric([state], number)
        cursor.execute("SELECT current_setting('max_connections')::integer, pg_database_size(current_database())")
        allowed, size = cursor.fetchone() or (0, 0)
    yield from (
        connections,
        GaugeMetricFamily("dedp_postgres_connections_allowed", "How many connections it allows", value=allowed),
        GaugeMetricFamily("dedp_postgres_size_bytes", "The size of the database", value=size),
    )


def _of_rows(database: Connection) -> Iterator[Metric]:
    rows = GaugeMetricFamily(
        "dedp_rows", "Rows of the loads of the window, by what became of them", labels=["pipeline", "window", "state"]
    )
    for window, seconds in WINDOWS.items():
        for pipeline, each in rows_by_pipeline(database, seconds).items():
            rows.add_metric([pipeline, window, "loaded"], each.loaded)
            rows.add_metric([pipeline, window, "quarantined"], each.quarantined)
    yield rows


def latencies(database: Connection, dagster: Connection) -> Iterator[Metric]:
    """How long it takes from an input to its rows.

    Args:
        database: To the project's tables.
        dagster: To Dagster's tables.
    """
    latency = GaugeMetricFamily(
        "dedp_landing_to_result_seconds",
        "Quantiles of the time from a complete input to its rows, of the loads of the window",
        labels=["pipeline", "window", "quantile"],
    )
    for window, seconds in WINDOWS.items():
        asked = {"quantiles": list(QUANTILES), "seconds": seconds}
        for pipeline, (table, query) in _LATENCIES.items():
            if _has(database, table):
                _add_quantiles(latency, [pipeline, window], database, query, asked)
        if _has(dagster, "event_logs"):
            for pipeline, (input, result) in _FOLLOWED.items():
                asked_of = {**asked, "input": input, "result": result}
                _add_quantiles(latency, [pipeline, window], dagster, _FOLLOWED_LATENCY, asked_of)
    yield latency


def _add_quantiles(
    metric: GaugeMetricFamily, labels: list[str], connection: Connection, query: str, asked: dict[str, Any]
) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(query, asked)
        (quantiles,) = cursor.fetchone() or (None,)
    for quantile, value in zip(QUANTILES, quantiles or (), strict=False):
        metric.add_metric([*labels, str(quantile)], value)


def _of_alerts(database: Connection) -> Iterator[Metric]:
    incidents = GaugeMetricFamily("dedp_incidents_open", "Incidents that go on", labels=["kind", "severity"])
    undelivered = GaugeMetricFamily(
        "dedp_alerts_undelivered", "Messages that have not reached a target of the settings yet"
    )
    looked = GaugeMetricFamily(
        "dedp_alerts_last_look_timestamp_seconds", "When the alerts looked last, in s since the epoch"
    )
    if _has(database, "dedp.alert_targets"):
        with database, database.cursor() as cursor:
            cursor.execute(_INCIDENTS)
            for kind, severity, number in cursor.fetchall():
                incidents.add_metric([kind, severity], number)
            cursor.execute(_ALERTS)
            last, waiting = cursor.fetchone() or (None, 0)
        undelivered.add_metric([], waiting)
        if last is not None:
            looked.add_metric([], last)
    yield from (incidents, undelivered, looked)


def _has(connection: Connection, table: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_HAS_TABLE, [table])
        return cursor.fetchone() == (True,)
