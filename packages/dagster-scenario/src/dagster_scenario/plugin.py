"""The pytest plugin: the fixture `scenario`, and its timeline when a test fails.

pytest imports this in every project of the environment, so it imports nothing heavy before a scenario is asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dagster_scenario import Scenario

_FAILED: pytest.StashKey[bool] = pytest.StashKey()
_OPEN: pytest.StashKey[tuple[Scenario, Path]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that keeps the timelines."""
    group = parser.getgroup("dagster scenarios")
    group.addoption(
        "--scenario-html",
        metavar="FOLDER",
        help="write the timeline of every scenario into this folder, as one HTML page per test",
    )
    group.addoption(
        "--scenario-stuck-after",
        metavar="SECONDS",
        type=float,
        help="seconds of real time without progress after which a run of a scenario counts as stuck; 0 for no limit",
    )
    parser.addini("scenario_stuck_after", help="the same as --scenario-stuck-after, which goes first")


@pytest.fixture
def scenario_settings() -> Mapping[str, Any] | str | Path | None:
    """Override it in a test module or conftest: the project's dagster.yaml, as a path or a mapping."""
    return None


@pytest.fixture
def scenario_timezone() -> str:
    """Override it in a test module or conftest: the time zone of times without an offset."""
    return "UTC"


@pytest.fixture
def scenario_class() -> type[Scenario]:
    """Override it in a test module or conftest: a Scenario class of your own, with verbs of your own."""
    from dagster_scenario import Scenario

    return Scenario


@pytest.fixture
def scenario(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    scenario_class: type[Scenario],
    scenario_settings: Mapping[str, Any] | str | Path | None,
    scenario_timezone: str,
) -> Iterator[Scenario]:
    """A scenario for the test, with nothing loaded, at 2024-01-01 00:00."""
    folder = tmp_path / "scenario"
    scenario = scenario_class(settings=scenario_settings, timezone=scenario_timezone, folder=folder)
    try:
        _set_stuck_after(scenario, request.config)
        asked_for = _page(request.node)
        request.node.stash[_OPEN] = scenario, asked_for or tmp_path / "timeline.html"
        yield scenario
        # After the test, before the clock is let go.
        if asked_for is not None:
            _write(asked_for, scenario)
        if not request.node.stash.get(_FAILED, False):
            scenario.check_faults()
    finally:
        scenario.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failed test shows the timeline of its scenario, unless the message has it already."""
    report = yield
    if call.when != "call":
        return report
    item.stash[_FAILED] = report.failed
    if report.failed and _OPEN in item.stash:
        scenario, page = item.stash[_OPEN]
        if "timeline" not in str(call.excinfo.value if call.excinfo else ""):
            lines = scenario.timeline.shortened(within=200) or [str(scenario.timeline)]
            report.sections.append(("Scenario timeline", "\n".join(lines)))
        _write(page, scenario)
        report.sections.append(("Scenario page", f"file://{page}"))
    return report


def _set_stuck_after(scenario: Scenario, config: pytest.Config) -> None:
    """What the option or the ini file say about runs that hang."""
    option = config.getoption("--scenario-stuck-after")
    setting = config.getini("scenario_stuck_after")
    seconds = option if option is not None else float(setting) if setting else None
    if seconds is not None:
        scenario.stuck_after = seconds or None


def _page(item: pytest.Item) -> Path | None:
    """Where the page of this test goes by the option, if it is given."""
    folder = item.config.getoption("--scenario-html")
    return item.config.invocation_params.dir / folder / _file_name(item.nodeid) if folder else None


def _write(page: Path, scenario: Scenario) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(scenario.timeline.html(), encoding="utf-8")


def _file_name(test: str) -> str:
    """A test's name as a file's. What is lost by that comes back as a few digits, so that no two are the same."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", test)
    return f"{name}-{hashlib.sha256(test.encode()).hexdigest()[:8]}.html"
