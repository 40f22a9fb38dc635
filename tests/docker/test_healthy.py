"""The health checks of the containers: who works, who does not, and who is there and gives no sign of life."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import util
from types import ModuleType

import dagster as dg
import grpc
import psycopg2
import pytest
from dagster._daemon.types import DaemonHeartbeat
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from dedp_assets import settings
from dedp_assets.alerts.store import ensure_tables

WORKS, DOES_NOT, HANGS = 0, 1, 2


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = util.spec_from_file_location("healthy", settings.REPOSITORY / "docker" / "healthy.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SECONDS", 0.3)
    return module


@pytest.fixture
def hung() -> Iterator[int]:
    """The port of a server that takes connections and answers nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        yield gone.getsockname()[1]


@pytest.mark.parametrize(("status", "found"), [("SERVING", WORKS), ("NOT_SERVING", DOES_NOT)])
def test_a_code_server_is_as_healthy_as_it_says(healthy: ModuleType, status: str, found: int) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    servicer = health.HealthServicer()
    servicer.set("DagsterApi", getattr(health_pb2.HealthCheckResponse, status))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert healthy.main("grpc", str(port)) == found
    finally:
        server.stop(None)


@pytest.mark.parametrize(("status", "found"), [(200, WORKS), (503, DOES_NOT)])
def test_a_web_server_is_as_healthy_as_it_says(healthy: ModuleType, status: int, found: int) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request).start()
        assert healthy.main("http", str(server.server_port), "/healthz") == found


@pytest.mark.parametrize("check", [["grpc"], ["http", "/healthz"]], ids=["grpc", "http"])
def test_a_server_that_takes_connections_and_says_nothing_hangs(
    healthy: ModuleType, hung: int, check: list[str]
) -> None:
    kind, *path = check
    assert healthy.main(kind, str(hung), *path) == HANGS


@pytest.mark.parametrize("check", [["grpc"], ["http", "/healthz"]], ids=["grpc", "http"])
def test_a_server_that_does_not_listen_yet_is_not_healthy_and_does_not_hang(
    healthy: ModuleType, nobody: int, check: list[str]
) -> None:
    kind, *path = check
    assert healthy.main(kind, str(nobody), *path) == DOES_NOT


def test_the_program_ends_with_what_it_has_found(nobody: int) -> None:
    program = str(settings.REPOSITORY / "docker" / "healthy.py")
    done = subprocess.run([sys.executable, program, "http", str(nobody), "/healthz"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.partition(":")[0]) == (DOES_NOT, "ConnectionRefusedError")


def beat(instance: dg.DagsterInstance, process: str, daemon: str, seconds_ago: float) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - seconds_ago, daemon, process, None))


def test_the_daemon_hangs_if_one_of_its_threads_gives_no_sign_of_life(
    healthy: ModuleType, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_DAGSTER_STORAGE", empty_dsn)
    with closing(psycopg2.connect(empty_dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {connection.info.dbname} SET timezone = 'Asia/Tokyo'")
    with dg.instance_for_test(overrides={"storage": {"postgres": {"postgres_url": empty_dsn}}}) as instance:
        assert healthy.main("daemon") == DOES_NOT  # none has come up yet
        beat(instance, "an earlier version", "A_DAEMON_THAT_IT_HAD", seconds_ago=1e6)
        for daemon in ("SENSOR", "SCHEDULER"):
            beat(instance, "this process", daemon, seconds_ago=30)
        assert healthy.main("daemon") == WORKS
        beat(instance, "this process", "SCHEDULER", seconds_ago=500)
        assert healthy.main("daemon") == HANGS
        beat(instance, "this process", "SENSOR", seconds_ago=500)
        assert healthy.main("daemon") == HANGS


def test_alerts_hang_if_they_have_not_looked_for_long(
    healthy: ModuleType, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", empty_dsn)
    assert healthy.main("alerts") == DOES_NOT
    with closing(psycopg2.connect(empty_dsn)) as connection, connection.cursor() as cursor:
        ensure_tables(connection)
        assert healthy.main("alerts") == DOES_NOT
        for ago, found in {"30 seconds": WORKS, "10 minutes": HANGS}.items():
            with connection:
                cursor.execute("DELETE FROM dedp.alert_looks")
                cursor.execute("INSERT INTO dedp.alert_looks VALUES (1, now() - %s::interval, '{}')", [ago])
            assert healthy.main("alerts") == found


@pytest.mark.parametrize("kind", ["daemon", "alerts"])
def test_who_can_not_be_looked_up_because_the_database_is_away_does_not_hang(
    healthy: ModuleType, nobody: int, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in ("DEDP_POSTGRES_DSN", "DEDP_DAGSTER_STORAGE"):
        monkeypatch.setenv(name, f"postgresql://dedp@127.0.0.1:{nobody}/dedp")
    assert healthy.main(kind) == DOES_NOT
