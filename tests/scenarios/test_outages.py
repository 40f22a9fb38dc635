"""PostgreSQL is away while files land, on a simulated clock: for as long as it takes, nobody has to come and look.

Dagster's own storage is up all the time here. What is away is the database that files are loaded into.
"""

from datetime import timedelta
from pathlib import Path

import pytest
from dagster_scenario import Scenario
from dagster_scenario.world.files import Folder
from dagster_scenario.world.postgres import PostgresServer

from dedp_assets import settings
from dedp_assets.isolated_sequencer import contract

LOADER, AGGREGATOR = "jobs.devices_loader", "jobs.devices_aggregator"
FILE, RAW, TOTALS = (
    key.to_user_string() for key in (contract.DEVICES_FILE, contract.DEVICES_RAW, contract.DEVICES_AGGREGATES)
)
DAY = "2024-01-02"

# Shorter and longer than all the retries of a run together, and longer than any pause between two of them.
OUTAGES = {
    "two minutes": timedelta(minutes=2),
    "three hours": timedelta(hours=3),
    "two days": timedelta(days=2),
}
outages = pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)

# After an outage of any length. The longest pause between two requests for a day that keeps failing would be an hour.
SOON_MINUTES = 15


@pytest.fixture
def scenario_settings() -> Path:
    """The deployment's own: its run queue, its monitoring, its retries."""
    return settings.REPOSITORY / "docker" / "dagster.yaml"


@pytest.fixture
def database(scenario: Scenario) -> PostgresServer:
    """The database that files are loaded into."""
    return scenario.postgres("the devices' database")


@pytest.fixture
def landing(scenario: Scenario, database: PostgresServer, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The landing folder; both teams are at work, and the first of January is loaded."""
    monkeypatch.setenv("DEDP_POSTGRES_DSN", database.dsn)
    monkeypatch.setenv("DEDP_START", "2024-01-01")
    scenario.start("2024-01-03 08:00")
    folder = scenario.folder(own_home / "landing" / "devices")
    scenario.load(LOADER, AGGREGATOR)
    folder.drop("2024-01-01/dataset.csv", devices("first"))
    scenario.advance(minutes=10)
    assert totals(database) == {"first": 1}
    return folder


def devices(*versions: str) -> str:
    """A devices file with a line for each version."""
    return "type;full_name;version\n" + "".join(f"lenovo;Lenovo ThinkPad;{version}\n" for version in versions)


def totals(database: PostgresServer) -> dict[str, int]:
    """The totals by version."""
    return dict(database.query("SELECT version, all_occurrences FROM dedp.devices_aggregates"))


@outages
def test_a_file_that_lands_while_postgresql_is_away_is_loaded_soon_after_it_is_back(
    scenario: Scenario, landing: Folder, database: PostgresServer, outage: timedelta
) -> None:
    database.stop()
    landing.drop(f"{DAY}/dataset.csv", devices("1", "2"))
    scenario.advance(seconds=outage.total_seconds())
    database.start()
    scenario.advance(minutes=SOON_MINUTES)
    assert totals(database) == {"first": 1, "1": 1, "2": 1}
    scenario.expect_runs().none_under_way()


@outages
def test_a_corrected_file_that_lands_while_postgresql_is_away_takes_the_place_of_the_earlier_load(
    scenario: Scenario, landing: Folder, database: PostgresServer, outage: timedelta
) -> None:
    database.stop()
    landing.rewrite("2024-01-01/dataset.csv", devices("corrected"))
    scenario.advance(seconds=outage.total_seconds())
    database.start()
    scenario.advance(minutes=SOON_MINUTES)
    assert totals(database) == {"corrected": 1}


def test_what_was_loaded_is_not_loaded_again_after_an_outage(
    scenario: Scenario, landing: Folder, database: PostgresServer
) -> None:
    loaded = scenario.mark("everything is loaded")
    database.stop()
    scenario.advance(hours=3)
    database.start()
    scenario.advance(hours=3)
    scenario.expect(RAW).not_materialized("2024-01-01", since=loaded)
    scenario.expect(TOTALS).not_materialized("2024-01-01", since=loaded)


def test_the_totals_are_told_and_right_where_postgresql_goes_away_between_the_load_and_the_totals(
    scenario: Scenario, landing: Folder, database: PostgresServer
) -> None:
    begun = scenario.mark("the second file")
    scenario.hold(TOTALS, at="start")
    landing.drop(f"{DAY}/dataset.csv", devices("1", "2"))
    scenario.advance(minutes=2)
    scenario.expect(RAW).materialized(DAY, since=begun)
    scenario.expect(TOTALS).running(DAY)
    database.stop()
    scenario.release()
    scenario.advance(hours=3)
    database.start()
    scenario.advance(minutes=SOON_MINUTES)
    assert totals(database) == {"first": 1, "1": 1, "2": 1}
    scenario.expect(TOTALS).materialized(DAY, since=begun)


def test_it_goes_away_again_and_again(scenario: Scenario, landing: Folder, database: PostgresServer) -> None:
    landing.drop(f"{DAY}/dataset.csv", devices("1", "2"))
    for _ in range(5):
        database.stop()
        scenario.advance(minutes=7)
        database.start()
        scenario.advance(seconds=20)
    scenario.advance(minutes=SOON_MINUTES)
    assert totals(database) == {"first": 1, "1": 1, "2": 1}
