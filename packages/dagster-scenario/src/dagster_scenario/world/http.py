"""An HTTP server of the world outside, which answers, fails and goes away as it is told."""

import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from dagster_scenario.errors import ScenarioError

_ADDRESS = "127.0.0.1"
# What the server thread looks at for a sign to end, in real seconds.
_POLL = 0.02
_BODILESS = frozenset({204, 205, 304})

# A path, and the query in the order of its names; None for any query.
_Target = tuple[str, tuple[tuple[str, str], ...] | None]


@dataclass(frozen=True)
class Request:
    """A request that has come in. `at` is simulated time.

    query has the last value of a name that is repeated. headers are found without regard to case. status is what
    was answered, None when the connection was dropped.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Message = field(repr=False)
    body: bytes
    at: datetime
    status: int | None

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]


@dataclass
class _Failure:
    status: int | None
    times: int | None


class Endpoint:
    """An HTTP server on a port of its own, on this machine, from the moment it is made.

    A path begins with a slash. With a query, as in `/orders?day=2024-01-31`, it stands for requests with exactly
    this query, in any order; without one, for all those that no path with a query is for.
    """

    def __init__(self, now: Callable[[], datetime], happened: Callable[[str], None], name: str) -> None:
        self._now, self._happened, self._name = now, happened, name
        self._lock = threading.Lock()
        self._answers: dict[tuple[_Target, str | None], _Answer] = {}
        self._failures: dict[_Target, _Failure] = {}
        self._requests: list[Request] = []
        self._connections: set[socket.socket] = set()
        self._server: _Server | None = None
        self._closed = False
        self._bound = _bind(0)
        self._port: int = self._bound.getsockname()[1]
        self._serve()

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end; the same for as long as the scenario lasts."""
        return f"http://{_ADDRESS}:{self._port}"

    @property
    def requests(self) -> list[Request]:
        """What has been asked so far, in the order in which it came in."""
        with self._lock:
            return list(self._requests)

    def answer(
        self,
        path: str,
        body: Any = "",
        status: int = 200,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """From now on a path is answered like this; method: for requests of this method only.

        body: a text, bytes, or what `json.dumps` takes. headers: besides Content-Type, which follows from the body
        unless it is given, Content-Length, Date and Server. Raises ScenarioError for a path, body or status that can't
        be.
        """
        target = _target(path)
        content, kind = _content(body)
        _check_status(status)
        if content and status in _BODILESS:
            raise ScenarioError(f"an answer with status {status} has no body; leave the body out")
        given = dict(headers or {})
        if content and not any(name.lower() == "content-type" for name in given):
            given["Content-Type"] = kind
        method = method.upper() if method else None
        if method is not None and not hasattr(_Handler, f"do_{method}"):
            raise ScenarioError(f"{method!r} is not a method; expected one of {', '.join(_methods())}")
        with self._lock:
            self._answers[target, method] = _Answer(status, content, tuple(given.items()))
        asked = f"{method} {path}" if method else path
        self._happened(f"{self._name} has an answer for {asked}: {status} ({len(content)} bytes)")

    def fail(self, path: str, status: int | None = 503, times: int | None = None) -> None:
        """The next `times` requests for a path that has an answer fail, all of them until `recover` with None.

        A path without a query fails with every query. status: what they get instead; with None the connection is
        dropped without an answer. Raises ScenarioError for a path that has no answer.
        """
        target = self._known(path)
        if status is not None:
            _check_status(status)
        if times is not None and times < 1:
            raise ScenarioError(f"times={times}: expected 1 or more, or None for all requests until recover({path!r})")
        with self._lock:
            self._failures[target] = _Failure(status, times)
        how = f"answers {status} to" if status is not None else "drops the connection of"
        which = "every request" if times is None else f"the next {times} requests" if times > 1 else "the next request"
        self._happened(f"{self._name} {how} {which} for {path}")

    def recover(self, path: str) -> None:
        """End what `fail` began. ScenarioError when nothing fails there any more."""
        target = _target(path)
        with self._lock:
            if self._failures.pop(target, None) is None:
                failing = ", ".join(sorted(_text(target) for target in self._failures)) or "no path"
                raise ScenarioError(f"{path} does not fail; {failing} does. fail({path!r}) comes first")
        self._happened(f"{self._name} has recovered at {path}")

    def stop(self) -> None:
        """It goes down: open connections end, new ones are refused. ScenarioError when it is down already."""
        self._open()
        if self._server is None:
            raise ScenarioError(f"{self._name} is down already; start() brings it back")
        self._end()
        # Bound and not listening: refused, and nobody else gets the port in the meantime.
        self._bound = _bind(self._port)
        self._happened(f"{self._name} goes down")

    def start(self) -> None:
        """It comes back, at the same URL, with the answers and failures it had. ScenarioError when it is up."""
        self._open()
        if self._server is not None:
            raise ScenarioError(f"{self._name} is up; stop() comes first")
        self._serve()
        self._happened(f"{self._name} is back")

    def close(self) -> None:
        """End it for good."""
        self._closed = True
        if self._server is not None:
            self._end()
        self._bound.close()

    def _open(self) -> None:
        if self._closed:
            raise ScenarioError(f"{self._name} has ended with its scenario; make one in the scenario that is open")

    def _serve(self) -> None:
        server = _Server(self, self._bound)
        self._thread = threading.Thread(target=server.serve_forever, args=(_POLL,), name=self._name, daemon=True)
        self._thread.start()
        self._server = server

    def _end(self) -> None:
        assert self._server is not None
        server, self._server = self._server, None
        server.shutdown()
        server.server_close()
        self._thread.join()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _known(self, path: str) -> _Target:
        target = _target(path)
        with self._lock:
            if not any(known == target[0] for (known, _), _ in self._answers):
                there = ", ".join(self._paths()) or "none"
                raise ScenarioError(f"no answer for {path}; there are: {there}. answer({path!r}, ...) comes first")
        return target

    def _paths(self) -> list[str]:
        return sorted({_text(target) for target, _ in self._answers})

    # In the threads of the server

    def _connected(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def _disconnected(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def _take(self, method: str, address: str, headers: Message, body: bytes) -> _Answer | None:
        """What a request gets; None: nothing, the connection is to be dropped."""
        parts = urlsplit(address)
        query = parse_qsl(parts.query, keep_blank_values=True)
        path = unquote(parts.path) or "/"
        targets: list[_Target] = [(path, tuple(sorted(query))), (path, None)]
        with self._lock:
            answer = self._fail(targets) if self._fails(targets) else self._find(method, targets)
            status = answer.status if answer is not None else None
            self._requests.append(Request(method, path, dict(query), headers, body, self._now(), status))
        return answer

    def _fails(self, targets: list[_Target]) -> bool:
        return any(target in self._failures for target in targets)

    def _fail(self, targets: list[_Target]) -> _Answer | None:
        target = next(target for target in targets if target in self._failures)
        failure = self._failures[target]
        if failure.times is not None:
            failure.times -= 1
            if failure.times == 0:
                del self._failures[target]
        return None if failure.status is None else _Answer(failure.status, b"", ())

    def _find(self, method: str, targets: list[_Target]) -> _Answer:
        methods: set[str] = set()
        for target in targets:
            for wanted in (method, "GET" if method == "HEAD" else method, None):
                if (target, wanted) in self._answers:
                    return self._answers[target, wanted]
            methods |= {known for there, known in self._answers if there == target and known is not None}
        if methods:
            allow = ", ".join(sorted(methods))
            return _error(405, f"{targets[0][0]} has answers for {allow}, not for {method}", (("Allow", allow),))
        return _error(404, f"{_text(targets[0])} has no answer", known=self._paths())


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, endpoint: Endpoint, bound: socket.socket) -> None:
        super().__init__(bound.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.endpoint = endpoint
        self.server_activate()

    def get_request(self) -> tuple[socket.socket, Any]:
        # Here and not in the connection's thread, so that none is left out when the loop has ended.
        connection, address = super().get_request()
        self.endpoint._connected(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.endpoint._disconnected(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away in the middle is nothing to print a traceback for.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet; apart, the client's delayed ACK would cost 40 ms.
    wbufsize = -1
    server: _Server

    def _respond(self) -> None:
        answer = self.server.endpoint._take(self.command, self.path, self.headers, self._body())
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status not in _BODILESS:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _respond

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def log_message(self, format: str, *args: Any) -> None:
        """The timeline and `requests` tell what happens."""


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    # The port of a server that has just ended can be had again.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((_ADDRESS, port))
    return bound


def _target(path: str) -> _Target:
    parts = urlsplit(path)
    if not path.startswith("/") or parts.netloc or parts.fragment:
        hint = parts.path if parts.path.startswith("/") else f"/{parts.path}"
        raise ScenarioError(f"{path!r} is not a path of the endpoint; expected one such as {hint!r}")
    query = tuple(sorted(parse_qsl(parts.query, keep_blank_values=True))) if parts.query else None
    return unquote(parts.path), query


def _text(target: _Target) -> str:
    path, query = target
    return f"{path}?{'&'.join(f'{name}={value}' for name, value in query)}" if query else path


def _content(body: Any) -> tuple[bytes, str]:
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode("utf-8"), "text/plain; charset=utf-8"
    try:
        return json.dumps(body).encode("utf-8"), "application/json"
    except (TypeError, ValueError) as error:
        raise ScenarioError(f"the body can't be JSON ({error}); give a text, bytes, or what json.dumps takes") from None


def _check_status(status: int) -> None:
    if not 200 <= status <= 599:
        raise ScenarioError(f"{status} is not the status of an answer; expected 200 to 599")


def _error(status: int, error: str, headers: tuple[tuple[str, str], ...] = (), **more: Any) -> _Answer:
    body = json.dumps({"error": error, **more}).encode("utf-8")
    return _Answer(status, body, (("Content-Type", "application/json"), *headers))


def _methods() -> list[str]:
    return [name.removeprefix("do_") for name in dir(_Handler) if name.startswith("do_")]
