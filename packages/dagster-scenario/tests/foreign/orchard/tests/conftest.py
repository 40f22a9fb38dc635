"""A story plays in one of our code locations or in all of them, in a yard of its own, with production's settings.

It begins on the Wednesday before Easter 2024 at 4:30 in Berlin, an hour and a half before the quotes are bought.
"""

from pathlib import Path

import pytest
from dagster_scenario import Scenario
from dagster_scenario.world.files import Folder

PROJECT = Path(__file__).parent.parent
MORNING = "2024-03-27 04:30"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The company's files, for this test."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("ORCHARD_HOME", str(home))
    return home


@pytest.fixture
def scenario_settings() -> Path:
    return PROJECT / "dagster.yaml"


@pytest.fixture
def scenario_timezone() -> str:
    return "Europe/Berlin"


@pytest.fixture
def yard(scenario: Scenario, home: Path) -> Folder:
    """Where scales, scanners and the office put their files."""
    return scenario.folder(home / "yard")


@pytest.fixture
def buying(scenario: Scenario) -> Scenario:
    """The code location of the buyers."""
    scenario.start(MORNING)
    scenario.load(buying="orchard.buying")
    return scenario


@pytest.fixture
def market(buying: Scenario) -> Scenario:
    """What the buyers buy, and nothing that follows from it: their automation is turned off."""
    buying.turn_off("buying_automation")
    return buying


@pytest.fixture
def warehouse(scenario: Scenario) -> Scenario:
    """The code location of the warehouse, whose sensors have looked at the empty yard once."""
    scenario.start(MORNING)
    scenario.load(warehouse="orchard.warehouse")
    scenario.tick()
    return scenario


@pytest.fixture
def cold_store(scenario: Scenario) -> Scenario:
    """The code location of the cold store; its stories have days of their own."""
    scenario.load(cold_store="orchard.cold_store")
    return scenario


@pytest.fixture
def company(scenario: Scenario) -> Scenario:
    """All code locations, whose sensors have looked once."""
    scenario.start(MORNING)
    scenario.load(PROJECT / "workspace.yaml")
    scenario.tick()
    return scenario
