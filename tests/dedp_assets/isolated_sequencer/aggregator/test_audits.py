"""The checks find what was tampered with and name it, and find nothing else."""

from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.isolated_sequencer.aggregator import audits
from dedp_assets.isolated_sequencer.aggregator.folding import fold
from dedp_assets.isolated_sequencer.aggregator.loading import load_file
from tests.dedp_assets.isolated_sequencer.aggregator.loads import execute
from tests.dedp_assets.isolated_sequencer.fixture_types import AssertExact, WaitUntil, WriteDevices

LOAD, OTHER, NEW = "20240101", "20240102", "20240103"

EVERY_CHECK = {
    "accounts": audits.lines_accounted_for,
    "balance": audits.totals_balance,
    "recount": audits.totals_equal_recount,
}


def failing(connection: Connection) -> dict[str, str]:
    """The checks that don't pass, and how they describe why."""
    results = {name: check(connection) for name, check in EVERY_CHECK.items()}
    return {name: result.description or "" for name, result in results.items() if not result.passed}


@pytest.fixture
def two_folded_loads(database: Connection, devices_csv: WriteDevices) -> None:
    load_file(database, LOAD, devices_csv(["phone;Nova;1", "phone;Nova;2", "{........"]))
    load_file(database, OTHER, devices_csv(["phone;Nova;1", "tv;Lux;1", "tv;Lux;1"]))
    fold(database, LOAD)
    fold(database, OTHER)


def test_empty_tables_pass_every_check(database: Connection) -> None:
    assert failing(database) == {}


def test_loads_pass_every_check_folded_or_not(
    database: Connection, devices_csv: WriteDevices, two_folded_loads: None
) -> None:
    assert failing(database) == {}
    load_file(database, LOAD, devices_csv(["phone;Nova;2", "phone;Nova;3"]))
    load_file(database, NEW, devices_csv(["bad", "phone;Nova;1"]))
    assert failing(database) == {}


def test_what_was_counted_is_reported(database: Connection, two_folded_loads: None) -> None:
    accounts = audits.lines_accounted_for(database)
    assert {name: value.value for name, value in accounts.metadata.items()} == {
        "loads": 2,
        "lines_read": 6,
        "rows_present": 4,
        "lines_quarantined": 2,
    }
    balance = audits.totals_balance(database)
    assert {name: value.value for name, value in balance.metadata.items()} == {"occurrences": 4, "rows_loaded": 4}
    recount = audits.totals_equal_recount(database)
    assert {name: value.value for name, value in recount.metadata.items()} == {"devices": 3, "devices_wrong": 0}


def test_a_row_deleted_by_hand_is_missed_in_its_load(database: Connection, two_folded_loads: None) -> None:
    execute(database, f"DELETE FROM dedp.devices_raw WHERE load_id = '{LOAD}' AND version = '2'")
    found = failing(database)
    assert found.keys() == {"accounts", "balance"}
    assert found["accounts"] == (
        f"load {LOAD}: 3 lines read, 2 loaded and 1 quarantined; there are 1 rows and 1 quarantined lines"
    )
    assert found["balance"].startswith("3 occurrences, but 4 rows loaded.")


def test_a_quarantined_line_deleted_by_hand_is_missed_in_its_load(database: Connection, two_folded_loads: None) -> None:
    execute(database, f"DELETE FROM dedp.devices_quarantine WHERE load_id = '{LOAD}'")
    found = failing(database)
    assert found.keys() == {"accounts"}
    assert "load 20240101: 3 lines read, 2 loaded and 1 quarantined; there are 2 rows and 0" in found["accounts"]


def test_a_check_of_given_loads_looks_at_no_other(database: Connection, two_folded_loads: None) -> None:
    execute(database, f"DELETE FROM dedp.devices_raw WHERE load_id = '{LOAD}'")
    assert not audits.lines_accounted_for(database, [LOAD, OTHER]).passed
    assert audits.lines_accounted_for(database, [OTHER]).passed
    assert audits.lines_accounted_for(database, []).passed


@pytest.mark.parametrize(
    ("statement", "checks", "device"),
    [
        pytest.param(
            "UPDATE dedp_loads.devices_raw_20240101 SET full_name = 'Fake' WHERE version = '2'",
            {"recount"},
            "phone Fake 2: , recounted 1",
            id="changed",
        ),
        pytest.param(
            "DELETE FROM dedp_loads.devices_raw_20240101 WHERE version = '2'",
            {"accounts", "recount"},
            "phone Nova 2: 1, recounted ",
            id="deleted",
        ),
        pytest.param(
            "INSERT INTO dedp_loads.devices_raw_20240101 VALUES ('tv', 'Lux', '1', '20240101')",
            {"accounts", "recount"},
            "tv Lux 1: 1, recounted 2",
            id="inserted",
        ),
        pytest.param(
            "TRUNCATE dedp_loads.devices_raw_20240101",
            {"accounts", "recount"},
            "phone Nova 1: 2, recounted 1",
            id="emptied",
        ),
        pytest.param(
            "UPDATE dedp.devices_folded SET all_occurrences = 7 WHERE type = 'tv'",
            {"balance", "recount"},
            "tv Lux 1: 7, recounted 1",
            id="total overwritten",
        ),
    ],
)
def test_a_change_behind_the_triggers_back_is_found_by_device_and_mended(
    database: Connection,
    devices_csv: WriteDevices,
    two_folded_loads: None,
    assert_exact: AssertExact,
    statement: str,
    checks: set[str],
    device: str,
) -> None:
    execute(database, statement)
    found = failing(database)
    assert found.keys() == checks
    assert device in found["recount"].splitlines()
    assert "SELECT dedp.unfold_all()" in found["recount"]
    if "accounts" in checks:
        assert f"load {LOAD}" in found["accounts"]
        assert OTHER not in found["accounts"]

    execute(database, "SELECT dedp.unfold_all()")
    assert audits.totals_equal_recount(database).passed
    load_file(database, LOAD, devices_csv(["phone;Nova;1", "phone;Nova;2", "{........"]))
    assert failing(database) == {}
    for load in (LOAD, OTHER):
        fold(database, load)
    assert failing(database) == {}
    assert_exact()


def test_a_dropped_load_is_named_and_loading_it_again_mends_everything(
    database: Connection, devices_csv: WriteDevices, two_folded_loads: None, assert_exact: AssertExact
) -> None:
    execute(database, f"DROP TABLE dedp_loads.devices_raw_{LOAD}")
    found = failing(database)
    assert "load 20240101: 3 lines read, 2 loaded and 1 quarantined; there are 0 rows" in found["accounts"]
    assert "phone Nova 2: 1, recounted " in found["recount"].splitlines()

    load_file(database, LOAD, devices_csv(["phone;Nova;1", "phone;Nova;9", "{........"]))
    assert failing(database) == {}
    assert_exact()
    for load in (LOAD, OTHER):
        fold(database, load)
    assert failing(database) == {}
    assert_exact()


def test_of_many_wrong_devices_a_few_are_named_and_all_are_counted(
    database: Connection, devices_csv: WriteDevices
) -> None:
    load_file(database, LOAD, devices_csv([f"phone;Nova {n};1" for n in range(100)]))
    fold(database, LOAD)
    execute(database, f"TRUNCATE dedp_loads.devices_raw_{LOAD}")
    result = audits.totals_equal_recount(database)
    assert result.metadata["devices_wrong"].value == 100
    assert len((result.description or "").splitlines()) == 6


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", list(EVERY_CHECK))
def test_a_load_that_commits_while_a_check_is_planned_does_not_make_it_fail(
    database: Connection,
    dsn: str,
    devices_csv: WriteDevices,
    two_folded_loads: None,
    wait_until: WaitUntil,
    name: str,
    folded: bool,
) -> None:
    auditor = psycopg2.connect(dsn, application_name="auditor")
    with ThreadPoolExecutor(1) as pool:
        execute(database, "UPDATE dedp.devices_loads SET folded = false; TRUNCATE dedp.devices_folded")
        # The planner knows its partitions by the time that it waits for this one.
        blocker = psycopg2.connect(dsn)
        blocker.cursor().execute(f"LOCK TABLE dedp_loads.devices_raw_{LOAD}")
        try:
            audit = pool.submit(EVERY_CHECK[name], auditor)
            wait_until(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'auditor' AND wait_event_type = 'Lock'"
            )
            load_file(database, NEW, devices_csv(["phone;Nova;1", "tv;Lux;5"]))
            if folded:
                fold(database, NEW)
        finally:
            blocker.close()
        result = audit.result()
    auditor.close()
    assert result.passed, result.description
