"""When the user intake runs: once a day, as soon as the API is up, and again where a day stays behind its raw copy."""

from collections.abc import Collection, Mapping
from datetime import datetime, timezone

import dagster as dg

from dedp_assets import settings
from dedp_assets.days import day_of
from dedp_assets.partition_runs import partitions_in_progress
from dedp_assets.user_intake import contract
from dedp_assets.user_intake.raw_copies import Header, headers_below
from dedp_assets.user_intake.storing import ensure_tables, stored_versions
from sensors.reconciliation import (
    CAUSE_TAG,
    Observation,
    Waiting,
    from_json,
    plan_requests,
    reconciling_sensor,
    to_json,
)
from sensors.ticks import TickReport, reporting_tick

INTERVAL_SECONDS = 15


@dg.sensor(
    name="users_api_up",
    target=dg.AssetSelection.assets(contract.RAW, contract.USERS),
    description="Asks whether the API is up, and then requests the intake of today (UTC), once a day.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=INTERVAL_SECONDS,
)
@reporting_tick
def users_api_up(context: dg.SensorEvaluationContext, report: TickReport) -> None:
    """Holds no slot while it waits. The API is asked only on days that are not fetched yet.

    The cursor is that of reconciliation: how often today was requested, and when the next request is due.
    """
    url = settings.users_api()
    if url is None:
        report.notes.append("DEDP_USERS_API is not set, so no users are fetched")
        return
    now = datetime.now(timezone.utc)
    today = contract.day_of(now)
    # Read the runs before the copies. Otherwise a run that ends in between would be requested again.
    in_progress = partitions_in_progress(context.instance, contract.RAW, contract.DAYS)
    copies = dict(headers_below(contract.raw_folder()))
    report.asset_events += _untold(context.instance, copies, in_progress)
    if today in copies:
        report.notes.append(f"{today} was fetched at {copies[today].fetched_at:%H:%M:%S} UTC")
        return
    if today in in_progress:
        report.notes.append(f"{today} is being fetched")
        return
    waiting = _waiting(context.cursor, today, now.timestamp())
    if waiting.due > now.timestamp():
        due = datetime.fromtimestamp(waiting.due, timezone.utc)
        report.notes.append(f"{today} is not fetched, its last run has failed; it is requested again at {due:%H:%M:%S}")
        return
    # Not at the top: httpx takes half a second to import.
    from dedp_assets.user_intake.fetching import check_up

    check_up(url)
    plan = plan_requests({today: _INPUT}, {today: waiting}, in_progress, now.timestamp())
    report.cursor = to_json(plan.waiting)
    report.notes.append(f"the API is up, {today} is requested")
    report.run_requests.append(
        dg.RunRequest(
            run_key=f"{today}:{waiting.requests + 1}",
            partition_key=today,
            asset_selection=[contract.RAW, contract.USERS],
            tags={CAUSE_TAG: f"the API is up (request {waiting.requests + 1} of the day)"},
        )
    )


# Of a day that is not fetched yet, there is one version.
_INPUT = "not fetched"


def _waiting(cursor: str | None, today: str, now: float) -> Waiting:
    """Today as it waits; due at once if it was not requested yet."""
    return from_json(cursor).get(today, Waiting(_INPUT, 0, now))


def _untold(
    instance: dg.DagsterInstance, copies: Mapping[str, Header], in_progress: Collection[str]
) -> list[dg.AssetMaterialization]:
    """Raw copies that Dagster does not know: their run was killed, or another instance has made them."""
    untold = copies.keys() - instance.get_materialized_partitions(contract.RAW) - set(in_progress)
    return [
        dg.AssetMaterialization(
            contract.RAW,
            partition=day,
            metadata={"users": copies[day].users, "pages": copies[day].pages},
            tags={"dagster/data_version": copies[day].sha256},
        )
        for day in sorted(untold)
        if day_of(day)
    ]


def days_behind(copies: Mapping[str, str], stored: Mapping[str, str], reported: Collection[str]) -> dict[str, str]:
    """The days whose users are not those of the raw copy, or that Dagster does not know as stored.

    Args:
        copies: the version of the raw copy of each day that has one.
        stored: the version that is stored, for each day that has users.
        reported: the days that Dagster knows as stored. A run may have been killed before it could tell.
    """
    behind = {day: version for day, version in copies.items() if stored.get(day) != version}
    return behind | {
        day: f"not reported: {version}" for day, version in copies.items() if day not in behind and day not in reported
    }


def _observe(context: dg.SensorEvaluationContext, notes: list[str]) -> Observation:
    in_progress = partitions_in_progress(context.instance, contract.USERS, contract.DAYS)
    copies = {day: header.sha256 for day, header in headers_below(contract.raw_folder()) if day_of(day)}
    if not copies:
        return Observation({}, in_progress)
    with context.resources.postgres.connect() as connection:
        ensure_tables(connection)
        stored = stored_versions(connection)
    reported = context.instance.get_materialized_partitions(contract.USERS)
    return Observation(days_behind(copies, stored, reported), in_progress)


users_reconciled = reconciling_sensor(
    "users_reconciled",
    [contract.USERS],
    _observe,
    description="Requests days whose stored users stay behind the raw copy, whatever events say.",
    partitions_per_run=100,
    order=lambda: contract.DAYS.get_partition_keys(current_time=datetime.now(timezone.utc)),
    required_resource_keys={"postgres"},
)
