"""The harness in the hands of others: a project that knows nothing of this one, installed and tested as its team would.

tests/foreign/orchard has its own packaging, pytest settings and stories. Here it is built, unpacked where Python finds
it, and its tests are run from its own folder, by a user who has no home to write to.
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

ORCHARD = Path(__file__).parent / "foreign" / "orchard"

# What a page would load from another file, or another machine.
ELSEWHERE = re.compile(
    r"""<link\b[^>]*>|@import\b[^;]*|\b(?:src|href)=["']?[^"'#>][^>]*|url\((?!["']?(?:#|data:))[^)]*"""
)

Pytest = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def orchard(tmp_path: Path) -> Path:
    """A checkout of the project whose package is installed from its wheel, not found in the checkout."""
    checkout = tmp_path / "orchard"
    shutil.copytree(ORCHARD, checkout, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    # Its own build backend, called as pip would; pip itself may not be there, nor a network.
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    wheel = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=checkout,
        env=_own_environment(),
        capture_output=True,
        text=True,
    )
    assert wheel.returncode == 0, wheel.stderr
    zipfile.ZipFile(tmp_path / wheel.stdout.split()[-1]).extractall(tmp_path / "installed")
    shutil.rmtree(checkout / "src")
    return checkout


@pytest.fixture
def run_pytest(orchard: Path) -> Pytest:
    """`python -m pytest` in the project's folder."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=orchard,
            env=_own_environment(PYTHONPATH=str(orchard.parent / "installed")),
            capture_output=True,
            text=True,
        )

    return run


def _own_environment(**more: str) -> dict[str, str]:
    """Nothing of this test session, and no home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON", "DAGSTER"))}
    return {**kept, "HOME": os.devnull, "COLUMNS": "120", **more}


def test_its_stories_pass_with_a_page_for_each(orchard: Path, run_pytest: Pytest) -> None:
    said = run_pytest("-n", "2", "--scenario-html", "pages", "--junitxml", "junit.xml")
    assert said.returncode == 0, said.stdout + said.stderr

    suite = ElementTree.parse(orchard / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    outcome = {name: int(suite.attrib[name]) for name in ("errors", "failures", "skipped")}
    assert outcome == {"errors": 0, "failures": 0, "skipped": 0}
    assert int(suite.attrib["tests"]) >= 40

    # It ran as a project of its own, and found the harness by its entry point.
    assert f"rootdir: {orchard}\n" in said.stdout
    assert re.search(r"^plugins: .*dagster-scenario-", said.stdout, re.MULTILINE)

    pages = {page.name: page.read_text(encoding="utf-8") for page in (orchard / "pages").iterdir()}
    told = [case.attrib["name"] for case in suite.iter("testcase") if "determinism" not in case.attrib["classname"]]
    assert len(pages) == len(told)
    assert all(any(name.split("[")[0] in page for page in pages) for name in told)
    for name, page in pages.items():
        assert page.lower().startswith("<!doctype html>"), name
        assert not ELSEWHERE.findall(page), name


def test_a_story_that_fails_tells_what_happened(orchard: Path, run_pytest: Pytest) -> None:
    (orchard / "tests" / "test_failing.py").write_text(
        textwrap.dedent(
            """
            def test_an_expectation(buying):
                buying.materialize("tariffs")
                buying.run_until_quiet()
                buying.expect("landed_costs").materialized("apple", "cherry")

            def test_an_assertion_of_its_own(buying):
                buying.materialize("tariffs")
                buying.run_until_quiet()
                assert buying.timeline.runs == {}

            def test_an_error_on_the_way(buying):
                buying.materialize("tarifs")
            """
        ),
        encoding="utf-8",
    )
    said = run_pytest("tests/test_failing.py", "--scenario-html", "pages")
    assert said.returncode == 1, said.stdout + said.stderr
    by_expectation, by_assertion, by_error = re.split(r"^_+ test_\w+ _+$", said.stdout, flags=re.MULTILINE)[1:]

    assert "expected landed_costs to be materialized for apple, cherry (in this order), but it was" in by_expectation
    for story in (by_expectation, by_assertion):
        assert re.search(r"requested +run 1 +tariffs +\(by hand\)", story)
        assert re.search(r"materialized +run 4 +landed_costs \[pear\]", story)
        assert story.count("(by hand)") == 1
    assert "Scenario timeline" in by_assertion
    assert "no asset 'tarifs' in the loaded code locations. Did you mean 'tariffs'" in by_error
    assert len(list((orchard / "pages").iterdir())) == 3


def test_it_is_not_collected_with_the_tests_of_this_package() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/foreign",
        ],
        cwd=ORCHARD.parents[2],
        env=_own_environment(),
        capture_output=True,
        text=True,
    )
    assert "no tests collected" in said.stdout
