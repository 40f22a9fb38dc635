"""Finished runs as OpenTelemetry traces: a span for each run, and below it its wait and each attempt of a step.

The spans are made from Dagster's event log after the run has ended: a run itself imports nothing and waits for nobody.
Trace and span ids are made from the ids of runs and steps: what is sent twice is the same trace.

Only this module and `dedp traces` import OpenTelemetry, which the extra `otel` installs.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode
from psycopg2.extensions import connection as Connection

from dedp_assets.observability.dagster_tables import asset_name, event_error

_RUNS_AT_ONCE = 100
# A run may be committed after one that ended later: runs that ended so shortly before are looked at again.
OVERLAP_SECONDS = 60.0

_RUNS = f"""
    SELECT
        runs.run_id, pipeline_name, status, partition, start_time, end_time,
        (extract(epoch FROM create_timestamp - localtimestamp) + extract(epoch FROM now()))::double precision,
        coalesce(split_part(tag.value, '@', 2), '')
    FROM runs
    LEFT JOIN run_tags AS tag ON tag.run_id = runs.run_id AND tag.key = '.dagster/repository'
    WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED') AND end_time > %(after)s AND runs.run_id <> ALL(%(seen)s)
    ORDER BY end_time
    LIMIT {_RUNS_AT_ONCE}
"""

_EVENTS = """
    SELECT run_id, dagster_event_type, step_key, asset_key, partition,
        extract(epoch FROM "timestamp")::double precision,
        CASE WHEN dagster_event_type IN ('STEP_FAILURE', 'STEP_UP_FOR_RETRY', 'PIPELINE_FAILURE') THEN event END
    FROM event_logs
    WHERE run_id = ANY(%s) AND dagster_event_type IN (
        'STEP_START', 'STEP_RESTARTED', 'STEP_SUCCESS', 'STEP_FAILURE', 'STEP_UP_FOR_RETRY', 'ASSET_MATERIALIZATION',
        'PIPELINE_FAILURE'
    )
    ORDER BY id
"""


class FinishedRun(NamedTuple):
    """A run that has ended. Times are in s since the epoch; `start` is None if it never executed."""

    run_id: str
    job: str
    status: str
    partition: str | None
    start: float | None
    end: float
    created: float
    location: str


class StepEvent(NamedTuple):
    """What has happened in a step. `error`: of a failure, or ""."""

    type: str
    step: str | None
    asset: str | None
    partition: str | None
    at: float
    error: str


def finished_runs(connection: Connection, after: float, seen: Sequence[str]) -> list[FinishedRun]:
    """The runs that ended after a time, in s since the epoch, without those that were seen; the earliest first."""
    with connection.cursor() as cursor:
        cursor.execute(_RUNS, {"after": after, "seen": list(seen)})
        return [FinishedRun(*row) for row in cursor.fetchall()]


def events_of(connection: Connection, run_ids: Sequence[str]) -> dict[str, list[StepEvent]]:
    """What has happened in the steps of runs, in order, by run id."""
    found: dict[str, list[StepEvent]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_EVENTS, [list(run_ids)])
        for run_id, type, step, asset, partition, at, event in cursor.fetchall():
            error = event_error(json.loads(event)) if event else ""
            found.setdefault(run_id, []).append(
                StepEvent(type, step, asset_name(asset) if asset else None, partition, at, error)
            )
    return found


def spans_of(run: FinishedRun, events: Sequence[StepEvent]) -> list[ReadableSpan]:
    """The trace of a run."""
    resource = Resource.create({"service.name": run.location or "dagster", "service.namespace": "dedp"})
    trace = uuid.UUID(run.run_id).int
    root = _context(trace, "run")
    about = {"dagster.run_id": run.run_id, "dagster.job": run.job, "dagster.partition": run.partition}
    assets = sorted({event.asset for event in events if event.asset})
    errors = [event.error for event in events if event.error]

    def span(
        name: str, context: SpanContext, start: float, end: float, attributes: dict[str, Any], error: str | None = None
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            context,
            None if context is root else root,
            resource,
            {key: value for key, value in {**about, **attributes}.items() if value},
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.OK) if error is None else Status(StatusCode.ERROR, error),
            start_time=_nanoseconds(start),
            end_time=_nanoseconds(max(start, end)),
            instrumentation_scope=InstrumentationScope("dedp"),
        )

    error = None if run.status == "SUCCESS" else (errors or [run.status.lower()])[-1]
    attributes = {"dagster.status": run.status, "dagster.location": run.location, "dagster.assets": assets}
    begins = min(run.created, run.start if run.start is not None else run.end)
    made = [span(f"run {run.job}", root, begins, run.end, attributes, error)]
    made.append(span("wait for the start", _context(trace, "wait"), begins, run.start or run.end, {}))
    for number, step in enumerate(_steps(events, run.end)):
        attributes = {"dagster.step": step.name, "dagster.assets": sorted(step.assets)}
        context = _context(trace, f"step {number} {step.name}")
        made.append(span(f"step {step.name}", context, step.start, step.end, attributes, step.error))
    return made


class _Step(NamedTuple):
    name: str
    start: float
    end: float
    assets: set[str]
    error: str | None


def _steps(events: Sequence[StepEvent], run_end: float) -> Iterator[_Step]:
    """Each attempt of each step. One that never ended, because its process was killed, ends with the run."""
    under_way: dict[str, tuple[float, set[str]]] = {}
    for event in events:
        if event.step is None:
            continue
        if event.type in ("STEP_START", "STEP_RESTARTED"):
            under_way[event.step] = event.at, set()
        elif event.step in under_way and event.type == "ASSET_MATERIALIZATION" and event.asset:
            under_way[event.step][1].add(event.asset)
        elif event.step in under_way and event.type != "ASSET_MATERIALIZATION":
            start, assets = under_way.pop(event.step)
            yield _Step(event.step, start, event.at, assets, event.error if event.type != "STEP_SUCCESS" else None)
    for name, (start, assets) in under_way.items():
        yield _Step(name, start, run_end, assets, "it has not ended")


def _context(trace: int, name: str) -> SpanContext:
    digest = hashlib.sha256(f"{trace:032x} {name}".encode()).digest()
    return SpanContext(trace, int.from_bytes(digest[:8], "big") or 1, False, TraceFlags(TraceFlags.SAMPLED))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


class Sender:
    """Sends the traces of finished runs, again and again.

    Args:
        exporter: An exporter of OpenTelemetry.
        after: Runs that ended later are sent; in s since the epoch.
    """

    def __init__(self, exporter: Any, after: float) -> None:
        self._exporter, self._after = exporter, after
        self._seen: dict[str, float] = {}

    def send(self, connection: Connection) -> int:
        """Send what has ended since. Returns the number of runs. What can't be sent now is sent by the next call."""
        runs = finished_runs(connection, self._after - OVERLAP_SECONDS, list(self._seen))
        events = events_of(connection, [run.run_id for run in runs])
        spans = [span for run in runs for span in spans_of(run, events.get(run.run_id, []))]
        if not spans or self._exporter.export(spans).name != "SUCCESS":
            return 0
        self._seen.update({run.run_id: run.end for run in runs})
        self._after = max([self._after, *(run.end for run in runs)])
        old = self._after - 2 * OVERLAP_SECONDS
        self._seen = {run_id: end for run_id, end in self._seen.items() if end > old}
        return len(runs)
