"""Nobody keeps the web server busy for long, whatever the query: it is ended, refused, or waits for its turn."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from dedp_assets.sign_in import sessions, users
from dedp_assets.sign_in.database import Database, connected
from dedp_assets.sign_in.gate import Gate
from dedp_assets.sign_in.roles import Role
from tests.sign_in.server import PASSWORDS, Server, serving

RUNS = "runsOrError(limit: 1) { ... on Runs { results { id } } }"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module_dsn: str) -> Iterator[Server]:
    """A statement may take 0.5 s, and therefore a query 2 s."""
    with serving(tmp_path_factory.mktemp("web"), module_dsn, "", "--db-statement-timeout", "500") as server:
        yield server


def ask(server: Server, user: str, query: str) -> requests.Response:
    return server.signed_in(user).post(f"{server.url}/graphql", json={"query": query}, timeout=300)


@pytest.mark.slow
def test_a_query_that_takes_too_long_is_ended_and_says_so(server: Server) -> None:
    answer = ask(server, "lars", "{" + " ".join(f"a{number}: {RUNS}" for number in range(5_000)) + "}")
    assert answer.status_code == 503
    assert answer.json()["errors"] == [
        {"message": "the query took longer than 2 s, and was ended; ask for less at once"}
    ]
    assert ask(server, "lars", "{ version }").status_code == 200


@pytest.mark.slow
def test_a_viewer_sends_no_query_of_many_thousand_words(server: Server) -> None:
    """To read and to check one takes time, before anything of it is executed."""
    words = "{" + "version " * 20_000 + "}"
    answer = ask(server, "vera", words)
    assert answer.status_code == 400
    assert "more than 10000 tokens" in answer.json()["errors"][0]["message"]
    assert "more than 10000 tokens" in asyncio.run(subscribed(server, f"subscription {words}"))["payload"]["message"]
    assert ask(server, "vera", "{ version }").status_code == 200


async def subscribed(server: Server, query: str) -> dict[str, Any]:
    """The answer to a subscription of vera."""
    session = server.signed_in("vera")
    cookie = "; ".join(f"{each.name}={each.value}" for each in session.cookies)
    url = f"ws://{urlsplit(server.url).netloc}/graphql"
    async with connect(
        url, subprotocols=[Subprotocol("graphql-ws")], additional_headers={"Cookie": cookie}
    ) as connection:
        await connection.send(json.dumps({"type": "start", "id": "1", "payload": {"query": query}}))
        return dict(json.loads(await connection.recv()))


@pytest.mark.slow
def test_the_web_server_has_the_limits_for_slow_clients(server: Server) -> None:
    assert server.session().get(server.url, headers={"X-A": "a" * 60_000}, timeout=60).status_code == 401
    with suppress(requests.ConnectionError):  # it may close the connection while we still send
        assert server.session().get(server.url, headers={"X-A": "a" * 400_000}, timeout=60).status_code == 400


def test_of_one_user_no_more_than_half_of_the_threads_are_taken_and_others_go_on(empty_dsn: str) -> None:
    with connected(empty_dsn) as cursor:
        tokens = {}
        for name in ("vera", "lars"):
            users.add(cursor, name, PASSWORDS[name], Role.viewer)
            tokens[name] = sessions.new_api_token(cursor, name, 1)

    async def answered() -> tuple[int, list[str]]:
        under_way: list[str] = []
        is_over = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            under_way.append(scope["dedp.visitor"].user.name)
            await is_over.wait()

        async def nothing(*_: Any) -> Any:
            return None

        gate = Gate(Database(empty_dsn), app)

        async def request(name: str) -> None:
            headers = [(b"authorization", f"Bearer {tokens[name]}".encode())]
            scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("10.0.0.1", 1)}
            await gate(scope, nothing, nothing)

        requests = [asyncio.create_task(request("vera")) for _ in range(30)]
        while under_way.count("vera") < 20:
            await asyncio.sleep(0.01)
        requests.append(asyncio.create_task(request("lars")))
        while "lars" not in under_way:
            await asyncio.sleep(0.01)
        at_once = list(under_way)
        is_over.set()
        await asyncio.gather(*requests)
        return len(at_once), under_way

    at_once, all_of_them = asyncio.run(answered())
    assert at_once == 21
    assert (all_of_them.count("vera"), all_of_them.count("lars")) == (30, 1)
