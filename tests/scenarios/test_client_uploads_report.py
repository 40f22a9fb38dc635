"""The report of client uploads on a simulated clock: it follows the uploads, and a burst of them makes one report."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from dagster_scenario import Scenario

from dedp_assets.client_uploads import contract

REPORT = "uploads/report"


@pytest.fixture
def scenario_settings() -> dict[str, object]:
    return {}


@pytest.fixture
def uploads(scenario: Scenario, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """The system is up. No client has uploaded anything."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    scenario.start("2024-01-03 08:00:05")
    scenario.load("jobs.client_uploads")
    return scenario


@pytest.fixture
def upload(own_home: Path) -> Callable[[str], None]:
    """Renames a complete file into the directory of a client."""

    def put(client: str) -> None:
        folder = own_home / "landing" / "clients" / client
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".orders.part").write_text("id,name,value\n1,item,1.5\n")
        os.replace(folder / ".orders.part", folder / "orders.csv")

    return put


@pytest.mark.slow
def test_a_burst_of_uploads_makes_one_report_a_minute_and_silence_makes_none(
    uploads: Scenario, upload: Callable[[str], None]
) -> None:
    for number in range(5):
        upload(f"client-{number}")
        uploads.advance(seconds=10)
    uploads.advance(minutes=2)
    uploads.expect("uploads/records").materialized(times=5)
    # The burst goes on over the full minute.
    uploads.expect(REPORT).materialized(times=2).by_schedule("uploads_report")
    page = contract.report_file().read_text()
    assert "5 directories: all healthy." in page
    assert "client-4" in page
    silence = uploads.mark("silence")
    uploads.advance(hours=2)
    uploads.expect(REPORT).not_materialized(since=silence)
    upload("client-5")
    uploads.advance(minutes=2)
    uploads.expect(REPORT).materialized(times=1, since=silence)
    uploads.expect_runs().none_failed()


def test_a_client_that_becomes_silent_is_in_the_report_although_nothing_was_uploaded(
    uploads: Scenario, own_home: Path
) -> None:
    (own_home / "landing" / "silent").mkdir(parents=True)
    (own_home / "uploads.yaml").write_text("directories:\n  - directory: silent\n    timeout: 10m\n")
    uploads.advance(minutes=2)
    assert "1 directory: all healthy." in contract.report_file().read_text()
    uploads.advance(minutes=10)
    assert "Of 1 directory, 1 is silent." in contract.report_file().read_text()
