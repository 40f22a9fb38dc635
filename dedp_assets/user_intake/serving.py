"""An API of users on this machine, of the form that the intake expects: for the demo, and to try the intake with."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_FIRST = ("Ann", "Björn", "Chloé", "Dmitri", "Emre", "Fatma", "Goran", "Hồng", "Ingrid", "José", "Kenji", "Łucja")
_LAST = ("Abe", "Brown", "Çelik", "Dubois", "Eriksen", "Fischer", "García", "Horvat", "Ito", "Jansen", "Kowalska")
_COUNTRIES = ("Brazil", "Denmark", "Finland", "France", "Germany", "Japan", "Norway", "Spain", "Turkey")


def made_users(number: int, bad: int = 0) -> list[dict[str, Any]]:
    """Make users, always the same ones, in the form of the API.

    Args:
        number: how many.
        bad: how many of them have no email; the last ones.
    """
    return [_made_user(place, has_email=place < number - bad) for place in range(number)]


def _made_user(place: int, *, has_email: bool) -> dict[str, Any]:
    username = f"user{place + 1:04}"
    user: dict[str, Any] = {
        "name": {"title": "", "first": _FIRST[place % len(_FIRST)], "last": _LAST[place % len(_LAST)]},
        "location": {"country": _COUNTRIES[place % len(_COUNTRIES)]},
        # As the public API does, and as the intake must never keep it.
        "login": {"username": username, "password": f"secret of {username}"},
    }
    return user | ({"email": f"{username}@Example.org"} if has_email else {})


class UsersServer(ThreadingHTTPServer):
    """A server of users on 127.0.0.1. What changes in the list, or in `is_up`, counts from the next request on.

    Attributes:
        users: what it serves, in the form of the API.
        is_up: whether it serves them. If not, it answers 503.
        asked: how many requests there were.
    """

    daemon_threads = True

    def __init__(self, users: Sequence[Any], port: int = 0) -> None:
        """Listen on a port; 0 takes a free one. It answers once it serves. Raises OSError."""
        super().__init__(("127.0.0.1", port), _Handler)
        self.users, self.is_up, self.asked = users, True, 0

    @property
    def url(self) -> str:
        """The endpoint, for DEDP_USERS_API."""
        return f"http://127.0.0.1:{self.server_port}/api/"

    def page(self, number: int, size: int) -> dict[str, Any]:
        """The answer for a page."""
        users = self.users[(number - 1) * size : number * size]
        return {"results": list(users), "info": {"page": number, "results": size}}


class _Handler(BaseHTTPRequestHandler):
    server: UsersServer

    def do_GET(self) -> None:
        self.server.asked += 1
        address = urlsplit(self.path)
        if not self.server.is_up or address.path != "/api/":
            self.send_error(404 if self.server.is_up else 503)
            return
        query = parse_qs(address.query)
        body = json.dumps(self.server.page(_number(query, "page", 1), _number(query, "results", 100))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def _number(query: Mapping[str, Sequence[str]], name: str, default: int) -> int:
    value = query.get(name, [""])[0]
    return max(1, int(value)) if value.isdecimal() else default


@contextmanager
def serving(users: Sequence[Any], port: int = 0) -> Iterator[UsersServer]:
    """Serve users until the block ends."""
    with UsersServer(users, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
