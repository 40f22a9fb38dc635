"""A PostgreSQL server of the scenario crashes, comes back, and leaves nothing behind."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg2
import pytest
import sqlalchemy
from dagster_scenario import Scenario, ScenarioError
from dagster_scenario.world.postgres import PostgresServer


def told(scenario: Scenario) -> list[str]:
    return [event.text for event in scenario.timeline.events if event.kind == "world"]


def folder_of(server: PostgresServer) -> Path:
    """The folder of its own, with the data in it."""
    return Path(server.query("SHOW data_directory")[0][0]).parent


def left_of(folder: Path) -> list[str]:
    """What runs with the folder in its command or as its place, and the folder itself."""
    found = [str(folder)] if folder.exists() else []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in word for word in [*process.cmdline(), process.cwd()]):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found


@pytest.fixture(scope="module")
def running() -> Iterator[PostgresServer]:
    server = PostgresServer(lambda text: None, "PostgreSQL")
    folder = folder_of(server)
    assert left_of(folder)
    yield server
    server.close()
    assert not left_of(folder)


@pytest.fixture
def server(running: PostgresServer) -> Iterator[PostgresServer]:
    """A server that is up, without tables; one for the module, as making its data is what takes long."""
    yield running
    with suppress(ScenarioError):
        running.start()
    running.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def test_what_is_executed_is_there_for_queries_and_for_other_clients(server: PostgresServer):
    server.execute("CREATE TABLE orders (id int, paid_at timestamptz, note text)")
    server.execute("INSERT INTO orders VALUES (%s, %s, %s), (2, NULL, '100 %%')", 1, datetime(2024, 1, 5, 8), "it's")  # noqa: DTZ001
    paid = datetime(2024, 1, 5, 8, tzinfo=timezone.utc)
    rows = [(1, paid, "it's"), (2, None, "100 %")]
    assert server.query("SELECT * FROM orders ORDER BY id") == rows
    assert server.query("SELECT note FROM orders WHERE note LIKE '100 %'") == [("100 %",)]
    assert server.query("SELECT id FROM orders WHERE id > %s", 5) == []
    engine = sqlalchemy.create_engine(server.dsn)
    with engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(sqlalchemy.text("SELECT * FROM orders ORDER BY id"))] == rows
    engine.dispose()


def test_a_crash_loses_connections_and_what_was_not_committed_and_nothing_else(server: PostgresServer):
    dsn = server.dsn
    server.execute("CREATE TABLE orders (id int)")
    connection = psycopg2.connect(dsn)
    with connection.cursor() as cursor:
        for number in (1, 2):
            cursor.execute("INSERT INTO orders VALUES (%s)", (number,))
            if number == 1:
                connection.commit()
        server.stop()
        with pytest.raises(psycopg2.DatabaseError):
            cursor.execute("SELECT 1")
    connection.close()
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(dsn)
    for use in (server.query, server.execute):
        with pytest.raises(ScenarioError, match=r"PostgreSQL is down; start\(\) brings it back"):
            use("SELECT 1")
    server.start()
    assert server.dsn == dsn
    assert server.query("SELECT id FROM orders") == [(1,)]
    # As after a crash, and not as after an orderly end.
    log = (Path(parse_qs(urlsplit(dsn).query)["host"][0]) / "log").read_text()
    assert "was not properly shut down; automatic recovery in progress" in log


def test_wrong_use_says_what_to_do(server: PostgresServer):
    with pytest.raises(ScenarioError, match=r"PostgreSQL is up; stop\(\) comes first"):
        server.start()
    with pytest.raises(ScenarioError, match=r"returns no rows; use execute\(\.\.\.\) for it: CREATE TABLE orders"):
        server.query("CREATE TABLE orders (id int)")
    server.stop()
    with pytest.raises(ScenarioError, match=r"PostgreSQL is down already; start\(\) brings it back"):
        server.stop()


def test_a_server_that_somebody_killed_can_be_stopped_and_started(server: PostgresServer):
    server.execute("CREATE TABLE orders AS SELECT 1 AS id")
    postmaster = psutil.Process(int((folder_of(server) / "data" / "postmaster.pid").read_text().splitlines()[0]))
    postmaster.kill()
    psutil.wait_procs([postmaster], timeout=10)
    server.stop()
    server.start()
    assert server.query("SELECT id FROM orders") == [(1,)]


def test_under_simulated_time_a_server_crashes_comes_back_and_ends_with_the_scenario(
    scenario: Scenario, server: PostgresServer
):
    orders = scenario.postgres("the orders' database")
    assert orders.dsn != server.dsn
    orders.execute("CREATE TABLE orders\n    (id int)")
    orders.execute("INSERT INTO orders SELECT generate_series(1, %s)", 3)
    orders.query("SELECT 1")
    orders.stop()
    assert server.query("SELECT to_regclass('orders')") == [(None,)]
    orders.start()
    assert told(scenario) == [
        "the orders' database: CREATE TABLE orders (id int) (CREATE TABLE)",
        "the orders' database: INSERT INTO orders SELECT generate_series(1, %s) (INSERT 0 3)",
        "the orders' database crashes",
        "the orders' database is back",
    ]
    folder = folder_of(orders)
    scenario.close()
    assert not left_of(folder)
    for use in (orders.start, orders.stop, lambda: orders.query("SELECT 1")):
        with pytest.raises(ScenarioError, match="has ended with its scenario"):
            use()


_PROCESS = """
import sys
from dagster_scenario import Scenario
with Scenario(folder=sys.argv[1]) as scenario:
    print(scenario.postgres().query("SHOW data_directory")[0][0], flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_leaves_no_server_behind(tmp_path):
    killed = subprocess.Popen(
        [sys.executable, "-c", _PROCESS, str(tmp_path / "scenario")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout
    folder = Path(killed.stdout.readline().strip()).parent
    assert folder.name.startswith("dagster-scenario-postgres-")
    assert left_of(folder)
    killed.kill()
    killed.communicate()
    deadline = time.monotonic() + 20
    while (left := left_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)  # between two looks; what is waited for is the condition
    assert not left
