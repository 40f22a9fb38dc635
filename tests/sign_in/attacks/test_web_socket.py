"""Attempts over the web socket, and what ends one that is open."""

import asyncio
import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from dedp_assets.sign_in import sessions, users
from dedp_assets.sign_in.database import connected
from dedp_assets.sign_in.roles import Role
from tests.sign_in.attacks.server_under_attack import LIMIT, cookies_of, pools
from tests.sign_in.server import LAUNCH, PASSWORDS, RUN, Server

pytestmark = pytest.mark.slow


def subscribe(server: Server, cookies: str, query: str, headers: dict[str, str] | None = None) -> Any:
    """The first answer to a GraphQL operation over the web socket; None if it was closed."""

    async def first() -> Any:
        address = server.url.replace("http", "ws") + "/graphql"
        sent = {"Cookie": cookies, **(headers or {})}
        async with connect(address, subprotocols=[Subprotocol("graphql-ws")], additional_headers=sent) as connection:
            await connection.send(json.dumps({"type": "connection_init"}))
            start = {"type": "start", "id": "1", "payload": {"query": query, "variables": {"run": RUN}}}
            await connection.send(json.dumps(start))
            async for message in connection:
                answer = json.loads(message)
                if answer["type"] not in ("connection_ack", "ka"):
                    return answer
        return None

    return asyncio.run(first())


# Whoever is let in gets an answer at once.
WRONG = "subscription { nothing }"


def test_the_web_socket_is_for_known_users_of_our_own_pages_and_launches_nothing(server: Server) -> None:
    launcher = cookies_of(server.signed_in("lars"))
    for cookies, headers in [("", {}), ("dedp_session=x", {}), (launcher, {"Origin": "http://evil.example"})]:
        with pytest.raises(InvalidStatus):
            subscribe(server, cookies, WRONG, headers)
    assert subscribe(server, launcher, WRONG, {"Origin": server.url})["type"] == "error"
    before = server.runs()
    for who in (launcher, cookies_of(server.signed_in("anna"))):
        for query in (LAUNCH, "mutation { " + LIMIT + " }", "query { version } mutation M { " + LIMIT + " }"):
            assert subscribe(server, who, query, {"Origin": server.url})["type"] == "error"
    assert server.runs() == before
    assert "tides" not in pools(server)


ENDINGS = {
    "sign-out": "DELETE FROM dedp_sign_in.sessions WHERE user_name = %s",
    "role": "UPDATE dedp_sign_in.users SET role = 'launcher' WHERE name = %s",
    "removal": "DELETE FROM dedp_sign_in.users WHERE name = %s",
    "idle": "UPDATE dedp_sign_in.sessions SET used_at = now() - interval '13 hours' WHERE user_name = %s",
}


def test_a_connection_ends_with_its_session_its_token_and_its_role(server: Server) -> None:
    """The log of a run goes on: what is sent after the end never arrives. All at once, because each waits for 5 s."""
    run_id = server.ask(server.signed_in("lars"), LAUNCH, run=RUN)["data"]["launchRun"]["run"]["runId"]
    query = f'subscription {{ pipelineRunLogs(runId: "{run_id}") {{ __typename }} }}'
    shown: dict[str, dict[str, str]] = {}
    for name in (*ENDINGS, "password", "token", "other"):
        with connected(server.dsn) as cursor:
            users.add(cursor, f"u-{name}", "a good password", Role.viewer)
            token = sessions.new_api_token(cursor, f"u-{name}", 1)
        shown[name] = {"Cookie": cookies_of(server.signed_in(f"u-{name}", "a good password"))}
        if name == "token":
            shown[name] = {"Authorization": f"Bearer {token}"}

    def end_all() -> None:
        for name, statement in ENDINGS.items():
            server.do(statement, f"u-{name}")
        with connected(server.dsn) as cursor:
            users.set_password(cursor, "u-password", "another password")
            sessions.end_api_tokens(cursor, "u-token")

    async def until_closed(name: str, is_ended: asyncio.Event, has_begun: asyncio.Semaphore) -> int | None:
        address = server.url.replace("http", "ws") + "/graphql"
        protocol = Subprotocol("graphql-ws")
        async with connect(address, subprotocols=[protocol], additional_headers=shown[name]) as connection:
            with suppress(ConnectionClosed):
                for number in range(80):  # each is answered, until the session is looked at again
                    start = {"type": "start", "id": str(number), "payload": {"query": query}}
                    await connection.send(json.dumps(start))
                    await connection.recv()
                    if number == 0:
                        has_begun.release()
                        await is_ended.wait()
                    await asyncio.sleep(0.1)
        return connection.close_code

    async def all_closed() -> dict[str, int | None]:
        is_ended, has_begun = asyncio.Event(), asyncio.Semaphore(0)
        waiting = {name: asyncio.create_task(until_closed(name, is_ended, has_begun)) for name in shown}
        for _ in shown:
            await has_begun.acquire()
        await asyncio.to_thread(end_all)
        is_ended.set()
        return {name: await task for name, task in waiting.items()}

    codes = asyncio.run(all_closed())
    assert codes == {**dict.fromkeys(shown, 4401), "other": 1000}


def test_over_tls_the_web_socket_knows_the_session_at_any_port(server: Server) -> None:
    tls = {"X-Forwarded-Proto": "https", "Host": "dedp.example:8443"}
    browser = server.session()
    browser.headers.update(tls)
    server.sign_in(browser, "vera", PASSWORDS["vera"])
    cookies = cookies_of(browser)

    async def is_taken() -> bool:
        here = urlsplit(server.url)
        async with connect(
            "ws://dedp.example:8443/graphql",
            host=here.hostname,
            port=here.port,
            subprotocols=[Subprotocol("graphql-ws")],
            additional_headers={
                "X-Forwarded-Proto": "https",
                "Cookie": cookies,
                "Origin": "https://dedp.example:8443",
            },
        ) as connection:
            await connection.send(json.dumps({"type": "connection_init"}))
            return bool(json.loads(await connection.recv())["type"] == "connection_ack")

    assert asyncio.run(is_taken())
