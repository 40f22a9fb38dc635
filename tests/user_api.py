"""A real HTTP server with users, page by page, which also answers whatever a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PASSWORD = "hunter2, the password"

# What a request gets instead of a page.
Answer = Callable[[BaseHTTPRequestHandler], None]


def user(number: int, **changed: Any) -> dict[str, Any]:
    """A user in the form of the public API, with a password, and with more than we need."""
    return {
        "gender": "female",
        "name": {"title": "Ms", "first": f"Ann {number}", "last": "Lee"},
        "location": {"city": "Oslo", "country": "Norway"},
        "login": {"uuid": str(number), "username": f"ann{number}", "password": PASSWORD, "salt": PASSWORD},
        "email": f"ann{number}@example.org",
        **changed,
    }


class Api:
    """The server.

    Attributes:
        url: the endpoint.
        users: what it has.
        answers: what the next requests get instead of a page, in their order.
        always: what every request gets for which there is none.
        asked: the query of each request so far.
        encodings: which encodings each request accepts.
    """

    def __init__(self) -> None:
        self.url = ""
        self.users: list[Any] = []
        self.answers: list[Answer] = []
        self.always: Answer = self.page
        self.asked: list[dict[str, str]] = []
        self.encodings: list[str | None] = []
        self.closing = threading.Event()

    def page(self, request: BaseHTTPRequestHandler) -> None:
        """Answer with the page that is asked for."""
        asked = self.asked[-1]
        page, size = int(asked["page"]), int(asked["results"])
        send_json(request, {"results": self.users[(page - 1) * size : page * size], "info": {"page": page}})

    def silent(self, request: BaseHTTPRequestHandler) -> None:
        """Never answer."""
        self.closing.wait(60)

    def dripping(self, request: BaseHTTPRequestHandler) -> None:
        """Send one byte after the other, for ever."""
        _head(request, 200, {"Content-Type": "application/json"})
        while not self.closing.wait(0.02):
            request.wfile.write(b" ")


def send(status: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with this. `Content_Type` stands for Content-Type."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        _head(request, status, {"Content-Length": str(len(body)), **named})
        request.wfile.write(body)

    return answer


def cut(body: bytes, length: int | None) -> Answer:
    """Promise a longer body, or none in particular, and close the connection after this part of it."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        _head(request, 200, {"Content-Length": str(length)} if length else {})
        request.wfile.write(body)

    return answer


def flood(size: int, *, says_so: bool) -> Answer:
    """Send that many bytes of one list. How many were really sent, the answer has as `sent`."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        answer.sent = 0  # type: ignore[attr-defined]
        _head(request, 200, {"Content-Length": str(size)} if says_so else {})
        chunk = b" " * 2**16
        while answer.sent < size:  # type: ignore[attr-defined]
            request.wfile.write(chunk)
            answer.sent += len(chunk)  # type: ignore[attr-defined]

    return answer


def send_json(request: BaseHTTPRequestHandler, body: Any) -> None:
    """Answer with JSON."""
    send(200, json.dumps(body).encode(), Content_Type="application/json")(request)


def results(*users: Any) -> Answer:
    """Answer with these users, whatever page is asked for."""
    return lambda request: send_json(request, {"results": list(users)})


def _head(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what many tests are about."""


@contextmanager
def user_api(port: int = 0) -> Iterator[Api]:
    """Run the server until the block ends."""
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api.asked.append(dict(parse_qsl(urlsplit(self.path).query)))
            api.encodings.append(self.headers.get("Accept-Encoding"))
            answer = api.answers.pop(0) if api.answers else api.always
            with suppress(ConnectionError):
                answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            """Tests look at `asked`."""

    with _Server(("127.0.0.1", port), Handler) as server:
        api.url = f"http://127.0.0.1:{server.server_port}/api/"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield api
        finally:
            api.closing.set()
            server.shutdown()
            thread.join()
