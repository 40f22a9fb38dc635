"""Whole systems to measure, each on a home of its own: ours under `dedp up`, and the same code locations under stock
`dagster dev`, which has Dagster's own run launcher and daemons."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg
import psutil
import psycopg2
import psycopg2.extensions
import requests
import yaml

from dedp_assets import local_stack, settings

REPOSITORY = Path(__file__).resolve().parent.parent
_START_SECONDS = 180
_STOP_SECONDS = 60

# `dedp up`, with the code locations of the workspace.yaml that follows the port, if one does.
_DEDP_UP = """
import functools
import sys
from pathlib import Path
from dedp_assets import cli, local_stack

port, *workspace = sys.argv[1:]
if workspace:
    local_stack.running = functools.partial(local_stack.running, workspace=Path(workspace[0]))
sys.argv = ["dedp", "up", "--port", port]
cli.main()
"""
_LOCATIONS = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"


class TimedOut(Exception):
    """What was waited for did not happen in time. The message says what is missing."""


@dataclass(frozen=True)
class System:
    """A system that runs.

    Attributes:
        url: the address of its UI.
        process: the process that was started; the others descend from it.
        database: a connection to the database of the pipelines, outside of a transaction.
        instance: its Dagster instance.
        started_after: how long it took until it was ready, in s.
    """

    url: str
    process: "subprocess.Popen[bytes]"
    database: psycopg2.extensions.connection
    instance: dg.DagsterInstance
    started_after: float

    def count(self, query: str, *values: object) -> int:
        """The number that a query returns; 0 while its table does not exist."""
        with self.database.cursor() as cursor:
            try:
                cursor.execute(query, values)
                return int(cursor.fetchall()[0][0] or 0)
            except psycopg2.errors.UndefinedTable:
                return 0  # the first tick makes the tables

    def is_quiet(self) -> bool:
        """Whether no run is queued or under way."""
        under_way = [
            *(dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING),
            *(dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING),
        ]
        return self.instance.get_runs_count(dg.RunsFilter(statuses=under_way)) == 0

    def states(self) -> str:
        """How many of the last runs have which status."""
        found = Counter(run.status.value for run in self.instance.get_runs(limit=100))
        return ", ".join(f"{number} runs {status}" for status, number in found.items())

    def graphql(self, query: str, **variables: object) -> dict[str, Any]:
        """Ask the web server."""
        return _graphql(self.url, query, variables)


def wait_until(is_done: Callable[[], bool], seconds: float, missing: Callable[[], str], every: float = 0.02) -> None:
    """Wait until something is done.

    Args:
        is_done: whether it is.
        seconds: how long to wait at most.
        missing: what to say if it is not.
        every: how long to pause between two looks, in s.

    Raises:
        TimedOut: it was not done in time.
    """
    give_up = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > give_up:
            raise TimedOut(f"after {seconds:.0f} s: {missing()}")
        time.sleep(every)


@contextmanager
def interruptible() -> Iterator[None]:
    """End the block with its clean-up at Ctrl-C and SIGTERM, also in a background job, where Ctrl-C is ignored."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the clean-up
    raise KeyboardInterrupt


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Have environment variables set in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def fresh_home() -> Iterator[Path]:
    """Provide a new DEDP_HOME, which is in force in the block, and is deleted after it."""
    with tempfile.TemporaryDirectory(prefix="dedp-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # the database's user has to get in
        with environment(DEDP_HOME=f"{folder}/home"):
            yield settings.make_home()


@contextmanager
def under_dedp_up(locations: Sequence[str] = ()) -> Iterator[System]:
    """Start `dedp up` on the home in force, and stop it after the block.

    Args:
        locations: the modules of the code locations to run; all of workspace.yaml if there are none.
    """
    port = local_stack.free_port()
    command = [sys.executable, "-c", _DEDP_UP, str(port), *([str(_workspace(locations))] if locations else [])]
    log = settings.home() / "dedp up"
    with running_process(command, os.environ, log) as process:
        began = time.monotonic()
        _wait_for(process, log, lambda: "Dagster is up" in log.read_text())
        with _attached(port, process, time.monotonic() - began) as system:
            yield system


@contextmanager
def under_dagster_dev(locations: Sequence[str] = ()) -> Iterator[System]:
    """Start stock `dagster dev` on the home in force, and stop it after the block.

    It has our dagster.yaml without `run_launcher`, so runs are started by Dagster's default launcher.

    Args:
        locations: as of `under_dedp_up`.
    """
    port = local_stack.free_port()
    folder = settings.home() / "stock"
    folder.mkdir()
    configured = yaml.safe_load(local_stack.INSTANCE_CONFIG.read_text())
    configured.pop("run_launcher", None)
    (folder / "dagster.yaml").write_text(yaml.safe_dump(configured))
    settings.landing().mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "dagster", "dev", "-w", str(_workspace(locations))),
        *("-h", local_stack.HOST, "-p", str(port)),
    ]
    log = settings.home() / "dagster dev"
    with environment(DAGSTER_HOME=str(folder)), local_stack.environment() as shared:
        local_stack.create_instance_schema(shared)
        with running_process(command, shared, log) as process:
            began = time.monotonic()
            _wait_for(process, log, lambda: _are_loaded(f"http://{local_stack.HOST}:{port}"))
            with _attached(port, process, time.monotonic() - began) as system:
                yield system


def _workspace(locations: Sequence[str]) -> Path:
    if not locations:
        return local_stack.WORKSPACE
    modules = [{"python_module": {"module_name": each, "working_directory": str(REPOSITORY)}} for each in locations]
    workspace = settings.home() / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": modules}))
    return workspace


@contextmanager
def _attached(port: int, process: "subprocess.Popen[bytes]", seconds: float) -> Iterator[System]:
    with ExitStack() as cleanup:
        shared = cleanup.enter_context(local_stack.environment())
        cleanup.enter_context(environment(DEDP_DAGSTER_STORAGE=shared["DEDP_DAGSTER_STORAGE"]))
        instance = cleanup.enter_context(dg.DagsterInstance.from_config(shared["DAGSTER_HOME"]))
        database = cleanup.enter_context(closing(psycopg2.connect(shared["DEDP_POSTGRES_DSN"])))
        database.autocommit = True
        yield System(f"http://{local_stack.HOST}:{port}", process, database, instance, seconds)


@contextmanager
def running_process(
    command: Sequence[str], variables: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process that starts others, and stop all of them after the block, also those that do not react."""
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it does not get the Ctrl-C of the terminal
            preexec_fn=local_stack.react_to_interrupts,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt a process, wait until it has ended, and kill what is left of its descendants."""
    started = descendants(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(started, timeout=5)
    for each in left:
        if each.is_running():  # psutil compares the start time, too: it is no other process with the same id
            each.kill()


def descendants(pid: int) -> list[psutil.Process]:
    """The processes that descend from a process. None if it has ended."""
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        return found
    except psutil.NoSuchProcess:
        return []


def _wait_for(process: "subprocess.Popen[bytes]", log: Path, is_ready: Callable[[], bool]) -> None:
    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with status {process.returncode}:\n{log.read_text()[-3000:]}")
        return is_ready()

    wait_until(ready, _START_SECONDS, lambda: f"it is not ready:\n{log.read_text()[-3000:]}", every=0.1)


def _are_loaded(url: str) -> bool:
    try:
        entries = _graphql(url, _LOCATIONS, {})["workspaceOrError"].get("locationEntries", [])
    except (requests.RequestException, ValueError):
        return False
    return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)


def _graphql(url: str, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
    with requests.Session() as session:
        session.trust_env = False  # no proxy for an address on this machine
        body = {"query": query, "variables": variables}
        answer = session.post(f"{url}/graphql", json=body, auth=("dedp", "dedp"), timeout=60).json()
    data: dict[str, Any] = answer["data"]
    return data
