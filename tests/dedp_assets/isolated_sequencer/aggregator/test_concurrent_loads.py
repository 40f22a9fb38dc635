"""Many loads at once are exact at every moment, and nobody waits for them to read."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from tests.dedp_assets.isolated_sequencer.aggregator.loads import LOAD, OTHER, connected, execute, query, some_rows
from tests.dedp_assets.isolated_sequencer.aggregator.stopped_loads import STEPS, WAITING_CHILD, closed_gate
from tests.dedp_assets.isolated_sequencer.fixture_types import AssertExact, RowsOf, WaitUntil, WriteDevices


class Readers:
    """Threads that look at the tables without a pause, until the block ends, and keep what they found wrong."""

    def __init__(self, dsn: str, *checks: Callable[[Connection], str | None]) -> None:
        self._dsn, self._checks = dsn, checks
        self._over = threading.Event()
        self.wrong: list[str] = []
        self.looks = 0

    def _look(self) -> None:
        with connected(self._dsn) as connection:
            # One snapshot for the plan as well: in READ COMMITTED a statement may be planned without a
            # partition whose rows it would see, and is then neither before nor after its load.
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            while not self._over.is_set():
                self.wrong += [found for check in self._checks if (found := check(connection))]
                self.looks += 1

    def __enter__(self) -> "Readers":
        self._threads = [threading.Thread(target=self._look) for _ in range(2)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def wrong_totals(connection: Connection) -> str | None:
    wrong = query(
        connection,
        "SELECT * FROM dedp.devices_aggregates FULL JOIN ("
        "  SELECT type, full_name, version, count(*) AS counted FROM dedp.devices_raw GROUP BY 1, 2, 3"
        ") AS recount USING (type, full_name, version) WHERE all_occurrences IS DISTINCT FROM counted LIMIT 3",
    )
    return f"totals are not the recount: {wrong}" if wrong else None


def partial_load(*counts: int) -> Callable[[Connection], str | None]:
    def check(connection: Connection) -> str | None:
        found = query(connection, "SELECT load_id, count(*) FROM dedp.devices_raw GROUP BY load_id")
        partial = [load for load in found if load[1] not in counts]
        return f"loads are not whole: {partial}" if partial else None

    return check


def open_account(connection: Connection) -> str | None:
    found = query(
        connection,
        "SELECT load_id, rows_loaded, present FROM dedp.devices_loads, LATERAL ("
        "  SELECT count(*) AS present FROM dedp.devices_raw WHERE load_id = devices_loads.load_id"
        ") AS rows WHERE rows_loaded <> present",
    )
    return f"accounts do not close: {found}" if found else None


def load_and_fold(dsn: str, load_id: str, path: Path, start: threading.Barrier | None = None) -> None:
    with connected(dsn) as connection:
        if start:
            start.wait()
        load_file(connection, load_id, path)
        fold(connection, load_id)


def test_eight_loads_of_different_days_at_once_are_exact_at_every_moment(
    dsn: str, database: Connection, devices_csv: WriteDevices, assert_exact: AssertExact
) -> None:
    days = [f"202401{day:02}" for day in range(1, 9)]
    old = [devices_csv([*some_rows(1000, start=100 * n), "bad"], f"old {n}") for n in range(8)]
    new = [devices_csv([*some_rows(1500, start=70 * n), *some_rows(9, start=70 * n)], f"new {n}") for n in range(8)]
    with Readers(dsn, wrong_totals, partial_load(1000, 1500), open_account) as readers:
        for paths in (old, new, new):
            start = threading.Barrier(8)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda day, path, at=start: load_and_fold(dsn, day, path, at), days, paths))
            assert_exact()
    assert readers.looks > 0
    assert readers.wrong == []
    assert query(database, "SELECT count(*), sum(rows_loaded), sum(rows_quarantined) FROM dedp.devices_loads") == [
        (8, 12_000, 72)
    ]
    assert query(database, "TABLE dedp.devices_changes") == []
    assert query(database, "SELECT sum(all_occurrences) FROM dedp.devices_folded") == [(12_000,)]


@pytest.mark.parametrize("reload", [False, True])
def test_eight_loads_of_one_day_at_once_leave_one_whole_load(
    dsn: str,
    database: Connection,
    devices_csv: WriteDevices,
    rows_of: RowsOf,
    assert_exact: AssertExact,
    wait_until: WaitUntil,
    reload: bool,
) -> None:
    if reload:
        load_and_fold(dsn, LOAD, devices_csv(some_rows(900)))
    variants = [some_rows(800 + n, start=50 * n) for n in range(8)]
    paths = [devices_csv(rows, f"variant {n}") for n, rows in enumerate(variants)]
    counts = [900, *map(len, variants)]
    with (
        Readers(dsn, wrong_totals, partial_load(*counts), open_account) as readers,
        ThreadPoolExecutor(8) as pool,
        connected(dsn) as holder,
    ):
        holder.cursor().execute("LOCK TABLE dedp.devices_loads IN EXCLUSIVE MODE")  # which readers don't mind
        loads = [pool.submit(load_and_fold, dsn, LOAD, path) for path in paths]
        # All of them are under way before the first gets its turn.
        wait_until(
            "SELECT count(*) = 8 FROM pg_locks WHERE NOT granted AND relation = 'dedp.devices_loads'::regclass "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        holder.rollback()
        for load in loads:
            load.result()
    assert readers.wrong == []
    assert rows_of(LOAD) in [sorted(rows) for rows in variants]
    assert query(database, "TABLE dedp.devices_changes") == []
    assert_exact()


def test_readers_wait_for_no_load(
    dsn: str, database: Connection, devices_csv: WriteDevices, wait_until: WaitUntil
) -> None:
    load_file(database, LOAD, devices_csv(some_rows(100)))
    execute(database, STEPS["ledger is written, new"].waits)
    loads = [(LOAD, devices_csv(some_rows(50), "again")), (OTHER, devices_csv(some_rows(70), "new"))]
    with ThreadPoolExecutor(2) as pool, closed_gate(dsn) as gate:
        running = [pool.submit(load_file, psycopg2.connect(dsn, application_name="child"), *load) for load in loads]
        wait_until(f"SELECT count(*) = 2 FROM ({WAITING_CHILD}) AS waiting")
        execute(database, "SET lock_timeout = '1ms'")
        assert query(database, "SELECT count(*) FROM dedp.devices_raw") == [(100,)]
        assert query(database, "SELECT sum(all_occurrences) FROM dedp.devices_aggregates") == [(100,)]
        gate.rollback()
        for load in running:
            load.result()
    assert query(database, "SELECT sum(all_occurrences) FROM dedp.devices_aggregates") == [(120,)]
