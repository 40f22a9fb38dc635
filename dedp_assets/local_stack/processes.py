"""The processes of a system, as commands: a code server for each location, Dagster's daemon, and its web server."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dagster_warm_launcher.forks import SHARED_IMPORTS

from dedp_assets.local_stack.workspace import Location, socket_of

HOST = "127.0.0.1"

# Dagster's daemon, woken by what happens. What follows are the options of `dagster-daemon run`.
DAEMON = ("-m", "dedp_assets.doorbell")

# Tells people what is wrong, if the settings say whom.
ALERTS = ("-m", "dedp_assets.alerts")

# Sends the traces of finished runs, if the settings say where.
TRACES = ("-m", "dedp_assets.observability")

# What most of the processes import. It happens once, in a process that they are forks of. Nothing of ours is here,
# because it would stay as it was when somebody changes it. Delta and Arrow are not here either: two locations of nine
# need them. A system without these two would carry 110 MiB for nobody.
IMPORTS = (
    SHARED_IMPORTS,
    "dagster_postgres",
    "httpx",
    "jinja2",
    "psutil",
    "psycopg2",
    "requests",
    "tenacity",
)


@dataclass(frozen=True)
class Command:
    """A process to start.

    Attributes:
        name: what people call it.
        arguments: what `python` is given.
        location: the code location that it serves, or None.
        is_first: whether it has to end before the others start.
    """

    name: str
    arguments: tuple[str, ...]
    location: str | None = None
    is_first: bool = False


def commands(
    locations: Sequence[Location],
    sockets: Path,
    workspace: Path,
    port: int,
    has_alerts: bool = False,
    has_traces: bool = False,
) -> list[Command]:
    """Return the commands of a system.

    Args:
        locations: its code locations.
        sockets: the folder of the code servers' sockets.
        workspace: the workspace.yaml that names these.
        port: the port of the UI, on 127.0.0.1.
        has_alerts: whether somebody is to be told what is wrong.
        has_traces: whether the traces of runs are to be sent somewhere.
    """
    found = [_code_server(location, socket_of(sockets, location)) for location in locations]
    web = ("-m", "dedp_assets.sign_in", "-h", HOST, "-p", str(port), "-w", str(workspace))
    return [
        Command("making of Dagster's tables", ("-m", "dedp_assets.local_stack.tables"), is_first=True),
        *found,
        Command("daemon", (*DAEMON, "-w", str(workspace))),
        Command("web server", web),
        *([Command("alerts", (*ALERTS, "-w", str(workspace)))] if has_alerts else []),
        *([Command("traces", TRACES)] if has_traces else []),
    ]


def with_json_logs(command: Command) -> Command:
    """The same command, which logs lines of JSON if it is one of Dagster's."""
    if command.location is None and command.name not in ("daemon", "web server"):
        return command
    return replace(command, arguments=(*command.arguments, "--log-format", "json"))


def _code_server(location: Location, socket: Path) -> Command:
    # Without its code, it serves the error, and the UI shows it.
    options = ("--lazy-load-user-code", "--inject-env-vars-from-instance", "--use-python-environment-entry-point")
    return Command(
        f"code server of {location.name}",
        (
            *("-m", "dagster_warm_launcher", "grpc", *location.options, "--socket", str(socket)),
            *("--location-name", location.name, "--log-level", "warning", *options),
        ),
        location.name,
    )
