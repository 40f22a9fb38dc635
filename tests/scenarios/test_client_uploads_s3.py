"""Clients that upload into a bucket, on a simulated clock, with a real S3 server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from dagster_scenario import Scenario

RECORDS = "uploads/records"
GOOD = "id,name,value\n1,apple,2.5\n2,pear,3\n"


@pytest.fixture
def scenario_settings() -> dict[str, object]:
    return {}


@pytest.fixture
def uploads(scenario: Scenario, dsn: str, own_home: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """The system watches a prefix of a bucket and all folders of clients."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    (own_home / "uploads.yaml").write_text(
        f"directories:\n  - directory: {s3_bucket}/suppliers/north/\n  - directory: clients/*\n"
    )
    scenario.start("2024-01-03 08:00")
    scenario.load("jobs.client_uploads")
    scenario.turn_off("uploads_report")
    return scenario


def query(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


def test_an_object_is_loaded_once_beside_the_files_of_folders(
    uploads: Scenario, s3_put: Callable[[str, bytes], None], dsn: str, own_home: Path, s3_bucket: str
) -> None:
    s3_put("suppliers/north/orders.csv", GOOD.encode())
    folder = own_home / "landing" / "clients" / "south"
    folder.mkdir(parents=True)
    (folder / "orders.csv").write_text(GOOD)
    uploads.advance(minutes=5, every_tick=True)
    uploads.expect(RECORDS).materialized("north", "south")
    assert query(dsn, "SELECT client, directory, state, rows_loaded FROM dedp.upload_files ORDER BY 1") == [
        ("north", f"{s3_bucket}/suppliers/north", "loaded", 2),
        ("south", str(folder), "loaded", 2),
    ]
    s3_put("suppliers/north/orders.csv", GOOD.encode() + b"3,plum,1\n")
    uploads.advance(minutes=5, every_tick=True)
    uploads.expect(RECORDS).materialized("north", "south", "north")
    assert query(dsn, "SELECT count(*) FROM dedp.upload_records WHERE client = 'north'") == [(3,)]


def test_the_same_content_seen_in_a_folder_and_then_in_a_bucket_is_loaded_once(
    uploads: Scenario, s3_put: Callable[[str, bytes], None], dsn: str, own_home: Path, s3_bucket: str
) -> None:
    settings = own_home / "uploads.yaml"
    in_bucket = settings.read_text()
    settings.write_text("directories: [{directory: clients/*}]\n")
    folder = own_home / "landing" / "clients" / "north"
    folder.mkdir(parents=True)
    (folder / "orders.csv").write_text(GOOD)
    uploads.advance(minutes=3)
    s3_put("suppliers/north/orders.csv", GOOD.encode())
    settings.write_text(in_bucket)
    uploads.advance(minutes=10, every_tick=True)
    uploads.expect(RECORDS).materialized("north")
    assert len(query(dsn, "SELECT FROM dedp.upload_files")) == 1
    # Both are there, and a client has one directory: the tick says which one is not watched.
    assert f"clients/north is not watched: the client north has the directory {s3_bucket}" in str(uploads.timeline)


def test_a_bucket_that_is_away_stops_no_folder(uploads: Scenario, dsn: str, own_home: Path) -> None:
    (own_home / "uploads.yaml").write_text(
        "directories:\n  - directory: s3://no-such-bucket/west\n  - directory: clients/*\n"
    )
    folder = own_home / "landing" / "clients" / "south"
    folder.mkdir(parents=True)
    (folder / "orders.csv").write_text(GOOD)
    uploads.advance(minutes=5, every_tick=True)
    assert query(dsn, "SELECT client, state FROM dedp.upload_directories ORDER BY 1") == [
        ("south", "healthy"),
        ("west", "failing"),
    ]
    assert query(dsn, "SELECT client, count(*) FROM dedp.upload_records GROUP BY 1") == [("south", 2)]
