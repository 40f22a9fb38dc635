"""The whole system on this machine, started together and stopped together: PostgreSQL, Spark, Dagster's daemon and UI.

`dagster dev` runs the code locations of workspace.yaml, the daemon and the web server. This module starts PostgreSQL
and Spark for it, waits until all of it is ready, and stops all of it.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import psutil
import psycopg2
import psycopg2.extensions
import requests

from dedp_assets import settings
from dedp_assets.errors import PermanentError
from dedp_assets.resources import embedded_postgres
from dedp_assets.resources.shared_spark import shared_server
from dedp_assets.resources_from_settings import spark_size

HOST = "127.0.0.1"

# In a checkout these files are links to docker/dagster.yaml and workspace.yaml. A wheel contains copies.
_DEPLOYMENT = Path(str(resources.files("dedp_assets"))) / "deployment"
INSTANCE_CONFIG = _DEPLOYMENT / "dagster.yaml"
WORKSPACE = _DEPLOYMENT / "workspace.yaml"

_INSTANCE_SCHEMA = "dagster"
_READY_SECONDS = 90
_STOP_SECONDS = 30
# How long a system that has just been started may take to write its process id.
_RECORD_SECONDS = 5
_LOCATIONS = """
    { workspaceOrError { ... on Workspace { locationEntries {
        name loadStatus locationOrLoadError { __typename ... on PythonError { message } }
    } } } }
"""


class StackError(PermanentError):
    """The system cannot be started, found or stopped. The message says why and what to do."""


@dataclass(frozen=True)
class Stack:
    """A running system.

    Attributes:
        url: the address of its UI.
        environment: the environment variables of its processes.
        log: the file with the output of its processes.
    """

    url: str
    environment: dict[str, str]
    log: Path


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """Provide the environment variables for a command that uses this system's Dagster instance and database.

    The database runs at least until the block ends.
    """
    home = settings.make_home()
    with ExitStack() as cleanup:
        dsn = settings.postgres_dsn() or cleanup.enter_context(embedded_postgres.server_lease(home / "postgres"))
        yield {
            **os.environ,
            "DEDP_DATA_URI": settings.data_uri(),
            "DEDP_HOME": str(home),
            "DEDP_LANDING": str(settings.landing()),
            "DEDP_INTERNAL": str(settings.internal()),
            "DEDP_POSTGRES_DSN": dsn,
            "DEDP_DAGSTER_STORAGE": _in_schema(dsn, _INSTANCE_SCHEMA),
            "DAGSTER_HOME": str(_instance_folder(home)),
            "PYTHONUNBUFFERED": "1",
        }


@contextmanager
def running(port: int) -> Iterator[Stack]:
    """Start the system, wait until it is ready, and stop it when the block ends.

    Args:
        port: the port of the UI, on 127.0.0.1.

    Raises:
        StackError: the system runs already, the port is taken, or Dagster does not start.
        PostgresNotStarted: the embedded PostgreSQL server does not start.
        SparkNotStarted: the embedded Spark server does not start.
    """
    home = settings.make_home()
    with ExitStack() as cleanup:
        cleanup.enter_context(_lock_of_system(home))
        _check_port(port)
        wait_for_spark: Callable[[], None] | None = None
        if settings.spark_remote() is None:
            wait_for_spark = cleanup.enter_context(shared_server(home / "spark", spark_size()))
        shared = cleanup.enter_context(environment())
        create_instance_schema(shared)
        settings.landing().mkdir(parents=True, exist_ok=True)
        log = home / "logs" / "dagster.log"
        log.parent.mkdir(exist_ok=True)
        stack = Stack(f"http://{HOST}:{port}", shared, log)
        with open(log, "ab") as output:
            process = cleanup.enter_context(_dagster_dev(port, shared, output))
        _wait_until_ready(stack, process)
        if wait_for_spark:
            wait_for_spark()
        yield stack


def running_pid() -> int | None:
    """Return the id of the process that runs this home's system, or None if no system runs.

    Raises:
        StackError: a process holds the lock of a system, but its record does not name that process.
    """
    record = settings.home() / "up.pid"
    give_up = time.monotonic() + _RECORD_SECONDS
    while time.monotonic() < give_up:
        try:
            with open(record, errors="replace") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return None
                except BlockingIOError:
                    text = lock.read().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        # While a system starts, its record is empty or has the id of an earlier process. A process may also end now.
        if text.isdecimal() and _has_open(int(text), record):
            return int(text)
        time.sleep(0.05)
    raise StackError(
        f"a process has locked {record}, but the file does not contain its id. "
        f"Find the process with `fuser {record}`, and stop it"
    )


def _has_open(pid: int, file: Path) -> bool:
    try:
        return str(file.resolve()) in {opened.path for opened in psutil.Process(pid).open_files()}
    except psutil.AccessDenied:
        return True  # it belongs to another user: trust the record
    except (psutil.NoSuchProcess, OverflowError):
        return False


def stop_running(pid: int) -> None:
    """Ask the process of the system to stop everything, and wait for it. Raises StackError if it does not."""
    with suppress(ProcessLookupError):  # it has just ended
        try:
            os.kill(pid, signal.SIGTERM)
        except PermissionError:
            raise StackError(
                f"process {pid}, which runs the system of {settings.home()}, belongs to another user; "
                "ask that user to stop it"
            ) from None
    give_up = time.monotonic() + 2 * _STOP_SECONDS
    while _is_locked(settings.home() / "up.pid"):
        if time.monotonic() > give_up:
            raise StackError(f"process {pid} is still running after {2 * _STOP_SECONDS} s; see {settings.home()}/logs")
        time.sleep(0.1)


def _is_locked(record: Path) -> bool:
    with suppress(FileNotFoundError), open(record) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def free_port() -> int:
    """Return a port of 127.0.0.1 that no process uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _lock_of_system(home: Path) -> Iterator[None]:
    """Hold the lock of this home's system, with our process id in it. The kernel releases it if we are killed."""
    with open(home / "up.pid", "a+") as record:
        try:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"the system of {home} is running already (process {running_pid()}). "
                f"Stop it with `{settings.to_run('down')}`"
            ) from None
        record.truncate(0)
        record.write(str(os.getpid()))
        record.flush()
        try:
            yield
        finally:
            record.truncate(0)


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


def _in_schema(dsn: str, schema: str) -> str:
    """Return the DSN as a URL, with `schema` as the search path of its connections."""
    parts = psycopg2.extensions.parse_dsn(dsn)
    options = f"{parts.pop('options', '')} -csearch_path={schema}".strip()
    user, password = parts.pop("user", ""), parts.pop("password", "")
    credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    database = quote(parts.pop("dbname", ""), safe="")
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in {**parts, "options": options}.items())
    return f"postgresql://{credentials}@/{database}?{query}" if credentials else f"postgresql:///{database}?{query}"


def create_instance_schema(shared: dict[str, str]) -> None:
    """Create the schema for Dagster's own tables. Raises StackError if the database does not answer or refuses to."""
    try:
        connection = psycopg2.connect(shared["DEDP_POSTGRES_DSN"])
    except psycopg2.Error as error:
        raise StackError(f"PostgreSQL can't be reached; is DEDP_POSTGRES_DSN right? {_in_a_line(error)}") from None
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {_INSTANCE_SCHEMA}")
    except psycopg2.Error as error:
        raise StackError(
            f"the schema {_INSTANCE_SCHEMA} for Dagster's own tables can't be created; "
            f"the user in DEDP_POSTGRES_DSN needs the privilege CREATE on the database: {_in_a_line(error)}"
        ) from None
    finally:
        connection.close()


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _instance_folder(home: Path) -> Path:
    """Return DAGSTER_HOME, with its configuration. If the user has set and configured one, it stays unchanged."""
    chosen = os.environ.get("DAGSTER_HOME")
    folder = Path(chosen).resolve() if chosen else home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if not chosen or not (folder / "dagster.yaml").exists():
        shutil.copyfile(INSTANCE_CONFIG, folder / "dagster.yaml")
    return folder


@contextmanager
def _dagster_dev(port: int, shared: dict[str, str], output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dagster", "dev", "-w", str(WORKSPACE)),
            *("-h", HOST, "-p", str(port)),
        ],
        cwd=WORKSPACE.resolve().parent,
        env=shared,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        # In a process group of its own it does not get the Ctrl-C of the terminal: we stop it after the clean-up.
        start_new_session=True,
        preexec_fn=react_to_interrupts,
    )
    try:
        yield process
    finally:
        with _no_interrupts():
            _stop(process)


def react_to_interrupts() -> None:
    """Make a new process react to SIGINT. It inherits from a shell's background job that it ignores the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    # Processes of the group may still run: a run, or a code server that did not react.
    give_up = time.monotonic() + _STOP_SECONDS
    for sent in (signal.SIGTERM, signal.SIGKILL):
        while _group_exists(process.pid) and time.monotonic() < give_up:
            os.killpg(process.pid, sent)
            time.sleep(0.2)
        give_up = time.monotonic() + 5
    process.wait()


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C in the block: a second one must not interrupt the clean-up."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_ready(stack: Stack, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _READY_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise StackError(f"`dagster dev` ended with status {process.returncode}.\n{log_tail(stack.log)}")
        entries = _location_entries(stack.url)
        if entries and all(entry["loadStatus"] == "LOADED" for entry in entries):
            broken = [e for e in entries if e["locationOrLoadError"]["__typename"] == "PythonError"]
            if broken:
                details = "\n".join(f"{e['name']}: {e['locationOrLoadError']['message']}" for e in broken)
                raise StackError(f"these code locations don't load:\n{details}")
            return
        time.sleep(0.3)
    raise StackError(f"Dagster is not ready after {_READY_SECONDS} s.\n{log_tail(stack.log)}")


def _location_entries(url: str) -> list[dict[str, Any]]:
    """Ask the web server for its code locations; return an empty list while it does not answer."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy for an address on this machine
        try:
            answer = session.post(f"{url}/graphql", json={"query": _LOCATIONS}, timeout=5).json()
        except (requests.RequestException, ValueError):
            return []
    return list(answer["data"]["workspaceOrError"].get("locationEntries", []))


def log_tail(log: Path, lines: int = 25) -> str:
    """Return the last lines of the log, with a heading that names the file."""
    with open(log, errors="replace") as text:
        tail = text.readlines()[-lines:]
    return f"The last lines of {log}:\n" + "".join(f"  {line}" for line in tail)
