"""Stories of clients that upload files, on a simulated clock: what is taken, when, and what holds nobody up."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from dagster_scenario import Scenario

RECEIVED, RECORDS = "uploads/received", "uploads/records"
SENSOR = "uploads_arrived"

Upload = Callable[..., Path]


@pytest.fixture
def scenario_settings() -> dict[str, Any]:
    return {"run_queue": {"max_concurrent_runs": 16}}


@pytest.fixture
def uploads(scenario: Scenario, dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """The code location is at work, and no client has a directory yet."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    scenario.start("2024-01-03 08:00")
    (own_home / "landing" / "clients").mkdir(parents=True)
    scenario.load("jobs.client_uploads")
    scenario.turn_off("uploads_report")  # each minute; it has stories of its own
    scenario.advance(minutes=1)
    return scenario


@pytest.fixture
def upload(uploads: Scenario, own_home: Path) -> Upload:
    """Renames a complete file into the directory of a client."""
    folder = uploads.folder(own_home / "landing" / "clients")

    def put(client: str, name: str = "orders.csv", rows: int = 3, text: str | None = None) -> Path:
        lines = ["id,name,value", *(f"{number},item {number},{number}.5" for number in range(1, rows + 1))]
        content = "\n".join(lines) + "\n" if text is None else text
        file = f"{client}/{name}"
        return folder.rewrite(file, content) if (folder.path / file).exists() else folder.drop(file, content)

    return put


def query(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


def records(dsn: str) -> dict[str, int]:
    """How many rows each file has."""
    return dict(query(dsn, "SELECT client || '/' || file, count(*) FROM dedp.upload_records GROUP BY 1"))


def ledger(dsn: str, columns: str) -> list[tuple[Any, ...]]:
    return query(dsn, f"SELECT {columns} FROM dedp.upload_files ORDER BY client, file, dealt_with_at")


def watch(own_home: Path, text: str) -> None:
    (own_home / "uploads.yaml").write_text(text)


def test_a_file_of_any_client_is_loaded_once_and_its_details_travel_with_it(
    uploads: Scenario, upload: Upload, dsn: str
) -> None:
    path = upload("north")
    uploads.advance(minutes=2)
    uploads.expect(RECORDS).materialized("north").by_sensor(SENSOR)
    upload("south", "more.json", text='{"id": 1, "name": "a", "value": 2.5}\n{"id": 2}\n')
    uploads.advance(hours=1)
    uploads.expect(RECORDS).materialized("north", "south")
    assert records(dsn) == {"north/orders.csv": 3, "south/more.json": 1}
    assert query(dsn, "SELECT file, line_number, reason FROM dedp.upload_quarantine") == [
        ("more.json", 2, "missing field")
    ]
    assert ledger(dsn, "client, file, directory, pattern, size_bytes, waited_seconds, state, origin") == [
        ("north", "orders.csv", str(path.parent), "*.csv", path.stat().st_size, 30.0, "loaded", "file"),
        ("south", "more.json", str(path.parents[1] / "south"), "*.json", 47, 30.0, "loaded", "file"),
    ]
    uploads.expect_runs().no_slot_held_while_waiting()


def test_a_new_version_takes_the_place_of_the_old_one(uploads: Scenario, upload: Upload, dsn: str) -> None:
    upload("north", rows=3)
    uploads.advance(minutes=2)
    upload("north", rows=5)
    uploads.advance(minutes=2)
    uploads.expect(RECORDS).materialized("north", "north")
    assert records(dsn) == {"north/orders.csv": 5}
    assert ledger(dsn, "rows_loaded, is_current") == [(3, False), (5, True)]


def test_a_file_that_is_touched_is_not_loaded_again(uploads: Scenario, upload: Upload, dsn: str) -> None:
    path = upload("north")
    uploads.advance(minutes=2)
    os.utime(path)
    uploads.advance(minutes=10, every_tick=True)
    uploads.expect(RECORDS).materialized("north")
    assert len(ledger(dsn, "file")) == 1


def test_a_burst_of_a_hundred_clients_shares_a_few_runs(uploads: Scenario, upload: Upload, dsn: str) -> None:
    for number in range(100):
        upload(f"client{number:03}")
    uploads.advance(minutes=5)
    assert records(dsn) == {f"client{number:03}/orders.csv": 3 for number in range(100)}
    assert len(query(dsn, "SELECT DISTINCT run_id FROM dedp.upload_files")) <= 2
    uploads.expect(RECORDS).materialized(times=100)


def test_a_bad_file_stops_nobody_and_is_taken_when_it_is_corrected(uploads: Scenario, upload: Upload, dsn: str) -> None:
    upload("north", text="this is not what was agreed\n")
    upload("north", "second.csv")
    upload("south")
    uploads.advance(minutes=3)
    assert records(dsn) == {"north/second.csv": 3, "south/orders.csv": 3}
    (refused,) = [reason for state, reason in ledger(dsn, "state, reason") if state == "refused"]
    assert "expected the header id,name,value" in refused
    uploads.advance(hours=3)
    uploads.expect(RECORDS).materialized("north", "south")
    upload("north", rows=7)
    uploads.advance(minutes=3)
    assert records(dsn)["north/orders.csv"] == 7


def test_a_bad_new_version_leaves_what_was_loaded(uploads: Scenario, upload: Upload, dsn: str) -> None:
    upload("north", rows=4)
    uploads.advance(minutes=2)
    upload("north", text="")
    uploads.advance(minutes=2)
    upload("north", text="<html>error</html>")
    uploads.advance(minutes=2)
    assert records(dsn) == {"north/orders.csv": 4}
    assert ledger(dsn, "state, is_current") == [("loaded", False), ("refused", True)]


def test_everything_was_down_for_three_days_and_nothing_is_lost(uploads: Scenario, upload: Upload, dsn: str) -> None:
    upload("north")
    uploads.advance(minutes=2)
    with uploads.daemons_down():
        uploads.advance(days=3)
        upload("north", rows=9)
        upload("south")
    uploads.advance(minutes=3)
    assert records(dsn) == {"north/orders.csv": 9, "south/orders.csv": 3}


def test_a_run_that_is_killed_leaves_nothing_half_and_its_files_are_taken_again(
    uploads: Scenario, upload: Upload, dsn: str
) -> None:
    for number in range(5):
        upload("north", f"{number}.csv")
    uploads.kill(RECORDS, before="dedp_assets.client_uploads.ledger.record")
    uploads.advance(minutes=30)
    assert records(dsn) == {f"north/{number}.csv": 3 for number in range(5)}


def test_a_growing_file_waits_until_it_rests(uploads: Scenario, upload: Upload, dsn: str, own_home: Path) -> None:
    watch(own_home, "directories: [{directory: clients/*, settle: 2m}]\n")
    upload("north", rows=1)
    folder = uploads.folder(own_home / "landing" / "clients")
    for number in range(2, 12):
        uploads.advance(minutes=1)
        folder.grow("north/orders.csv", f"{number},more,1\n")
    assert records(dsn) == {}
    uploads.expect_sensor(SENSOR).waiting()
    uploads.advance(minutes=5)
    assert records(dsn) == {"north/orders.csv": 11}


def test_three_silent_clients_hold_no_slot_and_are_reported_once(
    uploads: Scenario, upload: Upload, dsn: str, own_home: Path
) -> None:
    """The notes' disaster: three suppliers are silent, and within six days they hold all 16 slots."""
    watch(own_home, "directories: [{directory: clients/*, timeout: 4d}]\n")
    for silent in ("a", "b", "c"):
        (own_home / "landing" / "clients" / silent).mkdir()
    for day in range(1, 7):
        upload("d", f"2024-01-{day:02}.csv")
        uploads.advance(days=1)
        assert len(records(dsn)) == day, "the fourth one is served every day"
    uploads.expect_runs().no_slot_held_while_waiting()
    assert query(dsn, "SELECT client, state FROM dedp.upload_directories ORDER BY 1") == [
        *((silent, "silent") for silent in ("a", "b", "c")),
        ("d", "healthy"),
    ]
    assert query(dsn, "SELECT timeouts FROM dedp.upload_ticks") == [(3,)]
    upload("b")
    uploads.advance(minutes=5)
    assert records(dsn)["b/orders.csv"] == 3
    assert query(dsn, "SELECT state FROM dedp.upload_directories WHERE client = 'b'") == [("healthy",)]


def test_settings_change_without_a_restart_and_wrong_ones_change_nothing(
    uploads: Scenario, upload: Upload, dsn: str, own_home: Path
) -> None:
    elsewhere = own_home / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "stock.txt").write_text("sku;title;price\n1;a;2\n")
    watch(
        own_home,
        f"directories:\n  - directory: clients/*\n  - directory: {elsewhere}\n    client: partner\n"
        "    patterns: ['*.txt']\n    delimiter: ';'\n    columns: {id: sku, name: title, value: price}\n",
    )
    uploads.advance(minutes=2, every_tick=True)
    assert query(dsn, "SELECT client, id, name, value FROM dedp.upload_records") == [("partner", "1", "a", "2")]
    watch(own_home, "directories:\n  - directory: clients/*\n    prioritty: 3\n")
    (elsewhere / "more.txt").write_text("sku;title;price\n2;b;3\n")
    uploads.advance(minutes=2, every_tick=True)
    assert records(dsn) == {"partner/stock.txt": 1, "partner/more.txt": 1}
    assert "uploads.yaml:3" in str(uploads.timeline)


def test_a_directory_that_cannot_be_read_stops_no_other_and_is_taken_up_again(
    uploads: Scenario, upload: Upload, dsn: str, own_home: Path
) -> None:
    watch(own_home, f"directories:\n  - directory: clients/*\n  - directory: {own_home}/gone\n")
    upload("north")
    uploads.advance(minutes=10, every_tick=True)
    assert records(dsn) == {"north/orders.csv": 3}
    assert query(dsn, "SELECT client, state, failures > 2 FROM dedp.upload_directories ORDER BY 1") == [
        ("gone", "failing", True),
        ("north", "healthy", False),
    ]
    (own_home / "gone").mkdir()
    (own_home / "gone" / "late.csv").write_text("id,name,value\n1,a,b\n")
    uploads.advance(minutes=30, every_tick=True)
    assert records(dsn) == {"north/orders.csv": 3, "gone/late.csv": 1}
