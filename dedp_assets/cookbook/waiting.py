"""Waiting for a file, with a time-out: what `poke`, `reschedule` and deferrable operators are for.

A sensor looks every 30 seconds, in the daemon. While it waits there is no run, and no slot is taken.
"""

import datetime as dt
import json
from pathlib import Path
from typing import Any, Literal

import dagster as dg

TIMEOUT = dt.timedelta(hours=6)


class Inbox(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder that the report of a shop arrives in."""

    folder: str

    @property
    def report(self) -> Path:
        return Path(self.folder) / "report.csv"


def decide(is_there: bool, waited: dt.timedelta, is_told: bool) -> Literal["take", "complain", "wait"]:
    """What a look leads to. A report that comes after the time-out is taken, too."""
    if is_there:
        return "take"
    return "complain" if waited >= TIMEOUT and not is_told else "wait"


@dg.op
def take(context: dg.OpExecutionContext, inbox: Inbox) -> None:
    inbox.report.rename(inbox.report.with_name(f"{context.run_id}.csv"))


@dg.job
def take_report() -> None:
    take()


@dg.op
def complain() -> None:
    raise dg.Failure(f"no report for {TIMEOUT}: ask the shop for it. It will be taken when it comes")


@dg.job
def report_is_overdue() -> None:
    complain()


@dg.sensor(jobs=[take_report, report_is_overdue], minimum_interval_seconds=30)
def report_landed(context: dg.SensorEvaluationContext, inbox: Inbox) -> dg.SensorResult:
    now = dt.datetime.now(dt.timezone.utc)
    waiting: dict[str, Any] = json.loads(context.cursor or "null") or {"since": now.isoformat(), "is_told": False}
    waited = now - dt.datetime.fromisoformat(waiting["since"])
    decision = decide(inbox.report.exists(), waited, waiting["is_told"])
    if decision == "wait":
        return dg.SensorResult(skip_reason="waits for the report", cursor=json.dumps(waiting))
    job = take_report if decision == "take" else report_is_overdue
    since = now.isoformat() if decision == "take" else waiting["since"]
    return dg.SensorResult(
        run_requests=[dg.RunRequest(job_name=job.name, run_key=f"{decision} {since}")],
        cursor=json.dumps({"since": since, "is_told": decision == "complain"}),
    )


defs = dg.Definitions(
    jobs=[take_report, report_is_overdue],
    sensors=[report_landed],
    resources={"inbox": Inbox(folder="/tmp/cookbook/inbox")},
)
