"""The running system with small code locations of a test: what is started, what dies, and what is loaded again."""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from dedp_assets import local_stack
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

LeftRunning = Callable[[Path], list[str]]

TIDES = """
import json, os, time
import dagster as dg

VERSION = "first"

@dg.op(config_schema={"path": str})
def measure(context):
    path = context.op_config["path"]
    with open(path, "w") as told:
        json.dump([VERSION, os.getpid(), os.getppid()], told)
    while os.path.exists(path + ".held"):
        time.sleep(0.05)

@dg.job(executor_def=dg.in_process_executor)
def work():
    measure()

@dg.sensor(job=work, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def counts(context):
    context.update_cursor(str(int(context.cursor or 0) + 1))
    return dg.SkipReason("counted")

defs = dg.Definitions(jobs=[work], sensors=[counts])
"""
_LAUNCH = """
    mutation ($run: ExecutionParams!) { launchRun(executionParams: $run) {
        __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    } }
"""
_RELOAD = "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
_ENTRIES = """
    { workspaceOrError { ... on Workspace { locationEntries {
        name locationOrLoadError { __typename ... on RepositoryLocation { repositories { jobs { name } } } }
    } } } }
"""


class System:
    """The running system, its instance, and what it has said."""

    def __init__(self, folder: Path, home: Path, dsn: str) -> None:
        self.folder, self._settings = folder, settings_of(home, dsn)
        self._told = 0
        self._holds: list[Path] = []
        self._running, self._attached = ExitStack(), ExitStack()
        self.up()

    def up(self) -> None:
        self._attached.close()
        self.said: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._settings.items():
                patch.setenv(name, value)
            running = local_stack.running(local_stack.free_port(), self.said.append, self.folder / "workspace.yaml")
            self.stack = self._running.enter_context(running)
            patch.setenv("DEDP_DAGSTER_STORAGE", self.stack.environment["DEDP_DAGSTER_STORAGE"])
            self.instance = self._attached.enter_context(
                dg.DagsterInstance.from_config(self.stack.environment["DAGSTER_HOME"])
            )

    def stop(self) -> None:
        """Stop it. Its instance is there as before."""
        self._running.close()

    def close(self) -> None:
        self._running.close()
        self._attached.close()

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        login = base64.b64encode(b"dedp:dedp").decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
        request = urllib.request.Request(f"{self.stack.url}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return dict(json.load(answer)["data"])

    def launch(self, hold: bool = False) -> tuple[str, Path]:
        """Launch a run. Returns its id, and the file that it writes.

        Args:
            hold: whether its step stands still once it has written the file, until `let_go`.
        """
        self._told += 1
        path = self.folder / f"told {self._told}"
        if hold:
            self._holds.append(path.with_name(f"{path.name}.held"))
            self._holds[-1].touch()
        config = {"ops": {"measure": {"config": {"path": str(path)}}}}
        selector = {"repositoryName": "__repository__", "repositoryLocationName": "tides", "jobName": "work"}
        launched = self.ask(_LAUNCH, run={"selector": selector, "runConfigData": config})["launchRun"]
        assert "run" in launched, launched
        return launched["run"]["runId"], path

    def let_go(self) -> None:
        """Have the steps that stand still go on."""
        while self._holds:
            self._holds.pop().unlink()

    def run(self, hold: bool = False) -> tuple[str, str, int, int]:
        """Launch a run, and wait for its step. Returns its id, the version of its code, its process, and the parent."""
        run_id, path = self.launch(hold)
        version, pid, parent = json.loads(wait_until(lambda: path.read_text() if path.exists() else "", "the step"))
        return run_id, version, pid, parent

    def wait_for_success(self, run_id: str) -> None:
        def finished() -> dg.DagsterRun | None:
            run = self.instance.get_run_by_id(run_id)
            return run if run and run.is_finished else None

        run = wait_until(finished, "the run's end")
        assert run is not None
        assert run.status == dg.DagsterRunStatus.SUCCESS

    def pid(self, name: str) -> int | None:
        assert self.stack.supervision
        return self.stack.supervision.pids().get(name)

    def cursor(self) -> int:
        """That of the sensor; 0 before its first tick. There is never more than one."""
        states = [state for state in self.instance.all_instigator_state() if state.name == "counts"]
        assert len(states) < 2
        return int(getattr(states[0].instigator_data, "cursor", None) or 0) if states else 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "tides.py").write_text(TIDES)
    (folder / "wrecked.py").write_text("import no_such_package")
    (folder / "workspace.yaml").write_text("load_from:\n  - python_module: tides\n  - python_module: wrecked\n")
    return folder


def settings_of(home: Path, dsn: str) -> dict[str, str]:
    return {"DEDP_HOME": str(home), "DEDP_POSTGRES_DSN": dsn, "DEDP_SPARK_REMOTE": "sc://localhost:1"}


@pytest.fixture(scope="module")
def system(folder: Path, module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    running = System(folder, tmp_path_factory.mktemp("home"), module_dsn)
    yield running
    running.close()


def title(pid: int) -> str:
    return " ".join(psutil.Process(pid).cmdline()).strip()


def test_a_run_is_a_fork_of_the_template_that_shares_the_import_of_the_code_server(system: System) -> None:
    run_id, _, _, parent = system.run()
    system.wait_for_success(run_id)
    assert title(parent) == "dagster template tides"
    assert psutil.Process(parent).ppid() == system.pid("code server of tides")


def test_cursors_stay_when_dagster_dev_takes_the_home_and_when_the_system_takes_it_again(system: System) -> None:
    """Dagster finds them by the names of location, repository and sensor, and not by the address of a code server."""

    wait_until(lambda: system.cursor() > 2, "ticks")
    system.stop()
    before = system.cursor()
    with _dagster_dev(system.folder, system.stack.environment):
        wait_until(lambda: system.cursor() != before, "a tick under `dagster dev`")
        assert system.cursor() > before, "a lost cursor begins with 1"
    before = system.cursor()
    system.up()
    wait_until(lambda: system.cursor() != before, "a tick of the system")
    assert system.cursor() > before, "a lost cursor begins with 1"


@contextmanager
def _dagster_dev(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    port = str(local_stack.free_port())
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", port]
    with open(folder / "dev.log", "ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=local_stack.react_to_interrupts,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_location_that_cannot_be_imported_is_shown_the_others_run_and_the_reload_button_loads_it_when_it_is_mended(
    system: System,
) -> None:
    assert list(system.stack.broken) == ["wrecked"]
    assert "no_such_package" in system.stack.broken["wrecked"]
    entries = {entry["name"]: entry["locationOrLoadError"]["__typename"] for entry in _entries(system)}
    assert entries == {"tides": "RepositoryLocation", "wrecked": "PythonError"}

    (system.folder / "wrecked.py").write_text(TIDES.replace("counts", "counts_wrecks"))
    system.ask(_RELOAD, name="wrecked")
    assert {entry["locationOrLoadError"]["__typename"] for entry in _entries(system)} == {"RepositoryLocation"}


def _entries(system: System) -> list[dict[str, Any]]:
    return list(system.ask(_ENTRIES)["workspaceOrError"]["locationEntries"])


def test_a_changed_file_counts_for_the_next_run_and_the_reload_button_shows_it(system: System) -> None:
    held, version, _, _ = system.run(hold=True)
    assert version == "first"
    more = "def more():\n    measure()\n\n@dg.job\ndef work()"
    second = TIDES.replace('"first"', '"second"').replace("def work()", more).replace("[work]", "[work, more]")
    (system.folder / "tides.py").write_text(second)
    run_id, version, _, parent = system.run()
    assert version == "second"
    assert "dagster_warm_launcher.template" in title(parent)
    (entry,) = [entry for entry in _entries(system) if entry["name"] == "tides"]
    assert "more" not in str(entry)

    before = system.pid("code server of tides")
    system.ask(_RELOAD, name="tides")
    assert "more" in str(_entries(system))
    wait_until(lambda: system.pid("code server of tides") not in (None, before), "the new code server")

    def is_a_fork_again() -> bool:
        # The daemon hears of a reload a moment later. The template of before ends with its last run.
        with suppress(psutil.NoSuchProcess):
            return title(system.run()[3]) == "dagster template tides"
        return False

    wait_until(is_a_fork_again, "a run of the new template")
    system.wait_for_success(run_id)
    system.let_go()
    system.wait_for_success(held)


@pytest.mark.parametrize("victim", ["code server of tides", "daemon", "web server", "template", "zygote"])
def test_what_dies_is_started_again_and_said_and_a_run_goes_on(system: System, victim: str) -> None:
    run_id, _, pid, parent = system.run(hold=True)
    server = psutil.Process(wait_until(lambda: system.pid("code server of tides"), "the code server"))
    if victim == "template":
        doomed = psutil.Process(parent)
    elif victim == "zygote":
        doomed = psutil.Process(server.ppid())
    else:
        doomed = psutil.Process(wait_until(lambda: system.pid(victim), victim))
    said = len(system.said)
    doomed.kill()
    wait_until(lambda: len(system.said) > said, "a word about it")
    if victim == "zygote":
        assert "Runs go on" in system.said[said]
    elif victim == "template":
        assert system.said[said] == f"The code server of tides is replaced: its template (process {parent}) has ended."
    else:
        assert system.said[said].startswith(f"The {victim} has ended, killed by signal 9 (SIGKILL). It starts again in")
    assert psutil.pid_exists(pid)
    cursor = system.cursor()

    def works() -> bool:
        with suppress(OSError, HTTPException, AssertionError, KeyError, TypeError):
            return bool(system.launch())
        return False

    wait_until(works, "the system to work again")
    wait_until(lambda: system.cursor() > cursor, "a tick, which goes on from the cursor of the last one")
    system.let_go()
    system.wait_for_success(run_id)
    again, *_ = system.run()
    system.wait_for_success(again)


_SUPERVISOR = """
import sys, time
from pathlib import Path
from dedp_assets import local_stack
with local_stack.running(local_stack.free_port(), workspace=Path(sys.argv[1])) as stack:
    print(stack.url, flush=True)
    time.sleep(3600)
"""


def test_a_supervisor_that_is_killed_leaves_nothing_running(
    folder: Path, own_home: Path, empty_dsn: str, left_running: LeftRunning
) -> None:
    command = [sys.executable, "-c", _SUPERVISOR, str(folder / "workspace.yaml")]
    environment = {**os.environ, **settings_of(own_home, empty_dsn)}
    supervisor = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert supervisor.stdout
    assert supervisor.stdout.readline()
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    wait_until(lambda: not left_running(own_home), "the end of all processes")
