"""Guessing of passwords: it is slow, tells nothing, keeps nobody out, and does not fill the log."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sign_in.server import PASSWORDS, Server

pytestmark = pytest.mark.slow


def test_an_unknown_user_takes_as_long_as_a_known_one(server: Server) -> None:
    """No timed assertion on one request: the shortest of several are compared, which take turns on a busy machine."""

    def seconds(name: str) -> float:
        server.do("DELETE FROM dedp_sign_in.wrong_passwords")
        started = time.perf_counter()
        assert server.sign_in(server.session(), name, "wrong").status_code == 401
        return time.perf_counter() - started

    seconds("nobody")
    known, unknown = (min(took) for took in zip(*((seconds("anna"), seconds("nobody")) for _ in range(7)), strict=True))
    assert unknown > known / 3
    assert known > unknown / 3


def test_guessing_is_slowed_down_and_keeps_nobody_out(server: Server) -> None:
    known_browser = server.signed_in("anna")
    session = server.signed_in("anna")
    answers = [server.sign_in(server.session(), "anna", f"guess {number}") for number in range(14)]
    assert [answer.status_code for answer in answers[:10]] == [401] * 10
    # On a busy machine, the pause after the last one that was looked at may be over already.
    just_now = "UPDATE dedp_sign_in.wrong_passwords SET at = now()"
    server.do(just_now)
    answer = server.sign_in(server.session(), "anna", "another guess")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 11
    server.do(just_now)
    # The right password from elsewhere waits as well: who guesses must not learn that it is right.
    assert server.sign_in(server.session(), "anna", PASSWORDS["anna"]).status_code == 429
    assert session.get(f"{server.url}/server_info", timeout=60).status_code == 200
    assert server.sign_in(known_browser, "anna", PASSWORDS["anna"]).status_code == 303
    server.do("UPDATE dedp_sign_in.wrong_passwords SET at = now() - interval '11 seconds'")
    assert server.sign_in(server.session(), "anna", PASSWORDS["anna"]).status_code == 303


def test_one_address_guesses_no_faster_with_many_names_at_once(server: Server) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: server.sign_in(server.session(), f"user{n}", "wrong"), range(60)))
    tried = [answer for answer in answers if answer.status_code == 401]
    # Another one every three seconds: a busy machine takes a while for so many.
    assert 30 <= len(tried) <= 31 + (time.monotonic() - began) / 3
    assert {answer.status_code for answer in answers} <= {401, 429}


def test_passwords_by_basic_are_throttled_too(server: Server) -> None:
    codes = [
        server.session().get(f"{server.url}/server_info", auth=("lars", f"guess {number}"), timeout=60).status_code
        for number in range(14)
    ]
    assert codes[:10] == [401] * 10
    assert codes[-1] == 429


def test_the_password_may_be_wrong_in_the_log_but_a_password_never_stands_there(server: Server) -> None:
    server.sign_in(server.session(), "my password instead of the name", "x")
    server.sign_in(server.session(), "anna", "x")
    entries = server.log_of(limit=2)
    assert [(entry.user, entry.outcome) for entry in entries] == [
        ("anna", "wrong password"),
        ("(unknown)", "wrong password"),
    ]
    assert re.fullmatch(r"127\.0\.0\.1", entries[0].address)


def test_however_many_guess_the_log_stays_small_and_says_how_many(server: Server) -> None:

    before = len(server.log_of(limit=10_000))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: server.sign_in(server.session(), "lars", f"guess {n}"), range(160)))
    entries = server.log_of(limit=10_000)
    assert 100 <= len(entries) - before < 140
    assert {(entry.user, entry.outcome) for entry in entries[: len(entries) - before]} == {
        ("lars", "wrong password"),
        ("lars", "too many wrong passwords"),
    }
