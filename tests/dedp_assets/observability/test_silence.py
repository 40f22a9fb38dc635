"""A PostgreSQL server that says nothing more is one that does not answer, whatever it is asked."""

import socket

import pytest

from dedp_assets.observability.dagster_tables import connected_to_dagster
from dedp_assets.observability.silence import giving_up_on_silence
from dedp_assets.resources.postgres import DatabaseUnavailable, connect

EXPECTED = "PostgreSQL does not answer: it has said nothing for 0.2 s"


def test_a_server_that_takes_a_connection_and_says_nothing_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, giving_up_on_silence(0.2):
        dsn = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/nothing"
        for opened in (connect, connected_to_dagster):
            with pytest.raises(DatabaseUnavailable, match=EXPECTED), opened(dsn):
                pass


def test_a_server_that_becomes_silent_over_a_query_does_not_answer(dsn: str) -> None:
    with giving_up_on_silence(0.2), pytest.raises(DatabaseUnavailable, match=EXPECTED), connect(dsn) as connection:
        connection.cursor().execute("SELECT pg_sleep(60)")
    with connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.3)")  # nobody gives up any more


def test_a_server_that_sends_much_is_heard_to_the_end(dsn: str) -> None:
    with giving_up_on_silence(60), connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT repeat('x', 10000000)")
        assert len(cursor.fetchall()[0][0]) == 10_000_000
