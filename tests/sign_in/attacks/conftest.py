"""Attempts to get past the sign-in, on the real web server and a real PostgreSQL.

All tests of this folder share one server.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import psycopg2
import pytest
import requests

from tests.sign_in.attacks.server_under_attack import OLD
from tests.sign_in.server import Server, serving


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory, postgres_server: str) -> Iterator[Server]:
    name = f"under_attack_{os.getpid()}"
    with closing(psycopg2.connect(postgres_server)) as connection, connection.cursor() as cursor:
        connection.autocommit = True  # CREATE DATABASE runs in no transaction
        cursor.execute(f"CREATE DATABASE {name}")
        with serving(
            tmp_path_factory.mktemp("web"), urlsplit(postgres_server)._replace(path=f"/{name}").geturl()
        ) as server:
            server.do(
                f"INSERT INTO dedp_sign_in.sessions VALUES ('{OLD}', 'vera', now(), now() - interval '13 hours', 'x')"
            )
            yield server
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def server(running: Server) -> Server:
    """The server, without wrong passwords of other tests."""
    running.do("DELETE FROM dedp_sign_in.wrong_passwords")
    return running


@pytest.fixture
def viewer(server: Server) -> requests.Session:
    return server.signed_in("vera")
