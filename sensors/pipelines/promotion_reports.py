"""What the reports on promotions follow: the deliveries that are loaded, and the dashboard as it is.

The sensor looks at levels and at no events: which loads there are, which of them the differences reflect, what people
have been told, and which loads the dashboard shows. The load numbers make it cheap: a tick looks at what was loaded
since the tick before, and at what still waits. Once in a while it compares everything.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from psycopg2.extensions import connection as Connection
from pydantic import BaseModel, ValidationError

from dedp_assets.doorbell.woken_by import woken_by
from dedp_assets.origin import origin_tag
from dedp_assets.partition_runs import AHEAD_OF_BACKFILLS, partitions_of, runs_in_progress
from dedp_assets.promotions import contract
from dedp_assets.promotions.contract import Delivery
from dedp_assets.promotions.reports import following
from dedp_assets.promotions.reports.assets import STEP, ChangedDeliveries
from dedp_assets.promotions.reports.dashboard import written_version
from dedp_assets.promotions.reports.figures import read_version
from dedp_assets.promotions.reports.following import Standing
from dedp_assets.promotions.reports.tables import ensure_tables, has_deliveries
from dedp_assets.promotions.reports.workflow import WORKFLOW
from dedp_assets.run_processes import fail_ended_runs
from dedp_assets.wording import counted
from sensors.reconciliation import CAUSE_TAG, INTERVAL_SECONDS, Waiting, plan_requests
from sensors.ticks import TickReport, reporting_tick, some_of

TARGETS = [contract.DIFFERENCES, contract.DASHBOARD, contract.NOTIFICATION]

# Everything is compared once in so many seconds. This costs more the more deliveries there are.
COMPARE_ALL_SECONDS = 900
# A retry repeats all deliveries of its run. This keeps that bounded.
MAX_DELIVERIES_PER_RUN = 200
# The dashboard among what waits; no delivery has such a key.
_DASHBOARD = "dashboard"


class Cursor(BaseModel):
    """What a tick hands to the next one.

    Attributes:
        last_load: All loads up to this number are known.
        compared_all_at: When everything was compared last, in s since the epoch.
        waiting: What is behind, by partition key, as `plan_requests` has it.
    """

    last_load: int = 0
    compared_all_at: float = 0.0
    waiting: dict[str, Waiting] = {}

    @classmethod
    def from_json(cls, text: str | None) -> "Cursor":
        """The stored cursor. If there is none, or if it is not ours, an empty one: everything is looked at again."""
        try:
            return cls.model_validate_json(text or "{}")
        except ValidationError:
            return cls()


@dataclass(frozen=True)
class Seen:
    """What a tick has found.

    Attributes:
        standings: How far the reports are, by partition key.
        dashboard: The version of the figures that the dashboard lacks, "" if it shows them.
        in_progress: The partitions with a run that is queued or under way, and "dashboard" if one writes the dashboard.
        now: The time now, in s since the epoch.
    """

    standings: Mapping[str, Standing]
    dashboard: str
    in_progress: Collection[str]
    now: float


@dataclass(frozen=True)
class Plan:
    """What a tick does: the deliveries of each run that it requests, the dashboard alone, and what waits after it."""

    runs: list[dict[str, Waiting]]
    dashboard: Waiting | None
    waiting: dict[str, Waiting]


def plan_reports(seen: Seen, waiting: Mapping[str, Waiting]) -> Plan:
    """Decide which deliveries to report on now.

    A delivery is reported on as soon as it is measured, and again with growing pauses while its runs fail. Each such
    run writes the dashboard, too. The dashboard has a run of its own only if it stays behind for a minute: somebody has
    deleted it, a run was killed, or a window has closed.

    Args:
        seen: What the tick has found.
        waiting: What waited after the tick before.
    """
    behind = {key: standing.lacks for key, standing in seen.standings.items() if standing.lacks}
    new = {key: Waiting(lack, 0, seen.now) for key, lack in behind.items() if _is_new(lack, waiting.get(key))}
    unmeasured = {key for key in behind if not seen.standings[key].is_measured and seen.standings[key].load_number}
    if seen.dashboard:
        behind[_DASHBOARD] = seen.dashboard
    planned = plan_requests(behind, {**waiting, **new}, {*seen.in_progress, *unmeasured}, seen.now)
    requests = dict(planned.requests)
    dashboard, left = requests.pop(_DASHBOARD, None), dict(planned.waiting)
    if dashboard and requests:
        # The runs of the deliveries write it.
        left[_DASHBOARD] = dashboard._replace(due=seen.now + INTERVAL_SECONDS)
        dashboard = None
    return Plan(list(_in_parts(requests)), dashboard, left)


def _is_new(lack: str, known: Waiting | None) -> bool:
    return known is None or known.input != lack


def _in_parts(requests: Mapping[str, Waiting]) -> Iterator[dict[str, Waiting]]:
    """The deliveries of each run. Those of a supplier are in one run if they fit: a run compares them in one go."""
    keys = sorted(requests)
    for start in range(0, len(keys), MAX_DELIVERIES_PER_RUN):
        yield {key: requests[key] for key in keys[start : start + MAX_DELIVERIES_PER_RUN]}


@dg.sensor(
    name="promotions_followed",
    description="Requests the reports on each delivery once its metrics are there: one run for all that has changed.",
    target=WORKFLOW,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=1,
    metadata=woken_by(assets=[contract.METRICS], own_runs=True),
    required_resource_keys={"postgres"},
)
@reporting_tick
def promotions_followed(context: dg.SensorEvaluationContext, report: TickReport) -> None:
    """The rule is in `plan_reports`."""
    now = datetime.now(timezone.utc)
    cursor = Cursor.from_json(context.cursor)
    # Before the tables. Otherwise a run that ends in between would be requested again.
    in_progress = _in_progress(context.instance, report.notes) if cursor.waiting or not cursor.last_load else set()
    with context.resources.postgres.connect() as connection:
        ensure_tables(connection)
        looked = _look(connection, cursor, now.timestamp())
        if looked is None:
            report.notes.append("no delivery is loaded yet")
            return
        cursor, found = looked
        version = read_version(connection, now)
    standings = _with_partitions(found, report.notes)
    lacking = "" if version == (written_version(contract.dashboard_file()) or "") else version
    plan = plan_reports(Seen(standings, lacking, in_progress, now.timestamp()), cursor.waiting)
    report.run_requests = [_run_request(run) for run in plan.runs]
    if plan.dashboard:
        report.run_requests.append(_dashboard_request(plan.dashboard))
    report.notes.insert(0, _describe(plan.waiting))
    report.cursor = cursor.model_copy(update={"waiting": plan.waiting}).model_dump_json()


def _in_progress(instance: dg.DagsterInstance, notes: list[str]) -> set[str]:
    """What `Seen.in_progress` has. A run whose process has ended is none."""
    ended = fail_ended_runs(instance)
    if ended:
        notes.append(f"reported as failed, because their processes have ended: {', '.join(ended)}")
    runs = runs_in_progress(instance, contract.DASHBOARD)
    keys = {key for run in runs for key in {*partitions_of(run, contract.DELIVERIES), *_configured(run)}}
    return keys | ({_DASHBOARD} if runs else set())


def _configured(run: dg.DagsterRun) -> list[str]:
    config: Any = run.run_config  # of any run of these assets, also one by hand
    return list(config.get("ops", {}).get(STEP, {}).get("config", {}).get("deliveries", []))


def _look(connection: Connection, cursor: Cursor, now: float) -> tuple[Cursor, dict[Delivery, Standing]] | None:
    """How far the reports are on what waits and on what is new, and the cursor after that. None without any tables."""
    asked = [Delivery.of_key(key) for key in cursor.waiting if key != _DASHBOARD]
    with connection, connection.cursor() as sql:
        if not has_deliveries(sql):
            return None
        # A number that is lower than before: the database is another one, or was restored. All loads may be unknown.
        after = cursor.last_load if following.last_load(sql) >= cursor.last_load else 0
        compared_all_at = cursor.compared_all_at
        if not 0 <= now - compared_all_at < COMPARE_ALL_SECONDS:
            asked += following.behind(sql)
            compared_all_at = now
        followed = following.look(sql, asked, after)
    changed = {"last_load": followed.last_load, "compared_all_at": compared_all_at}
    return cursor.model_copy(update=changed), followed.standings


def _with_partitions(found: Mapping[Delivery, Standing], notes: list[str]) -> dict[str, Standing]:
    """The deliveries that need something, by partition key. Those that are no partition (any more) are noted."""
    lacking = {str(delivery.key): standing for delivery, standing in found.items() if standing.lacks}
    unknown = [key for key in lacking if not contract.DELIVERIES.has_partition_key(key)]
    if unknown:
        notes.append(f"not reported on, because DEDP_SUPPLIERS does not name the supplier: {some_of(unknown)}")
    return {key: standing for key, standing in lacking.items() if key not in unknown}


def _run_request(run: Mapping[str, Waiting]) -> dg.RunRequest:
    # A run over a range of partitions would have those between them as well.
    single = next(iter(run)) if len(run) == 1 else None
    config = None if single else dg.RunConfig(ops={STEP: ChangedDeliveries(deliveries=list(run))})
    return dg.RunRequest(
        run_key=f"{single or counted(len(run), 'delivery', 'deliveries')}:{_identity(run)}",
        partition_key=single,
        run_config=config,
        asset_selection=TARGETS,
        tags={**origin_tag("sensor"), **AHEAD_OF_BACKFILLS, CAUSE_TAG: _cause(run.values())},
    )


def _identity(run: Mapping[str, Waiting]) -> str:
    """The same for the same requests: if a tick is evaluated again, it starts no second run."""
    # When a new delivery is due depends on the tick.
    requests = [(key, each.input, each.requests, each.due if each.requests else 0) for key, each in run.items()]
    return hashlib.sha256(json.dumps(requests).encode()).hexdigest()[:16]


def _dashboard_request(waiting: Waiting) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{_DASHBOARD}:{waiting.input}:{waiting.due:.3f}",
        asset_selection=[contract.DASHBOARD],
        tags={**origin_tag("sensor"), CAUSE_TAG: "the dashboard does not show the latest figures"},
    )


def _cause(run: Collection[Waiting]) -> str:
    tries = max(each.requests for each in run) + 1
    return "loaded" if tries == 1 else f"the reports still do not reflect it (request {tries})"


def _describe(waiting: Mapping[str, Waiting]) -> str:
    if not waiting:
        return "the reports reflect every delivery"
    return f"{counted(len(waiting), 'report')} behind: {some_of(sorted(waiting))}"
