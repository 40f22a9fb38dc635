"""The page on relations: its table names tests and examples that exist, and its code is the examples' code."""

import ast
import re
from pathlib import Path

import pytest

import dedp_assets

REPOSITORY = Path(dedp_assets.__file__).parent.parent
PAGE = (REPOSITORY / "docs" / "relations.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.search(r"`test_\w+\.py::", line)]


def test_each_row_of_the_table_names_a_test_and_an_example_that_exist() -> None:
    assert len(ROWS) >= 10
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        for file, test in re.findall(r"`(test_\w+\.py)::(\w+)`", cells[-1]):
            (path,) = (REPOSITORY / "tests").rglob(file)
            functions = {
                node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
            }
            assert test in functions, f"{file} has no {test}"
        for example in re.findall(r"`(\w+\.py)`", cells[3]):
            assert (REPOSITORY / "examples" / "relations" / example).is_file(), example


def test_each_scenario_of_a_relation_is_in_the_table_or_near_one_that_is() -> None:
    files = {path.name for path in (REPOSITORY / "tests" / "scenarios").glob("test_relations_*.py")}
    assert files == {file for row in ROWS for file in re.findall(r"`(test_relations_\w+\.py)::", row)}


@pytest.mark.parametrize("block", re.findall(r"```python\n# ((?:examples|dedp_assets)/.+?)\n(.*?)```", PAGE, re.DOTALL))
def test_the_code_on_the_page_is_that_of_the_file_that_it_names(block: tuple[str, str]) -> None:
    file, code = block
    assert code in (REPOSITORY / file).read_text(encoding="utf-8")


def test_links_to_sections_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
