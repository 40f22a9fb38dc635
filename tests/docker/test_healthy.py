"""The health checks of the containers ask the server itself: one that is hung is not healthy."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import util
from types import ModuleType

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from dedp_assets import settings


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = util.spec_from_file_location("healthy", settings.REPOSITORY / "docker" / "healthy.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SECONDS", 0.5)
    return module


@pytest.fixture
def hung() -> Iterator[int]:
    """The port of a server that takes connections and answers nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize(("status", "is_healthy"), [("SERVING", True), ("NOT_SERVING", False)])
def test_a_code_server_is_as_healthy_as_it_says(healthy: ModuleType, status: str, is_healthy: bool) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    servicer = health.HealthServicer()
    servicer.set("DagsterApi", getattr(health_pb2.HealthCheckResponse, status))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert healthy.grpc_serves(str(port)) == is_healthy
    finally:
        server.stop(None)


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False)])
def test_a_web_server_is_as_healthy_as_it_says(healthy: ModuleType, status: int, is_healthy: bool) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request).start()
        assert healthy.http_answers(str(server.server_port)) == is_healthy


@pytest.mark.parametrize("check", ["grpc_serves", "http_answers"])
def test_a_server_that_takes_connections_and_says_nothing_is_not_healthy(
    healthy: ModuleType, hung: int, check: str
) -> None:
    with pytest.raises((grpc.RpcError, TimeoutError)):
        getattr(healthy, check)(str(hung))


def test_a_check_of_a_server_that_is_gone_ends_with_an_error() -> None:
    program = str(settings.REPOSITORY / "docker" / "healthy.py")
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        done = subprocess.run([sys.executable, program, "http", str(gone.getsockname()[1])], capture_output=True)
    assert done.returncode != 0
