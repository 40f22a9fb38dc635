"""`dedp traces` sends real runs to a real endpoint, and nothing else imports OpenTelemetry."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest

from tests.dagster_in_postgres import dagster_in_postgres
from tests.dedp_command import run_dedp

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


class Collector(ThreadingHTTPServer):
    """Takes traces as OpenTelemetry's collector does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.spans: list[tuple[str, Any]] = []


class _Requests(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        sent = trace_service.ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in sent.resource_spans:
            (name,) = [each.value.string_value for each in resource.resource.attributes if each.key == "service.name"]
            self.server.spans += [(name, span) for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2024-01-01"))
def ebb() -> None: ...


@dg.asset(deps=[ebb], partitions_def=dg.DailyPartitionsDefinition("2024-01-01"), retry_policy=dg.RetryPolicy(1))
def flood() -> None:
    raise ValueError("no moon")


def attributes(span: Any) -> dict[str, Any]:
    return {
        each.key: [value.string_value for value in each.value.array_value.values] or each.value.string_value
        for each in span.attributes
    }


@pytest.mark.slow
def test_a_run_is_a_trace_and_each_attempt_of_a_step_a_span_of_it(
    module_dsn: str, collector: Collector, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {".dagster/repository": "__repository__@jobs.tides"}
    with dagster_in_postgres(module_dsn, tmp_path_factory.mktemp("instance")) as (instance, _):
        run = dg.materialize(
            [ebb, flood], instance=instance, partition_key="2024-01-02", tags=tags, raise_on_error=False
        )
    monkeypatch.setenv("DEDP_POSTGRES_DSN", module_dsn)
    for _ in range(2):
        ended = run_dedp("traces", "--once")
        assert ended.returncode == 0, ended.stderr
    first, again = collector.spans[: len(collector.spans) // 2], collector.spans[len(collector.spans) // 2 :]
    assert [span.SerializeToString() for _, span in first] == [span.SerializeToString() for _, span in again]
    assert {name for name, _ in first} == {"jobs.tides"}
    spans = [span for _, span in first]
    assert {span.trace_id.hex() for span in spans} == {run.run_id.replace("-", "")}
    root, *children = spans
    assert [span.name for span in children] == ["wait for the start", "step ebb", "step flood", "step flood"]
    assert {span.parent_span_id for span in children} == {root.span_id}
    assert len({span.span_id for span in spans}) == 5
    assert [span.status.code for span in spans] == [2, 1, 1, 2, 2]
    assert "no moon" in root.status.message
    assert attributes(root)["dagster.run_id"] == run.run_id
    assert attributes(children[1])["dagster.assets"] == ["ebb"]
    assert {attributes(span)["dagster.partition"] for span in spans} == {"2024-01-02"}
    for span in children:
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano


def test_without_an_endpoint_the_command_says_what_is_missing() -> None:
    ended = run_dedp("traces", "--once")
    assert ended.returncode == 1
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is not set; expected a URL" in ended.stderr


def test_no_code_location_imports_opentelemetry() -> None:
    code = "import sys, jobs.devices_loader, jobs.client_uploads; print('opentelemetry' in sys.modules)"
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
