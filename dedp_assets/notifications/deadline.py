"""Bounds the whole time of a delivery.

The time-outs of libraries bound each wait alone. A server that sends a byte now and then would hold up its client for
ever.
"""

import os
import socket
import threading
from contextlib import suppress
from types import TracebackType

# A tick of a sensor, which may send messages, has 60 s. The other targets of the alerts wait, too.
TOTAL_SECONDS = 45.0


class TimeIsUpError(Exception):
    """The time of a delivery is up."""


class Deadline:
    """Shuts down the connection of a delivery when its time is up. Who waits for it then sees that it is at its end.

    Args:
        seconds: how long the delivery may take, from the begin of the `with` block.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> "Deadline":
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        with self._lock:
            self._forget()

    def watch(self, connection: socket.socket) -> None:
        """Shut this connection down when the time is up, in the place of the one before.

        Raises:
            TimeIsUpError: the time is up. The connection is closed.
        """
        with self._lock:
            if self.is_over:
                connection.close()
                raise TimeIsUpError
            self._forget()
            # A descriptor of our own: the library may close its own at any time, and its number may stand for a file.
            self._connection = socket.socket(fileno=os.dup(connection.fileno()))

    def _end(self) -> None:
        with self._lock:
            self.is_over = True
            if self._connection:
                with suppress(OSError):  # the server has hung up
                    self._connection.shutdown(socket.SHUT_RDWR)

    def _forget(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None
