"""The code of every recipe runs, as it stands on the page."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

RECIPES = Path(__file__).parents[1] / "docs" / "recipes.md"
CODE = dict(re.findall(r'^```python title="([^"]+)"\n(.*?)^```$', RECIPES.read_text("utf-8"), re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What became of the tests of each recipe: a line of its failure, or nothing."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, code in CODE.items():
        (folder / name).write_text(code, encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "DAGSTER"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", "junit.xml", "."]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(folder / "junit.xml").getroot().iter("testcase"):
        name = f"{case.attrib['classname'].split('.')[0]}.py"
        found.setdefault(name, []).append("".join(part.text or "" for part in case if part.tag != "system-out"))
    assert found, done.stdout + done.stderr
    return found


def test_there_is_a_recipe_under_each_heading() -> None:
    text = RECIPES.read_text(encoding="utf-8")
    assert len(re.findall(r"^## \d+\. ", text, re.MULTILINE)) == len(CODE) == text.count("```python") == 10


@pytest.mark.parametrize("recipe", CODE)
def test_the_code_of_a_recipe_runs(recipe: str, outcomes: dict[str, list[str]]) -> None:
    assert outcomes[recipe]
    assert [said for said in outcomes[recipe] if said] == []
