"""What the tests of this folder send to the server, and ask of it."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.sign_in.server import Server

# What identifies a session that was over before the server began.
OLD = r"\x00"

LIMIT = 'setConcurrencyLimit(concurrencyKey: "tides", limit: 7)'


def raw(server: Server, request: str) -> str:
    """The answer to a request as it is: a client would put it in order."""
    host = urlsplit(server.url)
    with socket.create_connection((host.hostname, host.port or 0), timeout=60) as connection:
        connection.sendall(request.replace("\n", "\r\n").replace("HOST", host.netloc).encode("latin-1"))
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def pools(server: Server) -> set[str]:
    return set(server.instance.event_log_storage.get_concurrency_keys())


def cookies_of(session: requests.Session) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in session.cookies)


def by_post(session: requests.Session, url: str, query: str, variables: Any) -> requests.Response:
    return session.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=60)


def by_get(session: requests.Session, url: str, query: str, variables: Any) -> requests.Response:
    return session.get(f"{url}/graphql", params={"query": query, "variables": json.dumps(variables)}, timeout=60)
