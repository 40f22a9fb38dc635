"""Closes the connection of a client that takes too long to send a request, or whose head has no end.

Otherwise anybody, without a sign-in, could hold connections and memory of the web server as long as they like. uvicorn
has a limit for connections that are idle between requests, and none for those in the middle of one.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class TimelyRequests(HttpToolsProtocol):
    """HTTP/1.1 of uvicorn, with limits for what a client sends.

    Attributes:
        head_seconds: Within this time after the connection, or the first byte of a later request, the head is there.
        request_seconds: Within this time after its head, the body is there. One of 32 MiB has to come at 0.5 MiB/s.
        longest_head: In bytes. That of a browser with all our cookies has 2,000.
    """

    head_seconds = 10.0
    request_seconds = 60.0
    longest_head = 64 * 1024

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes: int | None = 0  # None: the head is there

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._expect_more_within(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None:  # the next request begins
            self._expect_more_within(self.head_seconds)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if (self._head_bytes or 0) > self.longest_head and not self.transport.is_closing():
            self._expect_nothing()
            self.send_400_response(f"The head of a request may have {self.longest_head:,} bytes.")

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        self._expect_more_within(self.request_seconds)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._expect_nothing()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._expect_nothing()
        super().handle_websocket_upgrade()

    def _expect_more_within(self, seconds: float) -> None:
        self._expect_nothing()
        # Not `close`, which would first wait until the client has read what was sent.
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
