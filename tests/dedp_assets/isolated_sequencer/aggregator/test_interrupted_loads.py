"""A load that is killed, or loses its server, at any point leaves the earlier one, and can be done again."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from tests.dedp_assets.isolated_sequencer.aggregator.loads import (
    LOAD,
    OTHER,
    connected,
    everything,
    execute,
    locked,
    query,
    some_rows,
)
from tests.dedp_assets.isolated_sequencer.aggregator.stopped_loads import NO_CHILD, STEPS, WAITING_CHILD, closed_gate
from tests.dedp_assets.isolated_sequencer.fixture_types import AssertExact, RowsOf, WaitUntil, WriteDevices


def _load_in_child(dsn: str, path: Path) -> None:
    load_file(psycopg2.connect(dsn, application_name="child"), LOAD, path)


@contextmanager
def loading_process(dsn: str, path: Path) -> Iterator[multiprocessing.process.BaseProcess]:
    """Another process that loads `path` as LOAD, and is dead when the block ends."""
    process = multiprocessing.get_context("fork").Process(target=_load_in_child, args=(dsn, path))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("name", list(STEPS))
def test_a_load_killed_at_any_step_leaves_the_earlier_one_and_can_be_done_again(
    database: Connection,
    dsn: str,
    devices_csv: WriteDevices,
    rows_of: RowsOf,
    assert_exact: AssertExact,
    wait_until: WaitUntil,
    name: str,
) -> None:
    step = STEPS[name]
    load_file(database, OTHER, devices_csv(some_rows(30)))
    if step.reload:
        load_file(database, LOAD, devices_csv([*some_rows(200), "{........"]))
        fold(database, LOAD)
    path = devices_csv([*some_rows(300, start=100), *some_rows(5, start=390), "bad"])
    before = everything(database)

    execute(database, step.waits)
    with closed_gate(dsn), loading_process(dsn, path) as process:
        wait_until(WAITING_CHILD)
        assert everything(database) == before
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    wait_until(NO_CHILD)

    assert (everything(database) == before) is not step.commits
    assert_exact()
    execute(database, "DROP FUNCTION wait_at_gate() CASCADE")
    load_file(database, LOAD, path)
    assert rows_of(LOAD) == sorted(some_rows(300, start=100))
    assert_exact()


@pytest.mark.parametrize("reload", [False, True])
def test_a_load_killed_while_rows_are_copied_leaves_the_earlier_one_and_can_be_done_again(
    database: Connection,
    dsn: str,
    devices_csv: WriteDevices,
    rows_of: RowsOf,
    assert_exact: AssertExact,
    wait_until: WaitUntil,
    tmp_path: Path,
    reload: bool,
) -> None:
    load_file(database, OTHER, devices_csv(some_rows(30)))
    if reload:
        load_file(database, LOAD, devices_csv([*some_rows(200), "{........"]))
        fold(database, LOAD)
    before = everything(database)
    rows = some_rows(40_000)
    path = devices_csv(rows)

    # A pipe in place of the file: half of it comes, and then nothing.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with loading_process(dsn, pipe) as process, open(pipe, "wb") as writer:
        writer.write(path.read_bytes()[:700_000])
        writer.flush()
        copying = "SELECT min(p.pid) FROM pg_stat_progress_copy AS p WHERE tuples_processed > 0"
        wait_until(f"{copying} AND datname = current_database()")
        assert everything(database) == before
        process.kill()
        process.join()
    wait_until(NO_CHILD)

    assert everything(database) == before
    assert_exact()
    load_file(database, LOAD, path)
    assert rows_of(LOAD) == sorted(rows)
    assert_exact()


# --- a server that goes away


def accepts(dsn: str) -> bool:
    try:
        psycopg2.connect(dsn).close()
        return True
    except psycopg2.OperationalError:
        return False


def answers(connection: Connection) -> bool:
    try:
        return query(connection, "SELECT true") == [(True,)]
    except psycopg2.Error:
        return False


def crash_server(dsn: str, connection: Connection, pid: int) -> None:
    """Kill one of the server's processes, at which PostgreSQL ends every connection and recovers; wait for both."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 300
    while answers(connection) or not accepts(dsn):
        assert time.monotonic() < deadline, "the server does not come back"
        time.sleep(0.01)  # between two looks; what is waited for is the condition


@pytest.mark.parametrize("reload", [False, True])
class TestAServerThatGoesAway:
    @pytest.fixture
    def postgres_server(self, server_to_crash: str) -> str:
        return server_to_crash

    @pytest.mark.parametrize("breaks", ["the server crashes", "the connection is cut"])
    def test_fails_a_load_which_can_be_done_again(
        self,
        dsn: str,
        database: Connection,
        devices_csv: WriteDevices,
        assert_exact: AssertExact,
        wait_until: WaitUntil,
        reload: bool,
        breaks: str,
    ) -> None:
        if reload:
            load_file(database, LOAD, devices_csv([*some_rows(200), "{........"]))
            fold(database, LOAD)
        before = everything(database)
        path = devices_csv([*some_rows(300, start=100), "bad"])

        # The lock goes before the pool, on any way out: the load must not be left waiting for it.
        with ThreadPoolExecutor(1) as pool, locked(dsn, "dedp.devices_quarantine"):
            load = pool.submit(load_file, psycopg2.connect(dsn, application_name="child"), LOAD, path)
            pid = wait_until(WAITING_CHILD)
            if breaks == "the server crashes":
                crash_server(dsn, database, pid)
            else:
                execute(database, "SELECT pg_terminate_backend(%s)", pid)
            with pytest.raises((psycopg2.OperationalError, psycopg2.InterfaceError)):
                load.result()

        with connected(dsn) as afresh:
            assert everything(afresh) == before
            assert_exact()
            load_file(afresh, LOAD, path)
            assert query(afresh, "SELECT count(*) FROM dedp.devices_raw WHERE load_id = %s", LOAD) == [(300,)]
            assert_exact()
