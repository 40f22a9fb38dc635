"""Sessions and cookies: nobody makes, keeps or reads those of others."""

import pytest
import requests

from dedp_assets.sign_in.database import connected
from tests.sign_in.attacks.server_under_attack import OLD, cookies_of
from tests.sign_in.server import PASSWORDS, Server

pytestmark = pytest.mark.slow


def test_a_sign_in_makes_a_new_session_and_ends_the_one_that_was_there(server: Server) -> None:
    """Whoever has put a cookie into somebody's browser does not know the session that this browser gets."""
    attacker = server.signed_in("vera")
    (planted,) = [cookie for cookie in attacker.cookies if "session" in cookie.name]
    victim = server.session()
    for value in ("chosen by the attacker", str(planted.value)):
        victim.cookies.set(planted.name, value, domain="127.0.0.1", path="/")
        assert server.sign_in(victim, "anna", PASSWORDS["anna"]).status_code == 303
        (own,) = [cookie for cookie in victim.cookies if "session" in cookie.name]
        assert own.value != value
    assert attacker.get(f"{server.url}/server_info", timeout=60).status_code == 401
    assert victim.get(f"{server.url}/server_info", timeout=60).status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(server: Server) -> None:
    answer = server.sign_in(server.session(), "vera", PASSWORDS["vera"])
    cookies = answer.headers["set-cookie"]
    assert cookies.count("HttpOnly") == 2
    assert "SameSite=lax" in cookies
    assert "Secure" not in cookies
    behind_tls = server.session()
    behind_tls.headers["X-Forwarded-Proto"] = "https"
    cookies = server.sign_in(behind_tls, "vera", PASSWORDS["vera"]).headers["set-cookie"]
    assert cookies.count("Secure;") + cookies.count("Secure,") + cookies.endswith("Secure") >= 1
    assert "__Host-dedp_session=" in cookies
    assert "__Secure-dedp_browser=" in cookies


def test_the_database_has_no_token_and_no_password(server: Server) -> None:
    session = server.signed_in("vera")
    shown = [cookie.value for cookie in session.cookies] + list(PASSWORDS.values())
    tables = ("users", "sessions", "api_tokens", "known_browsers", "audit", "wrong_passwords")
    with connected(server.dsn) as cursor:
        for table in tables:
            cursor.execute(f"SELECT * FROM dedp_sign_in.{table}")
            text = repr([[bytes(v) if isinstance(v, memoryview) else v for v in row] for row in cursor.fetchall()])
            assert not [each for each in shown if each and each in text], table
    assert not [each for each in shown if each and each in server.log.read_text()]


def test_sign_out_ends_the_session_and_not_just_the_cookie(server: Server) -> None:
    session = server.signed_in("vera")
    stolen = cookies_of(session)
    assert session.get(f"{server.url}/sign-out", timeout=60, allow_redirects=False).status_code in (200, 404, 303)
    assert session.get(f"{server.url}/server_info", timeout=60).status_code == 200  # a link signs nobody out
    session.post(f"{server.url}/sign-out", timeout=60, allow_redirects=False)
    for headers in ({}, {"Cookie": stolen}):
        assert requests.get(f"{server.url}/server_info", headers=headers, timeout=60).status_code == 401


@pytest.mark.parametrize(
    "aged",
    [
        "UPDATE dedp_sign_in.sessions SET used_at = now() - interval '12 hours 1 second'",
        "UPDATE dedp_sign_in.sessions SET created_at = now() - interval '7 days 1 second'",
    ],
)
def test_a_session_ends_by_itself(server: Server, aged: str) -> None:
    session = server.signed_in("vera")
    server.do(aged)
    assert session.get(f"{server.url}/server_info", timeout=60).status_code == 401


def test_what_is_over_goes_by_itself_also_if_nobody_signs_in(server: Server) -> None:
    assert server.sign_in(server.session(), "vera", "wrong").status_code == 401
    with connected(server.dsn) as cursor:
        cursor.execute("SELECT FROM dedp_sign_in.sessions WHERE token_sha256 = %s", [OLD])
        assert cursor.rowcount == 0


def test_a_used_session_goes_on(server: Server) -> None:
    session = server.signed_in("vera")
    for _ in range(2):
        server.do("UPDATE dedp_sign_in.sessions SET used_at = now() - interval '11 hours'")
        assert session.get(f"{server.url}/server_info", timeout=60).status_code == 200
