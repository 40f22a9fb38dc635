"""The whole system on this machine, started together and stopped together: PostgreSQL, Spark, Dagster's daemon and UI.

This process starts PostgreSQL and Spark, and supervises a code server for each location of workspace.yaml, the daemon
and the web server: see `supervision`. `dagster dev` with the same DAGSTER_HOME does the same, for editing.
"""

import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dedp_assets import settings
from dedp_assets.local_stack.environment import (
    INSTANCE_CONFIG,
    WORKSPACE,
    create_instance_schema,
    environment,
    in_dagster_schema,
    refuse_later_tables,
)
from dedp_assets.local_stack.errors import StackError
from dedp_assets.local_stack.lock import lock_of_system, running_pid, stop_running
from dedp_assets.local_stack.processes import HOST, commands, with_json_logs
from dedp_assets.local_stack.readiness import log_tail, wait_until_ready
from dedp_assets.local_stack.supervision import Supervision
from dedp_assets.local_stack.users import users_of, without_passwords
from dedp_assets.local_stack.workspace import locations, sockets, write_workspace
from dedp_assets.resources.shared_spark import shared_server
from dedp_assets.servers_from_settings import spark_size

__all__ = [
    "HOST",
    "INSTANCE_CONFIG",
    "WORKSPACE",
    "Stack",
    "StackError",
    "create_instance_schema",
    "environment",
    "free_port",
    "in_dagster_schema",
    "lock_of_system",
    "log_tail",
    "react_to_interrupts",
    "refuse_later_tables",
    "running",
    "running_pid",
    "stop_running",
]


@dataclass(frozen=True)
class Stack:
    """A running system.

    Attributes:
        url: the address of its UI.
        environment: the environment variables of its processes.
        log: the file with the output of its processes.
        has_local_user: whether the user dedp with the password dedp may sign in, on this machine.
        broken: the errors of code locations that can't be loaded, by name. The others run.
        supervision: its processes.
    """

    url: str
    environment: dict[str, str]
    log: Path
    has_local_user: bool = False
    broken: Mapping[str, str] = field(default_factory=dict)
    supervision: Supervision | None = None


@contextmanager
def running(
    port: int,
    say: Callable[[str], None] = lambda _: None,
    workspace: Path = WORKSPACE,
    spark_at_once: bool = False,
) -> Iterator[Stack]:
    """Start the system, wait until it is ready, and stop it when the block ends.

    Args:
        port: the port of the UI, on 127.0.0.1.
        say: is told, in a thread, which process has died and starts again. The log says it, too.
        workspace: the file that names the code locations.
        spark_at_once: whether Spark starts now, and not only with its first use or because there is a lake.

    Raises:
        StackError: the system runs already, the port is taken, or Dagster does not start.
        WrongTables: a later release has migrated the database.
        PostgresNotStarted: the embedded PostgreSQL server does not start.
    """
    home = settings.make_home()
    with ExitStack() as cleanup:
        cleanup.enter_context(lock_of_system(home))
        _check_port(port)
        if settings.spark_remote() is None:
            at_once = spark_at_once or _has_a_lake()
            cleanup.enter_context(shared_server(home / "spark", spark_size(), at_once))
        shared = cleanup.enter_context(environment())
        create_instance_schema(shared)
        refuse_later_tables(shared)
        settings.landing().mkdir(parents=True, exist_ok=True)
        log = home / "logs" / "dagster.log"
        log.parent.mkdir(exist_ok=True)
        log.parent.chmod(0o700)
        found = locations(workspace)
        folder = cleanup.enter_context(sockets(home))
        started = commands(
            found,
            folder,
            write_workspace(folder, found),
            port,
            has_alerts=bool(settings.alerts()),
            has_traces=settings.sends_traces(),
        )
        if settings.logs_json():
            started = [with_json_logs(command) for command in started]
        with open(log, "ab", buffering=0) as output:
            directory = str(workspace.resolve().parent)
            url = f"http://{HOST}:{port}"
            with users_of(shared) as (has_local_user, authorization):
                supervision = cleanup.enter_context(
                    _supervision(Supervision(started, without_passwords(shared), directory, output.fileno(), say))
                )
                broken = wait_until_ready(url, authorization, log, supervision.deaths)
            yield Stack(url, shared, log, has_local_user, broken, supervision)


def _has_a_lake() -> bool:
    uri = settings.data_uri()
    return "://" not in uri and any(Path(uri).glob("*/_delta_log"))


@contextmanager
def _supervision(supervision: Supervision) -> Iterator[Supervision]:
    try:
        yield supervision
    finally:
        with _no_interrupts():
            supervision.stop()


def free_port() -> int:
    """Return a port of 127.0.0.1 that no process uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise StackError(
                f"port {port} on {HOST} can't be used ({error.strerror}). "
                f"Stop the process that uses it, or choose another port: "
                f"{settings.to_run('up')} {'PORT=' if settings.is_checkout() else '--port '}{port + 1}"
            ) from None


def react_to_interrupts() -> None:
    """Make a new process react to SIGINT. It inherits from a shell's background job that it ignores the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C in the block: a second one must not interrupt the clean-up."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
