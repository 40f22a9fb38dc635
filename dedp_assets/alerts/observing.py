"""Reads the state of the whole system, as far as it can be read, and finds what is wrong in it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import dagster as dg
from psycopg2 import InterfaceError, OperationalError
from psycopg2.errors import QueryCanceled
from psycopg2.extensions import connection as Connection

from dedp_assets.alerts import judging
from dedp_assets.alerts._dagster import broken_locations, freshness, instigators_that_are_on, logged_errors
from dedp_assets.alerts.incidents import Incident, Problem
from dedp_assets.alerts.judging import Instigator, Limits
from dedp_assets.errors import TICK_ERROR, DedpError
from dedp_assets.observability import dagster_tables
from dedp_assets.observability.accounts import rows_by_pipeline
from dedp_assets.observability.dagster_tables import Tick

_HOUR = 3600.0


class Seen(NamedTuple):
    """What is wrong, and what could not be looked at.

    Attributes:
        problems: all problems.
        unseen: why it could not be looked at, by kind of problem.
    """

    problems: list[Problem]
    unseen: dict[str, str]


def observe(
    instance: dg.DagsterInstance,
    dagster: Connection,
    database: Connection,
    workspace: Path | None,
    incidents: Mapping[str, Incident],
    limits: Limits,
) -> Seen:
    """Look at everything. What can't be looked at holds up nothing else.

    Args:
        instance: The Dagster instance.
        dagster: To its tables.
        database: To the project's tables.
        workspace: The workspace.yaml of the code servers; None if there are none.
        incidents: The incidents so far.
        limits: Where a problem begins.
    """
    seen = Seen([], {})
    open_keys = {key for key, incident in incidents.items() if incident.state == "open"}
    instigators: list[Instigator] = []
    with _looking_at(("tick", "reconciliation"), seen):
        instigators += active_instigators(instance, dagster)
    looks: dict[str, Callable[[], Iterable[Problem]]] = {
        "daemon": lambda: judging.stopped_daemons(
            dagster_tables.heartbeats(dagster), instance.get_required_daemon_types(), limits
        ),
        "run": lambda: _failed(dagster, incidents),
        "time-out": lambda: judging.too_long(dagster_tables.runs_under_way(dagster), limits),
        "tick": lambda: judging.failing_ticks(instigators),
        "reconciliation": lambda: judging.reconciled_in_vain(instigators, limits),
        "freshness": lambda: judging.not_fresh(freshness(instance), limits),
        "quarantine": lambda: judging.quarantined(rows_by_pipeline(database, _HOUR), open_keys, limits),
        "location": lambda: judging.not_loaded(broken_locations(workspace) if workspace else {}),
    }
    for kind, look in looks.items():
        with _looking_at((kind,), seen):
            seen.problems.extend(look())
    if any(problem.key == judging.DAEMON for problem in seen.problems):
        # Nobody evaluates a sensor now, so nothing that its ticks say is over.
        seen.unseen.update(dict.fromkeys(("tick", "reconciliation"), "the daemon has stopped"))
    return seen


@contextmanager
def _looking_at(kinds: Iterable[str], seen: Seen) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        is_lost = isinstance(error, (OperationalError, InterfaceError)) and not isinstance(error, QueryCanceled)
        if is_lost or isinstance(error, DedpError):
            raise  # the database does not answer, which concerns all kinds
        seen.unseen.update({kind: f"{type(error).__name__}: {error}" for kind in kinds})


def _failed(dagster: Connection, incidents: Mapping[str, Incident]) -> Iterable[Problem]:
    known = [incident.problem.run_id for incident in incidents.values() if incident.problem.run_id]
    runs = dagster_tables.failed_runs(dagster, known)
    return judging.failed(runs, dagster_tables.why_failed(dagster, [run.run_id for run in runs]))


def active_instigators(instance: dg.DagsterInstance, dagster: Connection) -> list[Instigator]:
    """The sensors and schedules that are on, with their last ticks."""
    on = list(instigators_that_are_on(instance))
    ticks = dagster_tables.last_ticks(dagster, [each.selector_id for each in on])
    return [
        Instigator(
            each.location,
            each.name,
            each.kind,
            [_with_logged_errors(instance, tick) for tick in ticks.get(each.selector_id, [])],
            each.cursor,
        )
        for each in on
    ]


def _with_logged_errors(instance: dg.DagsterInstance, tick: Tick) -> Tick:
    """A tick that has no message, because it has requested runs, gets the errors of its log as one."""
    if tick.message or not tick.log_key:
        return tick
    errors = logged_errors(instance, tick.log_key)
    return tick._replace(message="; ".join(f"{TICK_ERROR}{error}" for error in errors))
