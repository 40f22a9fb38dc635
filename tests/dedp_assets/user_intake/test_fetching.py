"""What a fetch does with every kind of answer, against a real HTTP server."""

import json
import logging
import tracemalloc
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from dedp_assets.errors import DedpError, SettingError
from dedp_assets.user_intake.answers import WrongAnswer
from dedp_assets.user_intake.fetching import (
    ApiRefused,
    ApiUnavailable,
    Fetched,
    Limits,
    NoUsers,
    check_up,
    fetch_users,
)
from tests.user_api import PASSWORD, Answer, Api, cut, flood, results, send, user, user_api

QUICK = Limits(
    connect_seconds=1, silence_seconds=0.2, answer_seconds=0.4, first_pause_seconds=0.01, longest_pause_seconds=0.05
)
MiB = 2**20


def fetch(api: Api, limits: Limits = QUICK) -> Fetched:
    return fetch_users(api.url, limits)


def names(fetched: Fetched) -> list[str]:
    return [user["login"]["username"] for page in fetched.pages for user in page]


def some(number: int) -> list[dict[str, object]]:
    return [user(place) for place in range(number)]


@pytest.mark.parametrize(
    ("number", "pages", "requests"), [(1, 1, 1), (99, 1, 1), (100, 1, 2), (101, 2, 2), (200, 2, 3), (250, 3, 3)]
)
def test_pages_are_asked_for_until_one_is_shorter(api: Api, number: int, pages: int, requests: int) -> None:
    api.users = some(number)
    fetched = fetch(api)
    assert names(fetched) == [f"ann{place}" for place in range(number)]
    assert len(fetched.pages) == pages
    assert api.asked == [{"page": str(page), "results": "100"} for page in range(1, requests + 1)]


def test_a_query_in_the_setting_stays(api: Api) -> None:
    api.users = some(1)
    fetch_users(f"{api.url}?key=of+ours&page=9", QUICK)
    assert api.asked == [{"key": "of ours", "page": "1", "results": "100"}]


def test_answers_are_asked_for_as_they_are_and_not_compressed(api: Api) -> None:
    api.users = some(1)
    fetch(api)
    assert api.encodings == ["identity"]


def test_only_five_values_of_a_user_are_kept(api: Api) -> None:
    api.users = some(1)
    assert fetch(api).pages == [
        [
            {
                "name": {"first": "Ann 0", "last": "Lee"},
                "location": {"country": "Norway"},
                "login": {"username": "ann0"},
                "email": "ann0@example.org",
            }
        ]
    ]


def test_an_api_that_is_down_is_asked_several_times_and_named() -> None:
    with user_api() as api:
        url = api.url
    said: list[str] = []
    with pytest.raises(ApiUnavailable, match=rf"page 1 of {url}: .*refused.*DEDP_USERS_API") as raised:
        fetch_users(url.replace("http://", "http://me:secret@") + "?key=secret", QUICK, said.append)
    assert len(said) == QUICK.attempts - 1
    assert raised.value.may_pass
    assert "secret" not in str(raised.value) + str(said)


ONE = json.dumps({"results": [user(0)]}).encode()

MAY_PASS = {
    "slow": (lambda api: api.silent, r"no answer within 0\.2 s"),
    "a byte now and then": (lambda api: api.dripping, r"not complete after 0\.4 s"),
    "429": (lambda api: send(429), "the API answers 429"),
    "500": (lambda api: send(500), "the API answers 500"),
    "503 with a date that is over": (
        lambda api: send(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
        "the API answers 503",
    ),
    "html": (lambda api: send(200, b"<!doctype html>Back soon", Content_Type="text/html"), "a page for a browser"),
    "html that says it is json": (
        lambda api: send(200, b"\n <html>", Content_Type="application/json"),
        "a page for a browser",
    ),
    "wrong json": (lambda api: send(200, b'{"results": [{]}'), r"not JSON, or not all of it \(16 bytes\)"),
    "not text": (lambda api: send(200, b"\xff\xfe\x00{"), "not JSON"),
    "too deep": (lambda api: send(200, b"[" * 200_000), "not JSON"),
    "an empty body": (lambda api: send(200), "the answer is empty"),
    "a list": (lambda api: send(200, b"[]"), "a list without `results`"),
    "no results": (lambda api: send(200, b'{"error": "%s"}' % PASSWORD.encode()), "an object without `results`"),
    "results of another kind": (lambda api: send(200, b'{"results": {"1": 2}}'), "an object as `results`"),
    "half a page": (lambda api: cut(ONE[:50], len(ONE)), "page 1 of"),
    "half a page of unknown length": (lambda api: cut(ONE[:50], None), "not JSON, or not all of it"),
    "nothing at all": (lambda api: lambda request: None, "disconnected"),
}
may_pass = pytest.mark.parametrize(("kind", "message"), MAY_PASS.values(), ids=MAY_PASS)


@may_pass
def test_what_may_pass_is_asked_for_again(api: Api, kind, message: str) -> None:  # type: ignore[no-untyped-def]
    api.users = some(130)
    said: list[str] = []
    api.answers = [kind(api), kind(api)]
    fetched = fetch_users(api.url, QUICK, said.append)
    assert names(fetched) == [f"ann{place}" for place in range(130)]
    assert fetched.attempts_failed == len(said) == 2


@may_pass
def test_what_does_not_pass_fails_the_fetch_with_its_cause(  # type: ignore[no-untyped-def]
    api: Api, kind, message: str
) -> None:
    api.always = kind(api)
    with pytest.raises((ApiUnavailable, WrongAnswer), match=message) as raised:
        fetch(api, replace(QUICK, attempts=2))
    assert len(api.asked) == 2
    assert f"page 1 of {api.url}" in str(raised.value)
    assert PASSWORD not in str(raised.value)


REFUSED = {
    "404": (send(404), "answers 404; check the address"),
    "401": (send(401), "answers 401; check the address and the key"),
    "a redirect to nowhere": (send(302, Location="/api/"), "redirects too often"),
    "a redirect to a file": (send(302, Location="file:///etc/passwd"), "redirects too often, or to what is not HTTP"),
    "a redirect without a place": (send(302), "answers 302"),
    "compressed": (send(200, b"\x1f\x8b", Content_Encoding="gzip"), "compressed"),
}


@pytest.mark.parametrize(("kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_get_better_by_itself_fails_at_once(api: Api, kind: Answer, message: str) -> None:
    api.always = kind
    with pytest.raises(ApiRefused, match=message) as raised:
        fetch(api)
    assert not raised.value.may_pass
    assert len(api.asked) <= 6


def test_a_redirect_is_followed_with_its_query(api: Api) -> None:
    api.users = some(3)
    api.answers = [send(307, Location=f"{api.url}?page=1&results=100")]
    assert len(names(fetch(api))) == 3


def test_retry_after_is_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    api.users = some(1)
    in_a_minute = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=59), usegmt=True)
    api.answers = [send(429, Retry_After="7"), send(503, Retry_After=in_a_minute), send(503, Retry_After="soon")]
    fetch_users(api.url)
    assert slept[0] == 7
    assert 50 < slept[1] <= 60
    assert 4 <= slept[2] <= 5


def test_pauses_grow_and_are_not_the_same_for_everybody(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    api.always = send(500)
    with pytest.raises(ApiUnavailable):
        fetch_users(api.url)
    assert [int(pause) for pause in slept] == [1, 2, 4, 8]
    assert len({pause % 1 for pause in slept}) == 4


def test_an_api_that_asks_for_an_hour_holds_no_slot_for_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    api.always = send(429, Retry_After="3600")
    with pytest.raises(ApiUnavailable, match=r"answers 429 and asks to wait 3,600 s"):
        fetch_users(api.url)
    assert len(api.asked) == 1
    assert slept == []


@pytest.mark.parametrize("says_so", [True, False])
def test_a_body_of_100_mib_is_not_read(api: Api, says_so: bool) -> None:
    body = flood(100 * MiB, says_so=says_so)
    api.always = body
    tracemalloc.start()
    try:
        with pytest.raises(ApiRefused, match="more than 10,485,760 bytes"):
            fetch_users(api.url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * MiB
    assert body.sent < 50 * MiB  # type: ignore[attr-defined]
    assert len(api.asked) == 1


def test_all_pages_together_have_a_limit(api: Api) -> None:
    api.users = some(500)
    with pytest.raises(ApiRefused, match="more than 100,000 bytes together"):
        fetch(api, replace(QUICK, total_bytes=100_000))


def test_an_api_that_invents_users_without_end_is_given_up(api: Api) -> None:
    api.users = some(2000)
    with pytest.raises(ApiRefused, match="more than 5 pages"):
        fetch(api, replace(QUICK, pages=5))
    assert len(api.asked) == 5


def test_an_api_without_users_fails_the_fetch(api: Api) -> None:
    with pytest.raises(NoUsers, match="the first page is empty") as raised:
        fetch(api)
    assert raised.value.may_pass


def test_a_page_that_comes_for_another_one_is_asked_for_again(api: Api) -> None:
    api.users = some(250)
    api.answers = [api.page, results(*some(100)), api.page, api.page]
    fetched = fetch(api)
    assert names(fetched) == [f"ann{place}" for place in range(250)]
    assert fetched.repeated == []


def test_a_page_that_stays_the_same_as_an_earlier_one_adds_nothing_and_the_next_one_does(api: Api) -> None:
    api.users = some(100) + some(100) + some(130)[100:]
    said: list[str] = []
    fetched = fetch_users(api.url, QUICK, said.append)
    assert names(fetched) == [f"ann{place}" for place in range(130)]
    assert fetched.repeated == [2]
    assert "page 2 of" in said[0]


def test_an_api_that_ignores_the_page_is_fetched_once(api: Api) -> None:
    api.always = results(*some(100))
    fetched = fetch(api)
    assert names(fetched) == [f"ann{place}" for place in range(100)]
    assert len(api.asked) == 5


def test_pages_of_users_that_differ_only_in_what_we_do_not_keep_are_no_repetition(api: Api) -> None:
    api.users = [user(0, nat=place) for place in range(350)]
    fetched = fetch(api)
    assert [len(page) for page in fetched.pages] == [100, 100, 100, 50]


def test_a_page_that_fails_for_good_fails_the_whole_fetch(api: Api) -> None:
    api.users = some(250)
    api.answers = [api.page, *[send(500)] * QUICK.attempts]
    with pytest.raises(ApiUnavailable, match="page 2 of"):
        fetch(api)


def test_a_host_that_cannot_exist_is_a_wrong_setting() -> None:
    with pytest.raises(SettingError, match="DEDP_USERS_API has a host that can't exist"):
        fetch_users("http://ä..b/?key=secret")


def test_the_address_with_its_key_is_not_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.users = some(1)
    with caplog.at_level(logging.INFO):
        fetch_users(f"{api.url}?key=secret", QUICK)
        check_up(f"{api.url}?key=secret")
    assert "secret" not in caplog.text


def test_the_question_whether_the_api_is_up_is_one_small_request(api: Api) -> None:
    api.users = some(250)
    check_up(api.url)
    assert api.asked == [{"page": "1", "results": "1"}]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (send(503, Retry_After="3600"), "answers 503 and asks to wait 3,600 s"),
        (send(404), "answers 404"),
        (send(200, b"<html>", Content_Type="text/html; charset=utf-8"), "a page for a browser"),
        (lambda request: None, "disconnected"),
    ],
)
def test_an_api_that_is_not_up_says_why_and_is_asked_once(api: Api, kind: Answer, message: str) -> None:
    api.always = kind
    with pytest.raises(DedpError, match=message):
        check_up(api.url)
    assert len(api.asked) == 1
