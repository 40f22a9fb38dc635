"""Requests that are slow, long, or no requests: none is a fault of the server, and none stops others."""

import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
import requests

from tests.sign_in.attacks.server_under_attack import raw
from tests.sign_in.server import PASSWORDS, Server

pytestmark = pytest.mark.slow


def test_clients_that_send_nothing_and_long_forms_stop_nobody(server: Server) -> None:
    host = urlsplit(server.url)
    head = f"POST /sign-in HTTP/1.1\r\nHost: {host.netloc}\r\nContent-Length: 1000000\r\n"
    head += "Content-Type: application/x-www-form-urlencoded\r\n\r\nusername="
    slow = [socket.create_connection((host.hostname, host.port or 0)) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(head.encode())
        assert server.sign_in(server.session(), "vera", PASSWORDS["vera"]).status_code == 303
        assert server.sign_in(server.session(), "vera", "x" * 100_000).status_code == 400
    finally:
        for connection in slow:
            connection.close()


def test_what_is_no_form_is_refused(server: Server) -> None:
    for body, kind in [(b"{}", "application/json"), (b"a", "multipart/form-data; boundary=a"), (b"", "text/plain")]:
        headers = {"Content-Type": kind}
        answer = server.session().post(f"{server.url}/sign-in", data=body, headers=headers, timeout=60)
        assert answer.status_code == 400
    for name in ("\0", "a\0b", "ä" * 500, "'; DROP TABLE dedp_sign_in.users; --"):
        assert server.sign_in(server.session(), name, "\0").status_code in (401, 429)


@pytest.mark.parametrize(
    "line", ["Host: [", "Host: a b", "Host: HOST\nOrigin: http://[", "Host: HOST\nCookie: =;;\x80=\xff"]
)
@pytest.mark.parametrize("start", ["GET /graphql", "GET /", "POST /sign-in", "POST /sign-out", "POST /graphql"])
def test_no_odd_header_is_a_fault_of_the_server(server: Server, start: str, line: str) -> None:
    form = "Content-Type: application/x-www-form-urlencoded\nContent-Length: 1\n"
    answer = raw(server, f"{start} HTTP/1.1\n{line}\nAccept: text/html\nConnection: close\n{form}\na")
    assert re.match(r"HTTP/1\.1 (303|400|401|403) ", answer), answer


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_would_fill_the_memory_is_refused(
    server: Server, viewer: requests.Session, is_chunked: bool
) -> None:
    parts = (b" " * (1 << 20) for _ in range(40))
    headers = {"Content-Type": "application/json"}
    with suppress(requests.ConnectionError):  # it may close the connection while we still send
        data = parts if is_chunked else b"".join(parts)
        answer = viewer.post(f"{server.url}/graphql", data=data, headers=headers, timeout=60)
        assert answer.status_code == 413
    assert viewer.get(f"{server.url}/server_info", timeout=60).status_code == 200
