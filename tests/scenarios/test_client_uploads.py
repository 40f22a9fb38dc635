"""Stories of clients that upload files, on a simulated clock: what is taken, when, and what holds nobody up."""

import os
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from dedp_assets.testing import Scenario

RECORDS = "uploads/records"


@pytest.fixture
def scenario_settings() -> dict[str, object]:
    return {}


@pytest.fixture(autouse=True)
def database(dsn: str, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    return dsn


@pytest.fixture
def upload(own_home: Path) -> Callable[..., Path]:
    """Renames a complete file into the directory of a client."""

    def put(client: str, name: str = "orders.csv", rows: int = 3, text: str | None = None) -> Path:
        folder = own_home / "landing" / "clients" / client
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["id,name,value", *(f"{number},item {number},{number}.5" for number in range(1, rows + 1))]
        (folder / f".{name}.part").write_text("\n".join(lines) + "\n" if text is None else text)
        os.replace(folder / f".{name}.part", folder / name)
        return folder / name

    return put


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()
    finally:
        connection.close()


def records(dsn: str) -> dict[object, object]:
    return dict(rows(dsn, "SELECT client || '/' || file, count(*) FROM dedp.upload_records GROUP BY 1"))  # type: ignore[arg-type]


def test_a_file_of_any_client_is_loaded_once_with_its_details(
    scenario: Scenario, upload: Callable[..., Path], database: str
) -> None:
    scenario.load("jobs.client_uploads")
    upload("north")
    scenario.advance(minutes=2)
    upload("south", "more.json", text='{"id": 1, "name": "a", "value": 2.5}\n{"id": 2}\n')
    scenario.advance(minutes=2)
    scenario.run_until_quiet()
    print(scenario.timeline)
    assert records(database) == {"north/orders.csv": 3, "south/more.json": 1}
    print(rows(database, "SELECT * FROM dedp.upload_files"))
