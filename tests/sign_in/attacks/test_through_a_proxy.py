"""Who comes through a proxy is told from who is on this machine, and has the address that the proxy has seen."""

import pytest

from dedp_assets.sign_in import sessions
from dedp_assets.sign_in.database import connected
from tests.sign_in.attacks.server_under_attack import cookies_of, raw
from tests.sign_in.server import PASSWORDS, Server

pytestmark = pytest.mark.slow


THROUGH_A_PROXY = [
    *({"Host": "evil.example"}, {"X-Forwarded-For": "127.0.0.1"}, {"Via": "1.1 proxy"}),
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://dedp.example"},
]


@pytest.mark.parametrize("header", THROUGH_A_PROXY)
def test_the_password_that_everybody_knows_opens_nothing_from_elsewhere(server: Server, header: dict[str, str]) -> None:
    """Not through a proxy, not by a name of others that leads to 127.0.0.1; the same for sessions and API tokens."""
    server.do("UPDATE dedp_sign_in.users SET is_local = true WHERE name = 'anna'")
    try:
        session = server.signed_in("anna")
        assert session.get(f"{server.url}/server_info", timeout=60).status_code == 200
        assert session.get(f"{server.url}/server_info", headers=header, timeout=60).status_code == 401
        with connected(server.dsn) as cursor:
            bearer = {"Authorization": f"Bearer {sessions.new_api_token(cursor, 'anna', 1)}"}
        for how in ({"headers": {**header, **bearer}}, {"headers": header, "auth": ("anna", PASSWORDS["anna"])}):
            assert server.session().get(f"{server.url}/server_info", timeout=60, **how).status_code == 401
        fresh = server.session()
        fresh.headers.update(header)
        assert server.sign_in(fresh, "anna", PASSWORDS["anna"]).status_code == 401
    finally:
        server.do("UPDATE dedp_sign_in.users SET is_local = false")


def test_a_proxy_that_names_nobody_is_known_by_what_it_speaks(server: Server) -> None:
    """nginx, with no other setting than where to, sends its own Host by HTTP/1.0."""
    server.do("UPDATE dedp_sign_in.users SET is_local = true WHERE name = 'anna'")
    try:
        cookies = cookies_of(server.signed_in("anna"))
        for version, code in (("1.1", "200"), ("1.0", "401")):
            head = f"GET /server_info HTTP/{version}\nHost: HOST\nConnection: close\nCookie: {cookies}\n\n"
            assert f" {code} " in raw(server, head).splitlines()[0]
    finally:
        server.do("UPDATE dedp_sign_in.users SET is_local = false")


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("1.2.3.4, 10.0.0.9", "10.0.0.9"),
        ("1.2.3.4,127.0.0.1", "1.2.3.4"),
        ("<b>'x", "unknown"),
        ("a" * 3000, "unknown"),
    ],
)
def test_the_log_has_the_address_that_the_proxy_has_seen_and_not_what_its_client_writes(
    server: Server, forwarded: str, address: str
) -> None:
    """A proxy adds the address of its client to what this has sent: the last one counts that is not a proxy."""
    headers = {"X-Forwarded-For": forwarded}
    form = {"username": "anna", "password": "wrong"}
    assert server.session().post(f"{server.url}/sign-in", data=form, headers=headers, timeout=60).status_code == 401
    assert [entry.address for entry in server.log_of(user="anna", limit=1)] == [address]
