"""The process that looks, decides and delivers, again and again. It may be killed at any time, and needs no daemon.

While PostgreSQL is away, nothing can be read and nothing can be kept. Then this process has that one incident in its
memory, and tells of it directly.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import dagster as dg
from psycopg2.extensions import connection as Connection

from dedp_assets.alerts.delivery import deliver, shown
from dedp_assets.alerts.incidents import Decision, Incident, Message, Problem, decide
from dedp_assets.alerts.judging import Limits
from dedp_assets.alerts.observing import observe
from dedp_assets.alerts.store import ensure_tables, look, read_incidents
from dedp_assets.errors import DedpError
from dedp_assets.notifications.notification import Notification, Notifier
from dedp_assets.observability.dagster_tables import connected_to_dagster
from dedp_assets.observability.json_logs import JsonLines
from dedp_assets.resources.postgres import DatabaseUnavailable, connect

_log = logging.getLogger("dedp.alerts")

_DATABASE = "database"


@dataclass(frozen=True)
class World:
    """What the process looks at, and where it tells of it.

    Attributes:
        dsn: the project's database.
        storage_url: Dagster's tables.
        workspace: the workspace.yaml of the code servers; None if there are none.
        targets: where messages go.
        notifier_for: makes the notifier of a target.
        limits: where a problem begins.
        ui: the address of the UI; "" if nobody has named it.
    """

    dsn: str
    storage_url: str
    workspace: Path | None
    targets: Sequence[str]
    notifier_for: Callable[[str], Notifier]
    limits: Limits
    ui: str = ""


@dataclass
class Outage:
    """What this process remembers of a database that is away: the incident, and what each target has to be told."""

    incidents: dict[str, Incident] = field(default_factory=dict)
    waiting: list[tuple[str, Message]] = field(default_factory=list)


def run(world: World, every: float, prepare: Callable[[], None] = lambda: None) -> None:
    """Look, for ever.

    Args:
        world: What to look at, and where to tell of it.
        every: How often, in s.
        prepare: Makes what Dagster's instance needs, once PostgreSQL answers.
    """
    with ExitStack() as open_instances:
        instances: list[dg.DagsterInstance] = []
        outage = Outage()
        while True:
            started = time.monotonic()
            try:
                if not instances:
                    with connect(world.dsn):  # Dagster would try for a minute, and say it in many lines
                        prepare()
                        instances.append(open_instances.enter_context(dg.DagsterInstance.get()))
                look_once(world, instances[0])
                tell_of_outage(world, outage, None, time.time())
            except DatabaseUnavailable as error:
                _log.warning("%s", error)
                tell_of_outage(world, outage, str(error), time.time())
            except DedpError as error:
                _log.error("%s", error)
            except Exception:  # a fault of ours must not end the alerts
                _log.exception("a look has failed; the next one follows")
            time.sleep(max(0.0, every - (time.monotonic() - started)))


def look_once(world: World, instance: dg.DagsterInstance) -> Decision:
    """Look, decide, and deliver what waits.

    Raises:
        DatabaseUnavailable: PostgreSQL does not answer. Nothing is lost: what was decided is written, or not decided.
    """
    with connect(world.dsn) as database:
        ensure_tables(database)
        with connected_to_dagster(world.storage_url) as dagster:
            known = read_incidents(database)
            seen = observe(instance, dagster, database, world.workspace, known, world.limits)
        for kind, why in seen.unseen.items():
            _log.error("problems of the kind %s can't be looked at: %s", kind, why)
        now = _now(database)
        # Another process may know the code servers: what it says of them is not over.
        not_looked_at = {*seen.unseen, *(() if world.workspace else ("location",))}
        decision = look(
            database,
            world.targets,
            seen.unseen,
            lambda incidents: with_links(decide(seen.problems, incidents, now, not_looked_at), world.ui),
        )
        for message in decision.messages:
            _log.info("%s (%s)", message.subject, message.key)
        for problem in deliver(database, world.targets, world.notifier_for):
            _log.error("%s", problem)
    return decision


def with_links(decision: Decision, ui: str) -> Decision:
    """The same decision, whose messages have links to pages of the UI in the place of their paths."""
    linked = [replace(each, text=each.text.replace("(/runs/", f"({ui}/runs/")) for each in decision.messages]
    return replace(decision, messages=linked)


def _now(database: Connection) -> float:
    """By the clock of the database: processes on several machines agree on it."""
    with database, database.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM now())::double precision")
        (now,) = cursor.fetchone() or (0.0,)
    return float(now)


def tell_of_outage(world: World, outage: Outage, error: str | None, now: float) -> None:
    """Tell of a database that is away, and of its return. `error`: why it can't be used; None if it can."""
    problem = Problem(
        _DATABASE,
        _DATABASE,
        _DATABASE,
        "PostgreSQL does not answer",
        error or "",
        "Nothing can run without it. Start it again; see its log and the space on its disk. Runs and ticks go on by "
        "themselves when it answers.",
        wait=45.0,
    )
    decision = decide([problem] if error else [], outage.incidents, now)
    outage.incidents = decision.incidents
    outage.waiting += [(target, message) for message in decision.messages for target in world.targets]
    outage.waiting = list(_not_sent(world, outage.waiting))


def _not_sent(world: World, waiting: Sequence[tuple[str, Message]]) -> Iterator[tuple[str, Message]]:
    away: set[str] = set()
    for target, message in waiting:
        if target in away:  # each attempt takes many seconds, and the order has to stay
            yield target, message
            continue
        try:
            world.notifier_for(target).send(
                Notification(message.key, message.subject, message.text, None, message.severity)
            )
        except Exception as error:
            _log.error("%s", shown(error))
            away.add(target)
            yield target, message


@contextmanager
def logging_to_stderr(as_json: bool) -> Iterator[None]:
    """Show what the process does, as text or as lines of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
