"""An endpoint answers, fails and goes away over real connections, as it is told."""

import http.client
import json
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from urllib.parse import urlsplit

import pytest
import requests
from dagster_scenario import Scenario, ScenarioError
from dagster_scenario.world.http import Endpoint


@pytest.fixture
def endpoint(scenario: Scenario) -> Endpoint:
    return scenario.http()


def told(scenario: Scenario) -> list[str]:
    return [event.text for event in scenario.timeline.events if event.kind == "world"]


def port(endpoint: Endpoint) -> int:
    return int(endpoint.url.rpartition(":")[2])


def statuses(endpoint: Endpoint, path: str, times: int) -> list[int]:
    return [requests.get(f"{endpoint.url}{path}", timeout=60).status_code for _ in range(times)]


@pytest.mark.parametrize(
    ("body", "sent", "kind"),
    [
        ({"rows": [1, None]}, b'{"rows": [1, null]}', "application/json"),
        ([], b"[]", "application/json"),
        (None, b"null", "application/json"),
        ("naïve", "naïve".encode(), "text/plain; charset=utf-8"),
        (b"\x00\xff", b"\x00\xff", "application/octet-stream"),
    ],
)
def test_a_body_arrives_with_its_type(endpoint: Endpoint, body: object, sent: bytes, kind: str) -> None:
    endpoint.answer("/orders", body)
    response = requests.get(f"{endpoint.url}/orders", timeout=60)
    assert (response.status_code, response.content, response.headers["Content-Type"]) == (200, sent, kind)


def test_status_and_headers_are_what_was_asked_for(endpoint: Endpoint) -> None:
    endpoint.answer("/orders", "a,b", status=206, headers={"content-type": "text/csv", "ETag": '"1"'})
    response = requests.get(f"{endpoint.url}/orders", timeout=60)
    assert response.status_code == 206
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Content-Type"] == "text/csv"
    endpoint.answer("/orders", status=204)
    assert requests.get(f"{endpoint.url}/orders", timeout=60).status_code == 204


def test_a_later_answer_replaces_an_earlier_one(endpoint: Endpoint) -> None:
    endpoint.answer("/orders", "old")
    endpoint.answer("/orders", "new")
    assert requests.get(f"{endpoint.url}/orders", timeout=60).text == "new"


def test_methods_have_answers_of_their_own(endpoint: Endpoint) -> None:
    endpoint.answer("/orders", "list")
    endpoint.answer("/orders", "made", status=201, method="post")
    assert requests.post(f"{endpoint.url}/orders", timeout=60).status_code == 201
    assert requests.get(f"{endpoint.url}/orders", timeout=60).text == "list"
    assert requests.delete(f"{endpoint.url}/orders", timeout=60).text == "list"


def test_a_head_has_the_length_and_not_the_body_of_a_get(endpoint: Endpoint) -> None:
    endpoint.answer("/orders", "list")
    with socket.create_connection(("127.0.0.1", port(endpoint)), timeout=60) as connection:
        connection.sendall(b"HEAD /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = b"".join(iter(lambda: connection.recv(1000), b""))
    assert b"\r\nContent-Length: 4\r\n" in head
    assert head.endswith(b"\r\n\r\n")


def test_a_method_without_an_answer_is_refused_with_those_that_have_one(endpoint: Endpoint) -> None:
    endpoint.answer("/orders", method="POST")
    response = requests.get(f"{endpoint.url}/orders", timeout=60)
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"
    assert "POST" in response.json()["error"]


def test_a_query_has_an_answer_of_its_own_in_any_order(endpoint: Endpoint) -> None:
    endpoint.answer("/orders", "any")
    endpoint.answer("/orders?day=2024-01-31&page=2", "second page")
    assert requests.get(f"{endpoint.url}/orders?page=2&day=2024-01-31", timeout=60).text == "second page"
    assert requests.get(f"{endpoint.url}/orders?page=3&day=2024-01-31", timeout=60).text == "any"
    assert requests.get(f"{endpoint.url}/orders", timeout=60).text == "any"


def test_an_unknown_path_is_not_found_and_the_answer_names_the_known_ones(endpoint: Endpoint) -> None:
    endpoint.answer("/orders")
    endpoint.answer("/customers?day=1")
    response = requests.get(f"{endpoint.url}/order", timeout=60)
    assert response.status_code == 404
    assert response.json() == {"error": "/order has no answer", "known": ["/customers?day=1", "/orders"]}


def test_requests_are_kept_with_the_simulated_time(scenario: Scenario, endpoint: Endpoint) -> None:
    endpoint.answer("/orders")
    requests.put(f"{endpoint.url}/orders?day=1&empty=", json={"id": 7}, headers={"X-Token": "t"}, timeout=60)
    scenario.clock.move(scenario.clock.parse("2024-01-05 08:00"))
    requests.get(f"{endpoint.url}/nothing", timeout=60)
    first, second = endpoint.requests
    assert (first.method, first.path, first.query, first.status) == ("PUT", "/orders", {"day": "1", "empty": ""}, 200)
    assert first.json() == {"id": 7}
    assert first.headers["x-token"] == "t"
    assert first.at == datetime(2024, 1, 1, tzinfo=timezone.utc)
    assert (second.path, second.status) == ("/nothing", 404)
    assert second.at == datetime(2024, 1, 5, 8, tzinfo=timezone.utc)


def test_a_body_in_chunks_is_kept_whole_and_the_connection_goes_on(endpoint: Endpoint) -> None:
    endpoint.answer("/orders", "ok")
    with requests.Session() as session:
        session.post(f"{endpoint.url}/orders", data=iter([b"one,", b"two"]), timeout=60)
        assert session.get(f"{endpoint.url}/orders", timeout=60).text == "ok"
    assert [request.body for request in endpoint.requests] == [b"one,two", b""]


def test_the_date_of_an_answer_is_the_simulated_one(endpoint: Endpoint) -> None:
    endpoint.answer("/orders")
    response = requests.get(f"{endpoint.url}/orders", timeout=60)
    assert response.headers["Date"] == "Mon, 01 Jan 2024 00:00:00 GMT"


def test_the_next_requests_fail_and_then_it_answers_again(endpoint: Endpoint) -> None:
    endpoint.answer("/orders")
    endpoint.answer("/customers")
    endpoint.fail("/orders", times=2)
    assert statuses(endpoint, "/customers", 1) == [200]
    assert statuses(endpoint, "/orders", 3) == [503, 503, 200]
    assert [request.status for request in endpoint.requests] == [200, 503, 503, 200]


def test_a_path_fails_until_it_recovers(endpoint: Endpoint) -> None:
    endpoint.answer("/orders")
    endpoint.fail("/orders", status=429)
    assert statuses(endpoint, "/orders", 3) == [429, 429, 429]
    endpoint.recover("/orders")
    assert statuses(endpoint, "/orders", 1) == [200]


def test_a_path_without_a_query_fails_with_every_query_and_one_with_it_alone(endpoint: Endpoint) -> None:
    endpoint.answer("/orders?day=1")
    endpoint.answer("/orders?day=2")
    endpoint.fail("/orders", times=1)
    assert statuses(endpoint, "/orders?day=1", 2) == [503, 200]
    endpoint.fail("/orders?day=2")
    assert statuses(endpoint, "/orders?day=1", 1) == [200]
    assert statuses(endpoint, "/orders?day=2", 1) == [503]


def test_a_connection_is_dropped_without_an_answer(endpoint: Endpoint) -> None:
    endpoint.answer("/orders")
    endpoint.fail("/orders", status=None, times=1)
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=60)
    connection.request("GET", "/orders")
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    connection.close()
    assert endpoint.requests[0].status is None
    assert statuses(endpoint, "/orders", 1) == [200]


def test_a_stopped_endpoint_refuses_and_comes_back_at_the_same_url(endpoint: Endpoint) -> None:
    endpoint.answer("/orders")
    endpoint.fail("/orders", times=1)
    url = endpoint.url
    for _ in range(3):
        endpoint.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port(endpoint)), timeout=60)
        endpoint.start()
    assert endpoint.url == url
    assert statuses(endpoint, "/orders", 2) == [503, 200]


def test_nobody_else_gets_the_port_of_a_stopped_endpoint(endpoint: Endpoint) -> None:
    endpoint.stop()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port(endpoint)))


def test_open_connections_end_when_it_stops(endpoint: Endpoint) -> None:
    endpoint.answer("/orders", "ok")
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=60)
    for _ in range(2):
        connection.request("GET", "/orders")
        assert connection.getresponse().read() == b"ok"
    endpoint.stop()
    assert connection.sock.recv(1) == b""
    connection.close()


def test_requests_at_the_same_time_are_all_answered_and_fail_as_often_as_told(
    endpoint: Endpoint, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    endpoint.answer("/orders")
    endpoint.fail("/orders", times=10)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: statuses(endpoint, "/orders", 1)[0], range(60)))
    assert (found.count(503), found.count(200)) == (10, 50)
    assert len(endpoint.requests) == 60


def test_the_timeline_tells_what_was_done_to_it_and_not_where_it_is(scenario: Scenario) -> None:
    billing = scenario.http("billing")
    billing.answer("/orders", [1])
    billing.answer("/orders", "", status=202, method="POST")
    billing.fail("/orders", times=1)
    billing.fail("/orders", status=429, times=2)
    billing.fail("/orders", status=None)
    billing.recover("/orders")
    billing.stop()
    billing.start()
    assert told(scenario) == [
        "billing has an answer for /orders: 200 (3 bytes)",
        "billing has an answer for POST /orders: 202 (0 bytes)",
        "billing answers 503 to the next request for /orders",
        "billing answers 429 to the next 2 requests for /orders",
        "billing drops the connection of every request for /orders",
        "billing has recovered at /orders",
        "billing goes down",
        "billing is back",
    ]


def test_wrong_use_says_what_to_do(endpoint: Endpoint) -> None:
    endpoint.answer("/orders")
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: endpoint.answer("orders"), "expected one such as '/orders'"),
        (lambda: endpoint.answer("http://example.com/orders"), "expected one such as '/orders'"),
        (lambda: endpoint.answer("/orders", {1, 2}), "give a text, bytes, or what json.dumps takes"),
        (lambda: endpoint.answer("/orders", status=99), "expected 200 to 599"),
        (lambda: endpoint.answer("/orders", "text", status=204), "leave the body out"),
        (lambda: endpoint.answer("/orders", method="FETCH"), "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        (lambda: endpoint.fail("/order"), r"there are: /orders\. answer\('/order', \.\.\.\) comes first"),
        (lambda: endpoint.fail("/orders", times=0), r"expected 1 or more, or None for all requests until recover"),
        (lambda: endpoint.fail("/orders", status=0), "expected 200 to 599"),
        (lambda: endpoint.recover("/orders"), "comes first"),
        (lambda: endpoint.start(), r"stop\(\) comes first"),
    ]
    for wrong, message in refused:
        with pytest.raises(ScenarioError, match=message):
            wrong()
    endpoint.stop()
    with pytest.raises(ScenarioError, match=r"down already; start\(\) brings it back"):
        endpoint.stop()


def test_it_ends_with_the_scenario() -> None:
    with Scenario() as scenario:
        up, down = scenario.http("the one that is up"), scenario.http("the one that is down")
        up.answer("/orders", json.dumps([]))
        with requests.Session() as session:  # whose connection is still open when the scenario ends
            session.get(f"{up.url}/orders", timeout=60)
            down.stop()
            scenario.close()
    for endpoint in (up, down):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port(endpoint)), timeout=60)
        with pytest.raises(ScenarioError, match="has ended with its scenario"):
            endpoint.start()
    with socket.socket() as free:  # the port of one that nobody ever connected to, so that nothing lingers there
        free.bind(("127.0.0.1", port(down)))
    assert not [thread.name for thread in threading.enumerate() if "the one that is" in thread.name]
