"""Fetches all users of the API, page by page: with time-outs, retries, and a limit on everything that it takes.

A fetch gives all pages or none.
"""

import email.utils
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from ipaddress import ip_address
from typing import Any

import httpx
import tenacity

from dedp_assets.errors import PermanentError, SettingError, TransientError
from dedp_assets.user_intake.answers import Page, WrongAnswer, read_page

PAGE_SIZE = 100

# The API is busy, restarts, or wants us to slow down.
_MAY_PASS = frozenset({408, 425, 429, *range(500, 600)})


class ApiUnavailable(TransientError):
    """The API does not answer, or says that it can't at the moment.

    Attributes:
        retry_after_seconds: for how long it asks us to wait; 0 if it does not say.
    """

    def __init__(self, message: str, retry_after_seconds: float = 0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NoUsers(TransientError):
    """The API has no users at all. It may have been asked while it was being filled."""


class ApiRefused(PermanentError):
    """The API answers, and what it answers will not get better by itself. The message says what to check."""


@dataclass(frozen=True)
class Limits:
    """How much of the API's and of our time and memory a fetch takes.

    Attributes:
        connect_seconds: the longest wait for a connection.
        silence_seconds: the longest wait for the next bytes.
        answer_seconds: the longest time for one answer, however steadily it comes.
        attempts: how often a page is asked for.
        first_pause_seconds: the pause before the second attempt; each later one is twice as long, and up to
            `first_pause_seconds` are added at random, so that many clients do not ask at once.
        longest_pause_seconds: the longest pause. If the API asks for a longer one, the fetch ends.
        body_bytes: the longest body of one answer.
        total_bytes: the longest bodies of all pages together.
        pages: the largest number of pages.
    """

    connect_seconds: float = 5
    silence_seconds: float = 15
    answer_seconds: float = 60
    attempts: int = 5
    first_pause_seconds: float = 1
    longest_pause_seconds: float = 60
    body_bytes: int = 10 * 2**20
    total_bytes: int = 256 * 2**20
    pages: int = 2000


_LIMITS = Limits()
# For the question whether the API is up, which a sensor's tick asks.
_QUICK = Limits(connect_seconds=2, silence_seconds=3, answer_seconds=3)


@dataclass
class Fetched:
    """All pages of the API.

    Attributes:
        pages: the users of each page, without the pages that repeat an earlier one.
        repeated: the numbers of those pages.
        size_bytes: of all bodies.
        attempts_failed: how many attempts failed before the ones that did not.
    """

    pages: list[list[Any]] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    size_bytes: int = 0
    attempts_failed: int = 0


def fetch_users(url: str, limits: Limits = _LIMITS, log: Callable[[str], None] = lambda _: None) -> Fetched:
    """Fetch all pages: `?page=1&results=100`, `?page=2&results=100` and so on, until one is shorter.

    A page with the same users as an earlier one is asked for once more, because a cache may have mixed them up. If it
    is the same again, it adds nothing. Two such pages in a row end the fetch: the API ignores `page`.

    Args:
        url: the endpoint.
        limits: how much time and memory the fetch takes.
        log: gets a line for each attempt that failed, and for each repeated page.

    Raises:
        ApiUnavailable: a page did not come, in all attempts.
        WrongAnswer: an answer has no users in it, in all attempts.
        NoUsers: the first page is empty.
        ApiRefused: the API refuses, or answers more than the limits allow.
    """
    place = _place(url)
    fetched = Fetched()
    seen: set[str] = set()

    def failed(state: tenacity.RetryCallState) -> None:
        fetched.attempts_failed += 1
        assert state.outcome
        assert state.next_action
        log(f"asking again in {state.next_action.sleep:.1f} s: {state.outcome.exception()}")

    def ask(number: int) -> Page:
        return _retrying(limits, failed)(_ask, client, url, number, limits, fetched)

    with _client(url, limits) as client:
        for number in range(1, limits.pages + 1):
            page = ask(number)
            if page.sha256 in seen:
                page = ask(number)
            if page.sha256 in seen:
                log(f"page {number} of {place} has the same users as an earlier page; it adds nothing")
                fetched.repeated.append(number)
                if number - 1 in fetched.repeated:
                    log(f"{place} seems to ignore `page`: the fetch ends with page {number}")
                    return fetched
                continue
            if number == 1 and not page.users:
                raise NoUsers(
                    f"{place} has no users: the first page is empty. What was stored before stays. "
                    "Check that the API has been filled"
                )
            seen.add(page.sha256)
            if page.users:
                fetched.pages.append(page.users)
            if len(page.users) < PAGE_SIZE:
                return fetched
    raise ApiRefused(
        f"{place} has more than {limits.pages:,} pages of {PAGE_SIZE} users; an API that invents users, or never has a "
        "page shorter than asked for, can't be taken in. Check DEDP_USERS_API"
    )


def check_up(url: str) -> None:
    """Ask for one user, and read the status alone.

    Raises:
        ApiUnavailable: it is not up. The message says how it answers.
        ApiRefused: the same, and it will not get better by itself.
    """
    place = _place(url)
    with _client(url, _QUICK) as client, _named_errors(place, _QUICK), _asked(client, url, 1, 1) as answer:
        _check_status(answer, place)
        if "html" in answer.headers.get("Content-Type", "").lower():
            raise ApiUnavailable(f"{place} answers with a page for a browser (HTML)")


def _ask(client: httpx.Client, url: str, number: int, limits: Limits, fetched: Fetched) -> Page:
    what = f"page {number} of {_place(url)}"
    with _named_errors(what, limits), _asked(client, url, number, PAGE_SIZE) as answer:
        _check_status(answer, what)
        body = _body(answer, what, limits)
        content_type = answer.headers.get("Content-Type", "")
    try:
        page = read_page(body, content_type)
    except WrongAnswer as error:
        raise WrongAnswer(f"{what}: {error}") from None
    fetched.size_bytes += len(body)
    if fetched.size_bytes > limits.total_bytes:
        raise ApiRefused(
            f"{what}: the pages up to here have more than {limits.total_bytes:,} bytes together; check DEDP_USERS_API"
        )
    return page


@contextmanager
def _client(url: str, limits: Limits) -> Iterator[httpx.Client]:
    logger = logging.getLogger("httpx")
    logger.addFilter(_is_not_about_urls)
    try:
        with httpx.Client(
            timeout=httpx.Timeout(limits.silence_seconds, connect=limits.connect_seconds),
            follow_redirects=True,
            max_redirects=5,
            # Not compressed: a small body could become one that fills the memory.
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "dedp"},
            trust_env=not _is_on_this_machine(url),  # no proxy for those
        ) as client:
            yield client
    finally:
        logger.removeFilter(_is_not_about_urls)


def _is_not_about_urls(record: logging.LogRecord) -> bool:
    """Whether httpx may log it. Its line for each request has the whole URL, where a key may stand."""
    return record.levelno > logging.INFO


def _is_on_this_machine(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _asked(client: httpx.Client, url: str, number: int, size: int) -> Iterator[httpx.Response]:
    with client.stream("GET", httpx.URL(url).copy_merge_params({"page": number, "results": size})) as answer:
        yield answer


@contextmanager
def _named_errors(what: str, limits: Limits) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        seconds = limits.connect_seconds if isinstance(error, httpx.ConnectTimeout) else limits.silence_seconds
        raise ApiUnavailable(f"{what}: no answer within {seconds:g} s. Is the API overloaded?") from None
    except (httpx.TooManyRedirects, httpx.UnsupportedProtocol):
        raise ApiRefused(
            f"{what}: the API redirects too often, or to what is not HTTP; set DEDP_USERS_API to where it leads"
        ) from None
    except httpx.HTTPError as error:
        raise ApiUnavailable(
            f"{what}: {' '.join(str(error).split()) or type(error).__name__}. Is the API up, and DEDP_USERS_API right?"
        ) from None


def _check_status(answer: httpx.Response, what: str) -> None:
    status = answer.status_code
    if status in _MAY_PASS:
        wait = _retry_after(answer)
        asked = f" and asks to wait {wait:,.0f} s" if wait else ""
        raise ApiUnavailable(f"{what}: the API answers {status}{asked}", wait)
    if not answer.is_success:
        raise ApiRefused(f"{what}: the API answers {status}; check the address and the key in DEDP_USERS_API")


def _retry_after(answer: httpx.Response) -> float:
    """What the header Retry-After says, in s from now: a number, or a date. 0 if there is none."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0, (date - datetime.now(timezone.utc)).total_seconds())


def _body(answer: httpx.Response, what: str, limits: Limits) -> bytes:
    too_long = ApiRefused(
        f"{what}: the body has more than {limits.body_bytes:,} bytes, for {PAGE_SIZE} users; reading it has stopped. "
        "Is DEDP_USERS_API the right address, and does the API know `results`?"
    )
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiRefused(f"{what}: the body is compressed, although we asked for one that is not")
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > limits.body_bytes:
        raise too_long
    give_up = time.monotonic() + limits.answer_seconds
    body = bytearray()
    for chunk in answer.iter_raw():
        body += chunk
        if len(body) > limits.body_bytes:
            raise too_long
        if time.monotonic() > give_up:
            raise ApiUnavailable(f"{what}: the answer is not complete after {limits.answer_seconds:g} s")
    return bytes(body)


def _retrying(limits: Limits, before_sleep: Callable[[tenacity.RetryCallState], None]) -> tenacity.Retrying:
    pause = tenacity.wait_exponential_jitter(
        multiplier=limits.first_pause_seconds, max=limits.longest_pause_seconds, jitter=limits.first_pause_seconds
    )
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=lambda state: (
            state.attempt_number >= limits.attempts or _asked_pause(state) > limits.longest_pause_seconds
        ),
        wait=lambda state: max(pause(state), _asked_pause(state)),
        before_sleep=before_sleep,
        reraise=True,
    )


def _asked_pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after_seconds if isinstance(error, ApiUnavailable) else 0


def _place(url: str) -> str:
    """The address without what may be secret: user, password and query.

    Raises:
        SettingError: it is not an address for httpx, which looks closer than the settings do.
    """
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        raise SettingError("DEDP_USERS_API has a host that can't exist; expected http://host:port/path") from None
    return f"{parts.scheme}://{parts.netloc.decode('ascii')}{parts.path}"
