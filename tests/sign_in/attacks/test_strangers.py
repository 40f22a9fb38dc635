"""Attempts of somebody who has not signed in."""

import pytest

from tests.sign_in.attacks.server_under_attack import raw
from tests.sign_in.server import Server

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/runs", "/graphql", "/graphql?query={version}", "/server_info", "/dagit_info", "/favicon.png"),
        *("/logs/a/compute_logs/b.out", "/logs/../../etc/passwd", "/download_debug/x", "/notebook", "/dagit/notebook"),
        *("/report_asset_materialization/tide", "/_next/static/x.js", "/manifest.json", "//graphql", "/./graphql"),
        *("/healthz/", "/healthz/../graphql", "/sign-in/../graphql", "/sign-in/password", "/sign-in/x", "/Sign-In"),
        *("/healthz%2f..%2fgraphql", "/sign-in;/graphql", "/sign-out", "/%67raphql?query={version}"),
    ],
)
def test_nothing_is_there_for_somebody_unknown(server: Server, path: str) -> None:
    answer = raw(server, f"GET {path} HTTP/1.1\nHost: HOST\nConnection: close\n\n")
    assert answer.startswith("HTTP/1.1 401"), answer
    assert "who are you?" in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/graphql", "/report_asset_materialization/tide", "/sign-in/password"])
def test_no_method_is_there_for_somebody_unknown(server: Server, method: str, path: str) -> None:
    assert server.session().request(method, f"{server.url}{path}", timeout=60).status_code == 401


def test_the_health_of_the_server_is_no_secret_and_a_browser_is_led_to_the_page(server: Server) -> None:
    assert server.session().get(f"{server.url}/healthz", timeout=60).text == "ok\n"
    wanted = "/runs?view=queue&a=https://evil.example"
    browser = {"Accept": "text/html"}
    led = server.session().get(server.url + wanted, headers=browser, allow_redirects=False, timeout=60)
    assert led.status_code == 303
    assert led.headers["location"].startswith("/sign-in?next=/runs%3F")
    page = server.session().get(server.url + led.headers["location"], timeout=60)
    assert 'name="next" value="/runs?view=queue&amp;a=https://evil.example"' in page.text


def test_no_token_is_taken_that_the_server_has_not_made(server: Server) -> None:
    name = next(cookie.name for cookie in server.signed_in("vera").cookies if "session" in cookie.name)
    for value in ("", "x", "' OR '1'='1", "\\x00", "null", "../../etc", "A" * 5000):
        answer = server.session().get(f"{server.url}/server_info", headers={"Cookie": f"{name}={value}"}, timeout=60)
        assert answer.status_code == 401
    for value in ("Bearer x", "Bearer ", "Basic x", "Basic ", "Basic Og==", "Negotiate x", "x" * 5000):
        answer = server.session().get(f"{server.url}/server_info", headers={"Authorization": value}, timeout=60)
        assert answer.status_code == 401
