"""The totals are what counting the rows gives, at every moment and whatever was done to the rows."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer.aggregator.folding import FoldReport, LoadNotFound, fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from tests.dedp_assets.isolated_sequencer.aggregator.loads import execute, query
from tests.dedp_assets.isolated_sequencer.fixture_types import AssertExact, WaitUntil, WriteDevices

LOAD, OTHER, THIRD = LOADS = ("20240101", "20240102", "20240103")


def rows(*numbers: int) -> list[str]:
    return [f"phone;device {n};1" for n in numbers]


def totals(connection: Connection) -> dict[str, int]:
    statement = "SELECT concat_ws(';', type, full_name, version), all_occurrences FROM dedp.devices_aggregates"
    return {device: count for device, count in query(connection, statement)}


def folded_totals(connection: Connection) -> dict[str, int]:
    """What has been folded, by itself: all there is to the totals once everything is folded."""
    assert query(connection, "TABLE dedp.devices_changes") == []
    statement = "SELECT concat_ws(';', type, full_name, version), all_occurrences FROM dedp.devices_folded"
    return {row: count for row, count in query(connection, statement) if count}


@pytest.fixture
def three_loads(database: Connection, devices_csv: WriteDevices) -> dict[str, int]:
    """Three loads, the first of them folded, and their totals."""
    load_file(database, LOAD, devices_csv(rows(1, 2, 3)))
    fold(database, LOAD)
    load_file(database, OTHER, devices_csv(rows(2, 3, 4)))
    load_file(database, THIRD, devices_csv(rows(3)))
    return dict(zip(rows(1, 2, 3, 4), (1, 2, 3, 1), strict=True))


def test_totals_are_there_before_anything_is_folded(
    database: Connection, devices_csv: WriteDevices, assert_exact: AssertExact
) -> None:
    load_file(database, LOAD, devices_csv([*rows(1, 2), *rows(1)]))
    load_file(database, OTHER, devices_csv(rows(2)))
    assert totals(database) == dict(zip(rows(1, 2), (1, 2), strict=True))
    assert_exact()


def test_folding_changes_no_total(database: Connection, three_loads: dict[str, int], assert_exact: AssertExact) -> None:
    for load in LOADS:
        assert totals(database) == three_loads
        fold(database, load)
    assert totals(database) == folded_totals(database) == three_loads
    assert_exact()


def test_folding_twice_changes_nothing(
    database: Connection, devices_csv: WriteDevices, three_loads: dict[str, int], assert_exact: AssertExact
) -> None:
    sha256 = "f" * 64
    execute(database, "UPDATE dedp.devices_loads SET sha256 = %s", sha256)
    assert fold(database, OTHER) == FoldReport(OTHER, sha256, 3)
    written = query(database, "SELECT xmin::text, * FROM dedp.devices_folded ORDER BY full_name")
    assert fold(database, OTHER) == FoldReport(OTHER, sha256, 0)
    assert query(database, "SELECT xmin::text, * FROM dedp.devices_folded ORDER BY full_name") == written
    assert_exact()


def test_folding_a_reload_touches_the_devices_that_it_changed_only(
    database: Connection, devices_csv: WriteDevices, three_loads: dict[str, int], assert_exact: AssertExact
) -> None:
    load_file(database, LOAD, devices_csv(rows(2, 3, 5)))
    assert fold(database, LOAD).devices_changed == 2
    assert totals(database) == dict(zip(rows(2, 3, 4, 5), (2, 3, 1, 1), strict=True))
    assert_exact()


def test_a_reload_that_is_taken_back_before_folding_changes_no_device(
    database: Connection, devices_csv: WriteDevices, three_loads: dict[str, int]
) -> None:
    load_file(database, LOAD, devices_csv(rows(2, 3, 5)))
    load_file(database, LOAD, devices_csv(rows(1, 2, 3)))
    assert fold(database, LOAD).devices_changed == 0
    assert totals(database) == three_loads


def test_a_device_that_has_left_every_load_has_no_total(
    database: Connection, devices_csv: WriteDevices, assert_exact: AssertExact
) -> None:
    load_file(database, LOAD, devices_csv(rows(1)))
    fold(database, LOAD)
    load_file(database, LOAD, devices_csv(rows(2)))
    assert totals(database) == dict.fromkeys(rows(2), 1)
    fold(database, LOAD)
    assert totals(database) == dict.fromkeys(rows(2), 1)
    assert_exact()


def test_folding_a_load_that_never_was_says_so(database: Connection) -> None:
    with pytest.raises(LoadNotFound, match=r"no load 20240101; materialize dedp/devices_raw"):
        fold(database, LOAD)


BY_HAND = {
    "DELETE one row": "DELETE FROM dedp.devices_raw WHERE load_id = '20240101' AND full_name = 'device 2'",
    "DELETE a load": "DELETE FROM dedp.devices_raw WHERE load_id = '20240101'",
    "DELETE a device from every load": "DELETE FROM dedp.devices_raw WHERE full_name = 'device 3'",
    "DELETE everything": "DELETE FROM dedp.devices_raw",
    "DELETE nothing": "DELETE FROM dedp.devices_raw WHERE full_name = 'none'",
    "UPDATE a device": "UPDATE dedp.devices_raw SET full_name = full_name || '+'",
    "UPDATE a device to the same": "UPDATE dedp.devices_raw SET full_name = full_name",
    "UPDATE to another load": "UPDATE dedp.devices_raw SET load_id = '20240102' WHERE full_name = 'device 1'",
    "UPDATE to a folded load": "UPDATE dedp.devices_raw SET load_id = '20240101' WHERE full_name = 'device 4'",
    "INSERT": "INSERT INTO dedp.devices_raw SELECT 'tv', 'new', '1', load_id FROM dedp.devices_loads",
    "INSERT ON CONFLICT": (
        "INSERT INTO dedp.devices_raw SELECT 'phone', 'device 1', '1', load_id FROM dedp.devices_loads "
        "ON CONFLICT DO NOTHING"
    ),
    "upsert": (
        "INSERT INTO dedp.devices_raw SELECT 'phone', 'device 1', '1', load_id FROM dedp.devices_loads "
        "ON CONFLICT (type, full_name, version, load_id) DO UPDATE SET version = '2'"
    ),
    "MERGE": (
        "MERGE INTO dedp.devices_raw AS raw USING (VALUES ('device 1'), ('device 3'), ('device 9')) AS v(name) "
        "ON raw.full_name = v.name AND raw.load_id = '20240101' "
        "WHEN MATCHED AND name = 'device 1' THEN DELETE WHEN MATCHED THEN UPDATE SET version = '2' "
        "WHEN NOT MATCHED THEN INSERT VALUES ('phone', name, '1', '20240101')"
    ),
    "several in one transaction": (
        "DELETE FROM dedp.devices_raw WHERE load_id = '20240101'; "
        "INSERT INTO dedp.devices_raw VALUES ('phone', 'device 1', '1', '20240101'), ('tv', 'x', '1', '20240101'); "
        "UPDATE dedp.devices_raw SET version = '9' WHERE full_name = 'x'"
    ),
    "several in one statement": (
        "WITH gone AS (DELETE FROM dedp.devices_raw WHERE full_name = 'device 1' RETURNING *) "
        "INSERT INTO dedp.devices_raw SELECT type, 'moved', version, load_id FROM gone"
    ),
    "TRUNCATE": "TRUNCATE dedp.devices_raw",
    "unfold_all": "SELECT dedp.unfold_all()",
}


@pytest.mark.parametrize("name", list(BY_HAND))
def test_totals_follow_what_is_done_by_hand(
    database: Connection, three_loads: dict[str, int], assert_exact: AssertExact, name: str
) -> None:
    execute(database, BY_HAND[name])
    assert_exact(accounts=False)
    for load in LOADS:
        fold(database, load)
        assert_exact(accounts=False)
    assert folded_totals(database) == totals(database)


def test_totals_follow_a_copy_into_the_table(
    database: Connection, three_loads: dict[str, int], assert_exact: AssertExact, tmp_path: Path
) -> None:
    (tmp_path / "rows").write_text("phone\tdevice 1\t2\t20240101\nphone\tdevice 1\t2\t20240102\n")
    with database, database.cursor() as cursor, open(tmp_path / "rows") as stream:
        cursor.copy_expert("COPY dedp.devices_raw FROM STDIN", stream)
    assert totals(database)["phone;device 1;2"] == 2
    assert_exact(accounts=False)


def test_a_delete_that_is_rolled_back_leaves_no_trace(
    database: Connection, three_loads: dict[str, int], assert_exact: AssertExact
) -> None:
    with database.cursor() as cursor:
        cursor.execute("DELETE FROM dedp.devices_raw")
    database.rollback()
    assert totals(database) == three_loads
    assert query(database, "TABLE dedp.devices_changes") == []
    assert_exact()


def test_loading_again_after_a_truncate_brings_the_same_totals_back(
    database: Connection, devices_csv: WriteDevices, three_loads: dict[str, int], assert_exact: AssertExact
) -> None:
    execute(database, "TRUNCATE dedp.devices_raw")
    assert totals(database) == {}
    for load, numbers in zip(LOADS, [(1, 2, 3), (2, 3, 4), (3,)], strict=True):
        load_file(database, load, devices_csv(rows(*numbers)))
        fold(database, load)
    assert totals(database) == folded_totals(database) == three_loads
    assert_exact()


# --- a fold and a change by hand at once

WAITS = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'second' AND wait_event_type = 'Lock'"
)


@contextmanager
def connected(dsn: str, name: str = "first") -> Iterator[Connection]:
    connection = psycopg2.connect(dsn, application_name=name)
    try:
        yield connection
    finally:
        connection.close()


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", ["DELETE one row", "DELETE a load", "UPDATE a device", "INSERT", "TRUNCATE"])
def test_a_fold_that_meets_a_change_under_way_waits_for_it(
    database: Connection,
    dsn: str,
    devices_csv: WriteDevices,
    assert_exact: AssertExact,
    wait_until: WaitUntil,
    folded: bool,
    name: str,
) -> None:
    load_file(database, LOAD, devices_csv(rows(1, 2, 3)))
    if folded:
        fold(database, LOAD)
        load_file(database, LOAD, devices_csv(rows(1, 2, 4)))
    with ThreadPoolExecutor(1) as pool, connected(dsn, "second") as second, connected(dsn) as first:
        first.cursor().execute(BY_HAND[name])
        folding = pool.submit(fold, second, LOAD)
        wait_until(WAITS)
        first.commit()
        folding.result()
        assert_exact(accounts=False)
        fold(database, LOAD)
        assert folded_totals(database) == totals(database)
        assert_exact(accounts=False)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", ["DELETE one row", "DELETE a load", "UPDATE a device", "INSERT", "TRUNCATE"])
def test_a_change_that_meets_a_fold_under_way_waits_for_it(
    database: Connection,
    dsn: str,
    devices_csv: WriteDevices,
    assert_exact: AssertExact,
    wait_until: WaitUntil,
    folded: bool,
    name: str,
) -> None:
    load_file(database, LOAD, devices_csv(rows(1, 2, 3)))
    if folded:
        fold(database, LOAD)
        load_file(database, LOAD, devices_csv(rows(1, 2, 4)))
    # The fold stops before its last statement, with everything counted and written.
    execute(
        database,
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$; "
        "CREATE TRIGGER wait AFTER INSERT ON dedp.devices_folded FOR EACH STATEMENT EXECUTE FUNCTION wait()",
    )
    with ThreadPoolExecutor(2) as pool, connected(dsn, "second") as second, connected(dsn) as gate:
        gate.cursor().execute("SELECT pg_advisory_xact_lock(7)")
        folding = pool.submit(fold, second, LOAD)
        wait_until(WAITS)
        changer = psycopg2.connect(dsn, application_name="second")
        change = pool.submit(execute, changer, BY_HAND[name])
        wait_until(WAITS.replace("count(*)", "count(*) = 2"))
        if name != "TRUNCATE":  # for which PostgreSQL has every reader wait
            assert_exact()
        gate.rollback()
        folding.result()
        change.result()
        assert_exact(accounts=False)
        fold(database, LOAD)
        assert folded_totals(database) == totals(database)
        assert_exact(accounts=False)
        changer.close()


def test_a_change_in_an_older_snapshot_than_a_fold_is_refused_rather_than_miscounted(
    database: Connection, dsn: str, three_loads: dict[str, int], assert_exact: AssertExact
) -> None:
    older = psycopg2.connect(dsn)
    older.set_session(isolation_level="REPEATABLE READ")
    older.cursor().execute("SELECT count(*) FROM dedp.devices_raw")
    fold(database, OTHER)
    with pytest.raises(psycopg2.errors.SerializationFailure), older, older.cursor() as cursor:
        cursor.execute("DELETE FROM dedp.devices_raw WHERE load_id = %s", [OTHER])
    older.close()
    assert totals(database) == three_loads
    assert_exact()


def test_two_folds_of_one_load_at_once_count_it_once(
    database: Connection, dsn: str, three_loads: dict[str, int], assert_exact: AssertExact, wait_until: WaitUntil
) -> None:
    with ThreadPoolExecutor(2) as pool, connected(dsn) as gate:
        gate.cursor().execute("SELECT FROM dedp.devices_loads FOR UPDATE")
        folds = [pool.submit(fold, psycopg2.connect(dsn, application_name="second"), OTHER) for _ in range(2)]
        wait_until(WAITS.replace("count(*)", "count(*) = 2"))
        gate.rollback()
        assert sorted(folding.result().devices_changed for folding in folds) == [0, 3]
    assert totals(database) == three_loads
    assert_exact()


# --- any sequence

_devices = st.lists(st.integers(0, 5), unique=True, min_size=1)
_loads = st.sampled_from(LOADS)


def test_totals_are_exact_after_any_sequence_of_anything(
    database: Connection, devices_csv: WriteDevices, assert_exact: AssertExact
) -> None:
    class Sequence(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            with database, database.cursor() as cursor:
                cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'dedp_loads'")
                for (table,) in cursor.fetchall():
                    cursor.execute(f"DROP TABLE dedp_loads.{table}")
                cursor.execute(
                    "TRUNCATE dedp.devices_loads, dedp.devices_quarantine, dedp.devices_folded, dedp.devices_changes"
                )

        @rule(load=_loads, devices=_devices)
        def load(self, load: str, devices: list[int]) -> None:
            report = load_file(database, load, devices_csv([*rows(*devices), "{........", *rows(devices[0])]))
            assert (report.rows_loaded, report.rows_quarantined) == (len(devices), 2)

        @rule(load=_loads)
        def fold(self, load: str) -> None:
            before = totals(database)
            try:
                fold(database, load)
            except LoadNotFound:
                return
            assert totals(database) == before
            assert fold(database, load).devices_changed == 0

        @rule(devices=_devices, loads=st.lists(_loads, min_size=1))
        def delete(self, devices: list[int], loads: list[str]) -> None:
            names = [f"device {n}" for n in devices]
            execute(
                database,
                "DELETE FROM dedp.devices_raw WHERE full_name = ANY(%s) AND load_id = ANY(%s::char(8)[])",
                names,
                loads,
            )

        @rule(loads=st.lists(_loads, min_size=1))
        def delete_loads(self, loads: list[str]) -> None:
            execute(database, "DELETE FROM dedp.devices_raw WHERE load_id = ANY(%s::char(8)[])", loads)

        @rule(version=st.sampled_from(["1", "2"]), devices=_devices)
        def update(self, version: str, devices: list[int]) -> None:
            names = [f"device {n}" for n in devices]
            execute(
                database,
                "UPDATE dedp.devices_raw AS raw SET version = %s WHERE full_name = ANY(%s) AND NOT EXISTS ("
                "  SELECT FROM dedp.devices_raw AS same WHERE same.full_name = raw.full_name "
                "  AND same.load_id = raw.load_id AND same.version <> raw.version)",
                version,
                names,
            )

        @rule(to=_loads)
        def move(self, to: str) -> None:
            execute(
                database,
                "UPDATE dedp.devices_raw AS raw SET load_id = %s WHERE full_name = 'device 1' "
                "AND to_regclass('dedp_loads.devices_raw_' || %s) IS NOT NULL AND NOT EXISTS ("
                "  SELECT FROM dedp.devices_raw AS same "
                "  WHERE same.full_name = raw.full_name AND same.load_id <> raw.load_id)",
                to,
                to,
            )

        @rule(load=_loads, devices=_devices)
        def insert(self, load: str, devices: list[int]) -> None:
            names = [f"device {n}" for n in devices]
            execute(
                database,
                "INSERT INTO dedp.devices_raw SELECT 'phone', name, '1', %s FROM unnest(%s) AS name "
                "WHERE to_regclass('dedp_loads.devices_raw_' || %s) IS NOT NULL ON CONFLICT DO NOTHING",
                load,
                names,
                load,
            )

        @rule()
        def truncate(self) -> None:
            execute(database, "TRUNCATE dedp.devices_raw")

        @rule()
        def unfold_all(self) -> None:
            execute(database, "SELECT dedp.unfold_all()")

        @rule(load=_loads, devices=_devices)
        def drop_and_reload(self, load: str, devices: list[int]) -> None:
            execute(database, f"DROP TABLE IF EXISTS dedp_loads.devices_raw_{load}")
            self.load(load, devices)

        @invariant()
        def totals_equal_the_recount(self) -> None:
            assert_exact(accounts=False)

        def teardown(self) -> None:
            for load in LOADS:
                self.fold(load)
            assert folded_totals(database) == totals(database)
            assert_exact(accounts=False)

    run_state_machine_as_test(
        Sequence,
        settings=settings(
            max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
