"""A client that is slow, or sends a head without end, loses its connection; all others keep theirs.

A real server of uvicorn, with an app that answers with the length of the body.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests
import uvicorn

from dedp_assets import local_stack
from dedp_assets.sign_in.slow_clients import TimelyRequests

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    content = str(length).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture(scope="module")
def server() -> Iterator[uvicorn.Server]:
    config = uvicorn.Config(
        app,
        port=local_stack.free_port(),
        http=TimelyRequests,
        lifespan="off",
        log_level="critical",
        timeout_keep_alive=600,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield server
    server.should_exit = True
    thread.join()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, clients have little time."""
    monkeypatch.setattr(TimelyRequests, "head_seconds", 0.1)
    monkeypatch.setattr(TimelyRequests, "request_seconds", 0.1)


def connected(server: uvicorn.Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.config.port), timeout=60)


def is_closed(client: socket.socket) -> bool:
    """Wait for the end of the connection, or for a byte."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"],
    ids=["nothing", "a part of the head", "a part of the body"],
)
def test_who_does_not_send_the_rest_of_a_request_is_disconnected(
    server: uvicorn.Server, hasty: None, sent: bytes
) -> None:
    with connected(server) as client:
        client.sendall(sent)
        assert is_closed(client)


def test_who_sends_a_byte_now_and_then_is_disconnected_too(server: uvicorn.Server, hasty: None) -> None:
    stop = threading.Event()

    def drip(client: socket.socket) -> None:
        with suppress(OSError):
            while not stop.wait(0.02):
                client.sendall(b"a")

    with connected(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX-A: ")
        dripping = threading.Thread(target=drip, args=[client])
        dripping.start()
        assert is_closed(client)
        stop.set()
        dripping.join()


@pytest.mark.parametrize("begun", [b"GET / HT", b"\r\n"], ids=["a part of a head", "an empty line"])
def test_the_next_request_on_a_connection_has_the_same_limit(
    server: uvicorn.Server, request: pytest.FixtureRequest, begun: bytes
) -> None:
    with connected(server) as client:
        client.sendall(GET)
        assert client.recv(1000).endswith(b"\r\n\r\n0")
        request.getfixturevalue("hasty")
        client.sendall(begun)
        assert is_closed(client)


def test_a_head_without_end_is_refused_before_it_fills_the_memory(server: uvicorn.Server) -> None:
    # It may close the connection while we still send.
    with connected(server) as client, suppress(ConnectionResetError, BrokenPipeError):
        client.sendall(b"GET / HTTP/1.1\r\nX-A: " + b"a" * 70_000)
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_who_has_sent_a_whole_request_may_wait_as_long_as_it_likes(server: uvicorn.Server) -> None:
    """For the answer, and with the next request. Several requests in a row are in order, too."""
    with connected(server) as client:
        client.sendall(GET * 3)
        answers = b""
        while answers.count(b"\r\n\r\n0") < 3:
            answers += client.recv(1000)
        here = client.getsockname()
        [connection] = [each for each in server.server_state.connections if getattr(each, "client", None) == here]
        assert isinstance(connection, TimelyRequests)
        assert connection._deadline is None


def test_a_large_body_is_taken(server: uvicorn.Server) -> None:
    answer = requests.post(f"http://127.0.0.1:{server.config.port}/", data=b"x" * (8 << 20), timeout=60)
    assert answer.text == str(8 << 20)
