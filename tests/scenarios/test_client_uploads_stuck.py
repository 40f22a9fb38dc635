"""A mount that really hangs, in the middle of the clients' directories."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from dagster_scenario import Scenario

from tests.stuck_mounts import StuckMount

pytest_plugins = ["tests.stuck_mounts"]
pytestmark = pytest.mark.slow

GOOD = "id,name,value\n1,apple,2.5\n2,pear,3\n"


@pytest.fixture
def scenario_settings() -> dict[str, object]:
    return {}


@pytest.fixture
def uploads(scenario: Scenario, dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """The code location is at work, and no client has a directory yet."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
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


@pytest.mark.parametrize(
    ("place", "mounted"),
    [
        ("clients/{client}", "clients/south"),
        ("clients/{client}/in", "clients/south/in"),
        ("clients/{client}/in", "clients/south"),
    ],
    ids=["the directory", "the directory below a wildcard", "the folder above it"],
)
def test_a_mount_that_hangs_holds_up_no_other_client_and_is_taken_up_again(
    uploads: Scenario, dsn: str, own_home: Path, stuck_mount: Callable[[Path], StuckMount], place: str, mounted: str
) -> None:
    (own_home / "uploads.yaml").write_text(f"directories: [{{directory: {place.format(client='*')}}}]\n")
    for client in ("north", "south", "west"):
        folder = own_home / "landing" / place.format(client=client)
        folder.mkdir(parents=True)
        (folder / "orders.csv").write_text(GOOD)
    mount = stuck_mount(own_home / "landing" / mounted)
    uploads.advance(minutes=5, every_tick=True)
    assert query(dsn, "SELECT client, file FROM dedp.upload_files ORDER BY 1") == [
        ("north", "orders.csv"),
        ("west", "orders.csv"),
    ]
    assert query(dsn, "SELECT client FROM dedp.upload_directories WHERE state = 'failing'") == [("south",)]
    assert f"{place.format(client='south')} has not answered for 2 s; is its mount alive?" in str(uploads.timeline)
    mount.end()
    uploads.advance(minutes=15, every_tick=True)
    assert query(dsn, "SELECT client, count(*) FROM dedp.upload_records GROUP BY 1 ORDER BY 1") == [
        ("north", 2),
        ("south", 2),
        ("west", 2),
    ]
    assert query(dsn, "SELECT client FROM dedp.upload_directories WHERE state = 'failing'") == []
