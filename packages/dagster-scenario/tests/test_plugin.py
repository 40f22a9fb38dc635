"""The pytest plugin: found by itself, light until it is used, and of help when a test fails."""

import subprocess
import sys
from pathlib import Path

import pytest

TEST = """
import dagster as dg
import pytest

@dg.asset
def orders(): ...

def test_it(scenario):
    scenario.load(dg.Definitions(assets=[orders]))
    scenario.materialize("orders")
    scenario.run_until_quiet()
    {ending}
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without its summary (-rN), in which pytest repeats the whole message of a failure where the environment has CI.
    command = [sys.executable, "-m", "pytest", "-rN", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run([*command, *arguments, str(folder)], capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize(
    ("ending", "outcome", "said"),
    [
        ("scenario.expect('orders').materialized(times=1)", "1 passed", ""),
        ("scenario.expect('orders').not_materialized()", "1 failed", "materialized  run 1   orders"),
        ("assert scenario.now.hour == 12", "1 failed", "materialized  run 1   orders"),
        ("scenario.fail('orders')", "1 error", "nothing came to where it was told to fail orders at its start"),
        ("scenario.fail('orders'); assert 0", "1 failed", "materialized  run 1   orders"),
    ],
    ids=["passes", "expectation", "assert", "fault", "assert and fault"],
)
def test_a_failed_test_shows_the_timeline(tmp_path: Path, ending: str, outcome: str, said: str) -> None:
    (tmp_path / "test_story.py").write_text(TEST.format(ending=ending), encoding="utf-8")
    done = run_pytest(tmp_path, "--scenario-html", "pages")
    assert outcome in done.stdout.splitlines()[-1]
    assert ("error" in outcome) == (" error" in done.stdout.splitlines()[-1]), "its faults are not checked as well"
    assert said in done.stdout
    (page,) = (tmp_path / "pages").iterdir()
    assert "orders" in page.read_text(encoding="utf-8")
    if "failed" in outcome:
        assert done.stdout.count("started       run 1   orders") == 1, "once, not again as a section of its own"
        assert f"file://{page}" in done.stdout


def test_a_failed_test_leaves_a_page_without_being_asked(tmp_path: Path) -> None:
    (tmp_path / "test_story.py").write_text(TEST.format(ending="assert 0"), encoding="utf-8")
    done = run_pytest(tmp_path, "--basetemp", str(tmp_path / "kept"))
    (page,) = (tmp_path / "kept").rglob("timeline.html")
    assert f"file://{page}" in done.stdout
    assert "orders" in page.read_text(encoding="utf-8")


def test_fixtures_of_the_project_set_it_up(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef scenario_settings(): return {'run_monitoring': {'enabled': True}}\n"
        "@pytest.fixture\ndef scenario_timezone(): return 'Europe/Berlin'\n",
        encoding="utf-8",
    )
    (tmp_path / "test_story.py").write_text(
        "def test_it(scenario):\n"
        "    assert scenario.instance.run_monitoring_enabled\n"
        "    assert str(scenario.now.tzinfo) == 'Europe/Berlin'\n",
        encoding="utf-8",
    )
    assert "1 passed" in run_pytest(tmp_path).stdout


def test_a_project_that_does_not_use_it_does_not_pay_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\ndef test_it():\n    assert 'dagster' not in sys.modules\n",
        encoding="utf-8",
    )
    assert "1 passed" in run_pytest(tmp_path).stdout


def test_a_project_can_have_verbs_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "from dagster_scenario import Scenario, verb\n"
        "class Shop(Scenario):\n"
        "    @verb('{supplier} delivers')\n"
        "    def deliver(self, supplier): ...\n"
        "@pytest.fixture\ndef scenario_class(): return Shop\n",
        encoding="utf-8",
    )
    (tmp_path / "test_story.py").write_text(
        "def test_it(scenario):\n    scenario.deliver('the farm')\n    assert 0\n", encoding="utf-8"
    )
    assert "world                 the farm delivers" in run_pytest(tmp_path).stdout
