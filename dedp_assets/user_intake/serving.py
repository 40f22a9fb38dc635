"""An API of users on this machine, of the form that the intake expects: for the demo, and to try the intake with."""

import json
import threading
from collections.abc import Iterator, Sequence
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


def listening(users: Sequence[Any], port: int = 0) -> ThreadingHTTPServer:
    """Make a server of these users on a port of 127.0.0.1; 0 takes a free one. It answers once it serves.

    Raises:
        OSError: the port can't be used.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            if address.path != "/api/":
                self.send_error(404)
                return
            query = parse_qs(address.query)
            page, size = (_number(query.get(name), default) for name, default in (("page", 1), ("results", 100)))
            body = json.dumps(
                {
                    "results": list(users[(page - 1) * size : page * size]),
                    "info": {"page": page, "results": size},
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def _number(values: list[str] | None, default: int) -> int:
    return max(1, int(values[0])) if values and values[0].isdigit() else default


def url_of(server: ThreadingHTTPServer) -> str:
    """The endpoint of a server, for DEDP_USERS_API."""
    return f"http://127.0.0.1:{server.server_port}/api/"


@contextmanager
def serving(users: Sequence[Any], port: int = 0) -> Iterator[str]:
    """Serve users until the block ends, and yield the URL. What changes in the list is served from then on."""
    with listening(users, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield url_of(server)
        finally:
            server.shutdown()
            thread.join()
