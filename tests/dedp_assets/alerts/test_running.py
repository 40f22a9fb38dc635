"""The alerts of a running system: they come without a daemon, and name what is broken in it."""

import datetime as dt
import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
from dagster._core.test_utils import freeze_time

from dedp_assets import local_stack
from dedp_assets.alerts.judging import Limits
from dedp_assets.alerts.observing import Seen, observe
from dedp_assets.observability.dagster_tables import connected_to_dagster
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


TIDES = """
import dagster as dg
from dedp_assets.errors import PermanentError
from dedp_assets.freshness_from_settings import with_freshness
from sensors.ticks import reporting_tick

@dg.asset
def ebb():
    raise ValueError("no moon")

@dg.asset
def flood(): ...

@dg.job
def work(): ...

@dg.sensor(job=work, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def blind(context):
    raise ValueError("no light")

@dg.sensor(asset_selection=[ebb], minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def once(context):
    return dg.RunRequest(run_key="once", asset_selection=[ebb.key])

@dg.sensor(
    name="locked_out", job=work, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING
)
@reporting_tick
def locked_out(context, report):
    raise PermanentError("the beach can't be read; give us access")

@dg.sensor(
    name="busy", job=work, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING
)
@reporting_tick
def busy(context, report):
    report.run_requests.append(dg.RunRequest(run_key="once"))
    raise PermanentError("half of the beach can't be read; give us access")

defs = with_freshness(dg.Definitions(assets=[ebb, flood], jobs=[work], sensors=[blind, once, locked_out, busy]))
"""


class Receiver(ThreadingHTTPServer):
    """Takes messages once it is open; until then it is busy."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.is_open = False
        self.asked = 0
        self.messages: list[dict[str, Any]] = []


class _Requests(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked += 1
        if self.server.is_open:
            self.server.messages.append(message)
        self.send_response(200 if self.server.is_open else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class System:
    """The running system, and what is wrong with it by its tables."""

    def __init__(self, stack: local_stack.Stack, instance: dg.DagsterInstance, home: Path) -> None:
        self.stack, self.instance, self.home = stack, instance, home

    def seen(self, limits: Limits | None = None) -> Seen:
        environment = self.stack.environment
        database = psycopg2.connect(environment["DEDP_POSTGRES_DSN"])
        workspace = self.home / "run" / "workspace.yaml"
        with connected_to_dagster(environment["DEDP_DAGSTER_STORAGE"]) as dagster:
            seen = observe(self.instance, dagster, database, workspace, {}, limits or Limits())
        database.close()
        return seen

    def keys(self, limits: Limits | None = None) -> set[str]:
        return {problem.key for problem in self.seen(limits).problems}

    def pid(self, name: str) -> int:
        assert self.stack.supervision
        return wait_until(lambda: self.stack.supervision and self.stack.supervision.pids().get(name), name) or 0


@pytest.fixture(scope="module")
def system(module_dsn: str, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "tides.py").write_text(TIDES)
    (folder / "wrecked.py").write_text("import no_such_package")
    (folder / "workspace.yaml").write_text("load_from:\n  - python_module: tides\n  - python_module: wrecked\n")
    with ExitStack() as cleanup:
        patch = cleanup.enter_context(pytest.MonkeyPatch.context())
        # Of a home with a longer path, the sockets would be elsewhere.
        home = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="dedp-tests-")))
        for name, value in {
            "DEDP_HOME": str(home),
            "DEDP_POSTGRES_DSN": module_dsn,
            "DEDP_SPARK_REMOTE": "sc://localhost:1",
            "DEDP_ALERTS": f"http://127.0.0.1:{receiver.server_port}/hook",
            "DEDP_LOG_FORMAT": "json",
            "DEDP_FRESHNESS": "flood=1m; no_such_asset=26h",
            "FRESHNESS_DAEMON_INTERVAL_SECONDS": "1",
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        stack = cleanup.enter_context(local_stack.running(local_stack.free_port(), workspace=folder / "workspace.yaml"))
        patch.setenv("DEDP_DAGSTER_STORAGE", stack.environment["DEDP_DAGSTER_STORAGE"])
        instance = cleanup.enter_context(dg.DagsterInstance.from_config(stack.environment["DAGSTER_HOME"]))
        yield System(stack, instance, home)


def test_what_is_broken_is_seen_in_the_running_system(system: System) -> None:
    expected = {"run/ebb/", "tick/tides/blind", "tick/tides/locked_out", "tick/tides/busy", "location/wrecked"}
    wait_until(lambda: expected <= system.keys(), "the failures")
    seen = system.seen()
    assert seen.unseen == {}
    said = {problem.key: problem.what for problem in seen.problems}
    assert "no moon" in said["run/ebb/"]
    assert "no light" in said["tick/tides/blind"]
    assert "the beach can't be read; give us access" in said["tick/tides/locked_out"]
    assert "half of the beach can't be read; give us access" in said["tick/tides/busy"]
    assert "no_such_package" in said["location/wrecked"]
    assert "tick/tides/once" not in said
    assert "daemon" not in said


def test_messages_come_in_the_end_although_the_receiver_was_down_and_the_process_was_killed(
    system: System, receiver: Receiver
) -> None:
    wait_until(lambda: receiver.asked, "the first attempt")
    os.kill(system.pid("alerts"), signal.SIGKILL)
    receiver.is_open = True
    subjects = {"ebb failed", "The sensor blind keeps failing"}
    wait_until(lambda: subjects <= {message["subject"] for message in receiver.messages}, "the messages")
    # What was on its way when the process was killed comes twice, but with the same key: the receiver can drop it.
    told = {(message["subject"], message["key"]) for message in receiver.messages}
    assert len(told) == len({subject for subject, _ in told})


def test_an_asset_that_misses_the_policy_of_the_setting_is_an_incident_until_it_is_materialized(
    system: System, receiver: Receiver
) -> None:
    receiver.is_open = True
    with freeze_time(dt.datetime.now(dt.timezone.utc) - dt.timedelta(minutes=2)):
        system.instance.report_runless_asset_event(dg.AssetMaterialization("flood"))
    wait_until(lambda: "flood is out of date" in {message["subject"] for message in receiver.messages}, "the message")
    fresh = Limits(fresh=("flood", "no_such_asset"))
    assert {"freshness/flood", "freshness-setting/no_such_asset"} <= system.keys(fresh)
    assert "freshness-setting/flood" not in system.keys(fresh)

    def is_fresh_again() -> bool:
        # Again and again: on a slow machine, a minute may pass before the daemon looks.
        system.instance.report_runless_asset_event(dg.AssetMaterialization("flood"))
        return "freshness/flood" not in system.keys(fresh)

    wait_until(is_fresh_again, "the end of the incident")


def test_the_processes_log_json_if_they_are_asked_to(system: System) -> None:
    def loggers() -> set[str]:
        lines = [line for line in system.stack.log.read_text().splitlines() if line.startswith('{"')]
        return {json.loads(line)["logger"].partition(".")[0] for line in lines}

    wait_until(lambda: {"dedp", "dagster", "dagster-webserver"} <= loggers(), "lines of JSON")


def test_a_daemon_that_does_nothing_any_more_is_seen(system: System) -> None:
    daemon = system.pid("daemon")
    os.kill(daemon, signal.SIGSTOP)
    try:
        wait_until(lambda: "daemon" in system.keys(Limits(daemon=40.0)), "the silence of the daemon")
        assert system.seen(Limits(daemon=40.0)).unseen.keys() == {"tick", "reconciliation"}
    finally:
        os.kill(daemon, signal.SIGCONT)
    wait_until(lambda: "daemon" not in system.keys(Limits(daemon=40.0)), "the daemon's return")
