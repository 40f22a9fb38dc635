"""Messages to an HTTP endpoint. Its URL may hold a token, and therefore appears in no log and no error."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from dedp_assets.errors import SettingError
from dedp_assets.notifications.deadline import TOTAL_SECONDS, Deadline, TimeIsUpError
from dedp_assets.notifications.notification import Notification, NotificationNotSent, NotificationRefused

# The endpoint is busy, restarts, or wants us to slow down.
_MAY_PASS = frozenset({408, 425, 429, *range(500, 600)})
_LOGGERS = ("urllib3.connectionpool", "urllib3.util.retry")


class WebhookNotifier:
    """POSTs each message as JSON, with its key in the header `Idempotency-Key`.

    Args:
        url: the endpoint. It may hold a token.
        timeout_seconds: how long to wait for a connection, and then for the answer, at each attempt.
        attempts: how often to send a message before it counts as not sent.
        backoff_seconds: the pause before the third attempt; each later pause is twice as long.
        total_seconds: how long all attempts together may take.
        payload: what is sent of a message, as values of JSON.

    Raises:
        SettingError: `url` is not the URL of an HTTP endpoint.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 10,
        attempts: int = 4,
        backoff_seconds: float = 0.5,
        total_seconds: float = TOTAL_SECONDS,
        payload: Callable[[Notification], dict[str, Any]] = asdict,
    ) -> None:
        try:
            prepared = requests.Request("POST", url).prepare()
        except (requests.RequestException, ValueError):
            raise SettingError(
                "DEDP_NOTIFY or DEDP_ALERTS begins like a URL and is not one; expected https://host/path"
            ) from None
        self._url, self._timeout, self._total, self._payload = url, timeout_seconds, total_seconds, payload
        self._host, self._secret = urlsplit(prepared.url or "").hostname, prepared.path_url
        self._retries = Retry(
            attempts - 1,
            allowed_methods=["POST"],
            status_forcelist=_MAY_PASS,
            backoff_factor=backoff_seconds,
            raise_on_status=False,
            # The endpoint may name hours, and a tick or a run waits for us.
            respect_retry_after_header=False,
        )

    def send(self, notification: Notification) -> None:
        """POST the message, several times if need be."""
        what = f"the notification {notification.key} to {self._host}"
        # A header takes ASCII only; such a key is left unchanged.
        headers = {"Idempotency-Key": quote(notification.key, safe="!#$&'()*+,/:;=?@[] ", errors="backslashreplace")}
        with Deadline(self._total) as deadline, requests.Session() as session, _without_in_logs(self._secret):
            for scheme in ("http://", "https://"):
                session.mount(scheme, _WatchedAdapter(deadline, self._retries))
            try:
                # The body of the answer is of no interest, and may be endless.
                answer = session.post(
                    self._url,
                    json=self._payload(notification),
                    headers=headers,
                    timeout=self._timeout,
                    allow_redirects=False,
                    stream=True,
                )
            except (requests.RequestException, TimeIsUpError) as error:
                cause = getattr(error.args[0] if error.args else None, "reason", error)
                # Only the kind of the error: its text has the URL. That is why the cause is left out, too.
                why = f"no whole answer within {self._total:g} s" if deadline.is_over else type(cause).__name__
                raise NotificationNotSent(
                    f"{what} was not sent: no answer ({why}). Check the network, and the URL in "
                    "DEDP_NOTIFY or DEDP_ALERTS"
                ) from None
        if answer.status_code in _MAY_PASS:
            raise NotificationNotSent(f"{what} was not sent: the endpoint answered {answer.status_code}")
        if not 200 <= answer.status_code < 300:
            raise NotificationRefused(
                f"{what} was refused with {answer.status_code}; check that DEDP_NOTIFY or DEDP_ALERTS has the URL of "
                "an endpoint that takes JSON, and that its token is still valid"
            )


class _WatchedAdapter(HTTPAdapter):
    """Ends the connections of a message with its time."""

    def __init__(self, deadline: Deadline, retries: Retry) -> None:
        self._deadline = deadline
        super().__init__(max_retries=retries)

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        """Return the pool for a request, also for one by a proxy."""
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        kind: Any = type(pool).ConnectionCls
        watch = self._deadline.watch

        class Watched(kind):  # type: ignore[misc]
            def _new_conn(self) -> socket.socket:
                connection: socket.socket = super()._new_conn()
                watch(connection)
                return connection

        pool.ConnectionCls = Watched
        return pool


@contextmanager
def _without_in_logs(secret: str) -> Iterator[None]:
    """Drop the log records of the HTTP library that have this text, until the block ends."""

    def is_harmless(record: logging.LogRecord) -> bool:
        return secret not in record.getMessage()

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(is_harmless)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_harmless)
