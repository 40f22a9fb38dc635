"""Does not wait for hours for a PostgreSQL server that takes a connection and then says nothing more.

So does one whose machine is frozen, whose disk hangs, or that is behind a network that drops its packets. The client
library would wait as long as the kernel: for a new connection without end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from select import select

import psycopg2
from psycopg2 import extensions


@contextmanager
def giving_up_on_silence(seconds: float = 65.0) -> Iterator[None]:
    """While the block runs, each wait of this process for PostgreSQL ends after some time with an OperationalError.

    Args:
        seconds: How long the server may say nothing, while it connects or works on a query. A query longer than that
            fails, too: those of `connected_to_dagster` end after 60 s.
    """

    def wait(connection: extensions.connection) -> None:
        while (state := connection.poll()) != extensions.POLL_OK:
            reading, writing = ([], [connection]) if state == extensions.POLL_WRITE else ([connection], [])
            if not any(select(reading, writing, [], seconds)):
                raise psycopg2.OperationalError(f"it has said nothing for {seconds:g} s")

    extensions.set_wait_callback(wait)
    try:
        yield
    finally:
        extensions.set_wait_callback(None)
