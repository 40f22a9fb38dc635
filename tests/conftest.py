"""What every test may use: one PostgreSQL and one Spark server for all workers; a database and a home for each test."""

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import psutil
import psycopg2
import pytest
from alembic.script import ScriptDirectory
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer.aggregator.tables import ensure_tables
from dedp_assets.resources import embedded_postgres, embedded_spark
from tests.shared_servers import one_for_all_workers, session_folder

pytest_plugins = ["tests.s3_server"]

# gRPC's fork handlers crash some of the processes that a test under root starts as another user: embedded PostgreSQL.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

_TEMPLATE = "dedp_template"
_numbers = count(1)

# The files that take longest, with and without the slow tests, the longest first. They run in this order, before all
# others. Otherwise one of two workers might get one of them at the end, and the other one would have nothing to do.
_LONGEST = (
    *("test_releases.py", "test_deployment.py", "test_late_data_killed.py", "test_demo.py", "test_sequencer.py"),
    *("test_late_data_system.py", "test_wheel.py", "test_backup.py", "test_supervision.py", "test_spark.py"),
    *("test_running.py", "test_purge.py", "test_late_data.py", "test_sequencer_stories.py", "test_counting.py"),
    *("test_relations_from_outside.py", "test_uploads_stress.py", "test_shared_spark.py", "test_what_it_takes.py"),
    *("test_client_uploads_origins.py", "test_earlier_backup.py", "test_devices_pipeline.py", "test_automation.py"),
    *("test_cli.py", "test_loading.py", "test_definitions.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish() -> None:
    # All that is imported by now stays. To look through it again and again takes a tenth of the time.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def migrations_read_once() -> Iterator[None]:
    """Dagster reads its 90 migrations for each new instance, which is half of the time that an instance takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", staticmethod(cache(ScriptDirectory.from_config)))
        yield


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own DEDP_HOME. The test does not see the settings and the state of the user."""
    for name in os.environ:
        if name.startswith("DEDP_") or name == "DAGSTER_HOME":
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DEDP_HOME", str(home))
    monkeypatch.setenv("DEDP_SETTLE_SECONDS", "0.2")
    return home


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of the test's own, which keeps everything in memory."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def left_running() -> Callable[[Path], list[str]]:
    """Finds the processes, of any user, whose environment, command or folder names a DEDP_HOME.

    One that was killed is not among them, also if a busy machine takes a while to end it.
    """

    def find(home: Path) -> list[str]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if _was_killed(process.pid):
                    continue
                words = [*process.environ().values(), *process.cmdline(), process.cwd()]
                if process.pid != os.getpid() and any(str(home) in word for word in words):
                    found.append(f"{process.pid} {' '.join(process.cmdline())}")
        return found

    return find


def _was_killed(pid: int) -> bool:
    """Whether SIGKILL has been sent to a process, which then executes nothing any more. Only Linux tells."""
    if sys.platform != "linux":
        return False
    status = Path(f"/proc/{pid}/status").read_text()
    (pending,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigPnd:"))
    return bool(pending >> (signal.SIGKILL - 1) & 1)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server for the whole session. It has a template database with the project's tables."""
    with one_for_all_workers(session_folder(tmp_path_factory), "postgres", _postgres_with_template) as url:
        yield url


@pytest.fixture(scope="module")
def server_to_crash() -> Iterator[str]:
    """The URL of a server for one file. In its class, a test that crashes it has it as its `postgres_server`."""
    with _postgres_with_template() as url:
        yield url


@contextmanager
def _postgres_with_template() -> Iterator[str]:
    # Not below pytest's own temporary folder. If we are root, the server runs as another user, who may not enter it.
    with (
        tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder,
        embedded_postgres.server_lease(Path(folder)) as url,
    ):
        # Faster. Data survives if a server dies, and no test turns off the machine.
        _administer(url, "ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET full_page_writes = off")
        # A test that waits for a lock fails, instead of waiting for ever.
        _administer(url, "ALTER SYSTEM SET lock_timeout = '60s'")
        _administer(url, "SELECT pg_reload_conf()", f"CREATE DATABASE {_TEMPLATE}")
        connection = psycopg2.connect(_database(url, _TEMPLATE))
        ensure_tables(connection)
        connection.close()
        yield url


@pytest.fixture(scope="session")
def spark_server(s3_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Spark Connect server for the whole session.

    It was started by somebody with access to the object store of the tests, as its Python workers need it.
    """
    folder = session_folder(tmp_path_factory)

    @contextmanager
    def start() -> Iterator[str]:
        with ExitStack() as running:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in s3_environment.items():
                    patch.setenv(name, value)
                url = running.enter_context(embedded_spark.server(folder / "spark"))
            yield url

    with one_for_all_workers(folder, "spark", start) as url:
        yield url
        # Stop the session while its server still exists. The import takes a second, and few tests need it.
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql.connect.session import SparkSession

        with suppress(PySparkRuntimeError):
            SparkSession.active().stop()


@pytest.fixture
def spark_remote(spark_server: str, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The session's Spark server as this test's DEDP_SPARK_REMOTE."""
    monkeypatch.setenv("DEDP_SPARK_REMOTE", spark_server)
    return spark_server


@pytest.fixture
def empty_dsn(postgres_server: str) -> Iterator[str]:
    """The URL of a database of the test's own, without tables."""
    yield from _own_database(postgres_server, "template1")


@pytest.fixture(scope="module")
def module_dsn(postgres_server: str) -> Iterator[str]:
    """The URL of a database for all tests of a file, without tables."""
    yield from _own_database(postgres_server, "template1")


@pytest.fixture
def dsn(postgres_server: str) -> Iterator[str]:
    """The URL of a database of the test's own, with the project's tables."""
    yield from _own_database(postgres_server, _TEMPLATE)


@pytest.fixture
def database(dsn: str) -> Iterator[Connection]:
    """A connection to the test's own database."""
    connection = psycopg2.connect(dsn)
    yield connection
    connection.close()


def _own_database(server: str, template: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    _administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _database(server, name)
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(url: str, *statements: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True  # CREATE DATABASE runs in no transaction
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def _database(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()
