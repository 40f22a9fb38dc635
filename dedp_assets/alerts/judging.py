"""What is a problem: pure functions from the state of the system, and limits, to problems."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dedp_assets.alerts.incidents import Problem
from dedp_assets.observability.accounts import Rows
from dedp_assets.observability.dagster_tables import FailedRun, Heartbeat, RunUnderWay, Tick
from dedp_assets.wording import counted, duration, printable

# The key of the problem that the daemon, or a part of it, has stopped.
DAEMON = "daemon"

# So many ticks in a row are a problem; one alone may be an accident.
_TICKS_IN_A_ROW = 3
# A sensor that names an error goes on by itself: a server that is restarted or a mount that is slow is nobody's work.
_TICK_ERROR_SECONDS = 300.0


class Limits(NamedTuple):
    """Where a problem begins. Times are in s.

    Attributes:
        daemon: a daemon without a sign of life for so long has stopped. Dagster's give one every 30 s.
        run: a run that executes for so long takes too long.
        queue: a run that waits for so long waits too long.
        starting: a run that has been starting or canceling for so long is stuck.
        requests: after so many requests by reconciliation, a partition keeps failing.
        quarantine_share: above this share of the lines of the last hour, too many are in quarantine.
        quarantine_lines: fewer lines are no problem: of three lines, one is a third.
        fresh: the assets that have to have a freshness policy, because a setting gives them one.
    """

    daemon: float = 180.0
    run: float = 3600.0
    queue: float = 1800.0
    starting: float = 300.0
    requests: int = 3
    quarantine_share: float = 0.2
    quarantine_lines: int = 100
    fresh: Collection[str] = ()


class Instigator(NamedTuple):
    """A sensor or a schedule that is on. `cursor`: what its last tick has stored."""

    location: str
    name: str
    kind: str
    ticks: Sequence[Tick]
    cursor: str | None = None


def is_evaluated(ticks: Sequence[Tick]) -> bool:
    """Whether somebody still evaluates a sensor or schedule with these ticks, the latest one first.

    One that was removed from the code, or has another name now, keeps its last ticks and its cursor for ever.
    """
    if not ticks:
        return False
    usual = ticks[1].age - ticks[0].age if len(ticks) > 1 else 0.0
    return ticks[0].age <= max(3600.0, 2 * usual)


def stopped_daemons(beats: Sequence[Heartbeat], required: Collection[str], limits: Limits) -> Iterator[Problem]:
    """Daemons of the instance that give no sign of life, and daemons that say that something is wrong."""
    ages = {beat.daemon: beat.age for beat in beats}
    silent = sorted(daemon for daemon in required if ages.get(daemon, float("inf")) > limits.daemon)
    if silent:
        known = [ages[daemon] for daemon in silent if daemon in ages]
        last = f"The last sign of life came {duration(min(known))} ago." if known else "It has never been seen."
        yield Problem(
            DAEMON,
            "daemon",
            DAEMON,
            "Dagster's daemon has stopped"
            if len(silent) == len(required)
            else "A part of Dagster's daemon has stopped",
            f"No sign of life of {', '.join(silent)}. {last}",
            "No sensor, schedule or condition is evaluated and no queued run starts until it is up again. Under `dedp "
            "up`, see logs/dagster.log of the home; with docker, `docker compose logs daemon`. Then start it again. "
            "What has landed meanwhile is not lost.",
            # A daemon that has never been seen is perhaps just starting.
            wait=0.0 if known else 120.0,
        )
    for beat in beats:
        if beat.errors and beat.daemon in required and beat.daemon not in silent:
            yield Problem(
                f"daemon-errors/{beat.daemon}",
                "daemon",
                f"daemon-errors/{beat.daemon}",
                f"The daemon {beat.daemon} reports errors",
                _short(beat.errors[0]),
                "Read the whole error under Deployment, Daemons in the UI.",
                "warning",
                wait=120.0,
            )


def failed(runs: Sequence[FailedRun], reasons: Mapping[str, str]) -> Iterator[Problem]:
    """What failed runs have left undone: an asset, or a partition of it; for a job without assets, the job.

    Args:
        runs: the runs that have failed for good, the latest one first. The latest one tells of a partition.
        reasons: why they have failed, by run id. It may lack some.
    """
    seen = set()
    for run in runs:
        for name, partition in _undone(run):
            key = f"run/{name}/{partition or ''}"
            if key in seen:
                continue
            seen.add(key)
            what = f"{name}, partition {partition}," if partition else name
            because = f": {_short(reasons[run.run_id])}" if reasons.get(run.run_id) else ""
            yield Problem(
                key,
                "run",
                f"run/{name}",
                printable(f"{name} failed"),
                printable(f"{what} failed in run {run.run_id}{because}").rstrip(".") + ".",
                f"Read the run in the UI (/runs/{run.run_id}), mend the cause, and materialize the partition again. "
                "Reconciliation tries it again, too, in ever longer pauses."
                if run.cells
                else f"Read the run in the UI (/runs/{run.run_id}), mend the cause, and launch the job again.",
                run_id=run.run_id,
            )


def _undone(run: FailedRun) -> list[tuple[str, str | None]]:
    if not run.cells:
        return [] if run.is_done_since else [(run.job, run.partition)]
    # If it has done all that it was to do, something after that has failed, such as a check.
    has_done_all = all(cell.is_done_here for cell in run.cells)
    return [
        (cell.asset, cell.partition)
        for cell in run.cells
        if not cell.is_done_since and (has_done_all or not cell.is_done_here)
    ]


def too_long(runs: Sequence[RunUnderWay], limits: Limits) -> Iterator[Problem]:
    """Runs that execute or wait for longer than they should."""
    for run in runs:
        what = printable(f"{run.job}, partition {run.partition}" if run.partition else run.job)
        if run.status == "STARTED" and run.age > limits.run:
            yield Problem(
                f"slow/{run.run_id}",
                "time-out",
                f"slow/{run.job}",
                f"{run.job} takes too long",
                f"The run {run.run_id} of {what} has been executing for more than {duration(limits.run)}.",
                f"See what it does in the UI (/runs/{run.run_id}). If it is stuck, terminate it there; the next run "
                "does the work. If it may take so long, raise DEDP_ALERTS_RUN_SECONDS.",
                "warning",
            )
        elif run.status in ("STARTING", "CANCELING") and run.age > limits.starting:
            yield Problem(
                f"stuck/{run.run_id}",
                "time-out",
                f"stuck/{run.job}",
                f"{run.job} is stuck",
                f"The run {run.run_id} of {what} has been {run.status.lower()} for more than "
                f"{duration(limits.starting)}.",
                f"Is its code location up? Terminate the run in the UI (/runs/{run.run_id}), by force if need be.",
            )
    waiting = [run for run in runs if run.status in ("QUEUED", "NOT_STARTED") and run.age > limits.queue]
    if waiting:
        yield Problem(
            "queue",
            "time-out",
            "queue",
            "Runs wait too long for their start",
            f"{counted(len(waiting), 'run')} in the queue for more than {duration(limits.queue)}; the first one is "
            f"{waiting[0].run_id} of {printable(waiting[0].job)}.",
            "See the queue in the UI (Runs, Queued), which says what a run waits for: a free place "
            "(max_concurrent_runs of dagster.yaml), a place in a pool, or the daemon.",
            "warning",
        )


def failing_ticks(instigators: Iterable[Instigator]) -> Iterator[Problem]:
    """Sensors and schedules whose last ticks have all failed, and sensors whose last messages all name an error."""
    for each in instigators:
        if not is_evaluated(each.ticks):
            continue
        key = f"tick/{each.location}/{each.name}"
        last = each.ticks[:_TICKS_IN_A_ROW]
        # A tick that starts runs has no message, unless an error was in its log: not every sensor writes it there.
        with_message = [tick for tick in each.ticks if tick.message or tick.status != "SUCCESS"][:_TICKS_IN_A_ROW]
        if len(last) == _TICKS_IN_A_ROW and all(tick.status == "FAILURE" for tick in last):
            yield Problem(
                key,
                "tick",
                key,
                f"The {each.kind} {each.name} keeps failing",
                f"The last {_TICKS_IN_A_ROW} ticks of {each.name} in {each.location} have failed: "
                f"{_short(each.ticks[0].message)}",
                f"See its ticks in the UI (Automation, {each.name}). Nothing is started by it until it is mended.",
            )
        elif len(with_message) == _TICKS_IN_A_ROW and _say_an_error(with_message):
            yield Problem(
                key,
                "tick",
                key,
                f"The {each.kind} {each.name} reports an error",
                f"The ticks of {each.name} in {each.location} say: {_short(with_message[0].message)}",
                f"Mend what the error names. What it does not concern goes on, and each tick of {each.name} tries the "
                f"rest again: see them in the UI (Automation, {each.name}).",
                "warning",
                wait=_TICK_ERROR_SECONDS,
            )


def _say_an_error(ticks: Sequence[Tick]) -> bool:
    is_wrong = (tick.reports_error or tick.status == "FAILURE" for tick in ticks)
    return all(is_wrong) and any(tick.reports_error for tick in ticks)


def reconciled_in_vain(instigators: Iterable[Instigator], limits: Limits) -> Iterator[Problem]:
    """Partitions that reconciliation has requested again and again, and that are still behind their input.

    Reconciling sensors are those whose names end in `_reconciled`. Their cursors say how often they have requested
    what (`sensors.reconciliation`).
    """
    for each in instigators:
        if not each.name.endswith("_reconciled") or not is_evaluated(each.ticks):
            continue
        for partition, requests in _requested(each.cursor).items():
            if requests >= limits.requests:
                yield Problem(
                    f"reconciliation/{each.name}/{partition}",
                    "reconciliation",
                    f"reconciliation/{each.name}",
                    f"Reconciliation by {each.name} keeps failing",
                    printable(f"Partition {partition} is still behind its input, after at least ")
                    + f"{limits.requests} requests.",
                    f"See why the runs that {each.name} has requested fail (Runs in the UI, by the tag dedp/cause). It "
                    "goes on to request them, at least once an hour, and its ticks say which partitions are behind.",
                )


def _requested(cursor: str | None) -> dict[str, int]:
    try:
        stored = json.loads(cursor or "{}")
        return {partition: int(requests) for partition, (_, requests, _) in stored.get("waiting", stored).items()}
    except (TypeError, ValueError, AttributeError):
        return {}


def not_fresh(states: Mapping[str, str], limits: Limits) -> Iterator[Problem]:
    """Assets that should have been updated, by their freshness policies, and policies of the setting without an asset.

    Args:
        states: the state that Dagster's freshness daemon has found, by asset that has a policy: PASS, WARN, FAIL or
            UNKNOWN.
        limits: the limits.
    """
    for asset in sorted(set(limits.fresh) - states.keys()):
        yield Problem(
            f"freshness-setting/{asset}",
            "freshness",
            "freshness-setting",
            "DEDP_FRESHNESS names an asset in vain",
            f"No code location has given {asset} the policy of DEDP_FRESHNESS: nobody is told if it is out of date.",
            "Is its name as in the UI? Does its code server have the setting, too, and has it been started since? A "
            "code location of your own has to call with_freshness (docs/alerts.md).",
            "warning",
            # The freshness daemon looks every 30 s, when the code servers have started.
            wait=300.0,
        )
    for asset, state in states.items():
        if state in ("WARN", "FAIL"):
            yield Problem(
                # WARN and FAIL are one incident: the second follows the first.
                f"freshness/{asset}",
                "freshness",
                f"freshness/{asset}",
                f"{asset} is out of date",
                f"{asset} should have been updated by now, by its freshness policy ({state}).",
                "See its freshness policy and its last materialization in the UI. Has its input arrived? Is what "
                "starts it turned on? Do its runs fail?",
                "error" if state == "FAIL" else "warning",
            )


def quarantined(rows: Mapping[str, Rows], open_keys: Collection[str], limits: Limits) -> Iterator[Problem]:
    """Pipelines that had to set too many lines of the last hour aside.

    Args:
        rows: the rows of the last hour, by pipeline.
        open_keys: the keys of the problems of which people know. Such a problem ends at half of the limit: a share that
            moves around it is not a problem again and again.
        limits: the limits.
    """
    for pipeline, each in rows.items():
        key = f"quarantine/{pipeline}"
        limit = limits.quarantine_share / 2 if key in open_keys else limits.quarantine_share
        is_enough = key in open_keys or each.loaded + each.quarantined >= limits.quarantine_lines
        if is_enough and each.share > limit:
            yield Problem(
                key,
                "quarantine",
                key,
                f"Many lines of {pipeline} are in quarantine",
                f"Of the {each.loaded + each.quarantined:,} lines of the last hour, {each.quarantined:,} are in "
                f"quarantine ({each.share:.0%}).",
                "See the table of its quarantine in schema dedp: it has each line, and why it was set aside. Ask who "
                "sends the files. Correct lines of the same files are loaded.",
                "warning",
            )


def not_loaded(errors: Mapping[str, str]) -> Iterator[Problem]:
    """Code locations that can't be loaded. `errors`: why, by location."""
    for location, error in errors.items():
        yield Problem(
            f"location/{location}",
            "location",
            f"location/{location}",
            f"The code location {location} can't be loaded",
            f"{location}: {_short(error)}",
            "None of its sensors and assets run until it is loaded; the other locations go on. See Deployment in the "
            "UI for the whole error. Mend the code or the environment, and press Reload there.",
            # A code server that starts again needs some time.
            wait=60.0,
        )


def _short(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= 500 else line[:499] + "…"
