"""Attempts of a page of another site, with the browser of our user."""

import pytest

from tests.sign_in.server import PASSWORDS, Server

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/sign-in/password", "/graphql", "/report_asset_check/tide"])
@pytest.mark.parametrize(
    "headers",
    [
        *({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}),
        *({"Origin": "http://evil.example"}, {"Origin": "http://127.0.0.1:1"}),
    ],
)
def test_a_page_of_another_site_makes_a_browser_do_nothing(server: Server, path: str, headers: dict[str, str]) -> None:
    session = server.signed_in("anna")
    form = {"username": "anna", "password": PASSWORDS["anna"], "current": PASSWORDS["anna"], "new": "a new password"}
    answer = session.post(f"{server.url}{path}", data=form, headers=headers, allow_redirects=False, timeout=60)
    assert answer.status_code == 403
    assert session.get(f"{server.url}/server_info", timeout=60).status_code == 200


def test_a_sign_in_leads_to_no_other_server(server: Server) -> None:
    for wanted in ("//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "\r\nX: y"):
        answer = server.sign_in(server.session(), "vera", PASSWORDS["vera"], next=wanted)
        assert answer.headers["location"] == "/"
    answer = server.sign_in(server.session(), "vera", PASSWORDS["vera"], next="/runs?a=b")
    assert answer.headers["location"] == "/runs?a=b"


def test_the_page_shows_what_was_sent_as_text(server: Server) -> None:
    evil = '"><script>alert(1)</script>'
    page = server.session().get(f"{server.url}/sign-in", params={"next": f"/{evil}", "error": evil}, timeout=60)
    failed = server.sign_in(server.session(), evil, "wrong", next=f"/{evil}")
    for answer in (page, failed):
        assert "<script>" not in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
