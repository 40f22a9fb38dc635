"""Each row of the table in docs/airflow-to-dagster.md has a verdict, an example and a test that exist."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import dedp_assets

REPOSITORY = Path(dedp_assets.__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGE = (DOCS / "airflow-to-dagster.md").read_text()
VERDICTS = {"same", "better", "different", "weaker", "missing"}


CONCEPTS = """
    poke reschedule deferrable timeout TriggerDagRunOperator ExternalTaskSensor ExternalTaskMarker
    downstream past future recursive catchup backfill start_date depends_on_past max_active_runs concurrency
    parallelism pool priority_weight retries exponential_backoff execution_timeout XCom conf Branch SubDAG template
    idempotent sla callback scheduled__ tasks&test REST trigger failed executors operator schedule worker_concurrency
    schedule=[asset] AssetWatcher partitioned&assets mappers deadline asset&aliases DAG&versions backfills&in&the&UI
"""


class Row(NamedTuple):
    airflow: str
    here: str
    verdict: str
    example: str
    test: str


def rows_of(page: str) -> list[Row]:
    """The rows of the first table, without its headings, which have one cell that is bold."""
    table = page[page.index("| --- |") :].split("\n\n")[0].splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [Row(*row) for row in cells if not (row[0].startswith("**") and not any(row[1:]))]


def faults_of(row: Row) -> list[str]:
    """What a row lacks."""
    faults = [] if row.verdict in VERDICTS else [f"no verdict: {row.verdict!r}"]
    example = re.fullmatch(r"\[(.+)\]\((.+)\)", row.example)
    if not example or not (DOCS / example[2]).is_file():
        faults.append(f"no example: {row.example!r}")
    test = re.fullmatch(r"\[test\]\((.+) \"(test_\w+)\"\)", row.test)
    if not test or not (DOCS / test[1]).is_file() or test[2] not in functions_of(DOCS / test[1]):
        faults.append(f"no test: {row.test!r}")
    return faults if row.airflow and row.here else [*faults, "an empty cell"]


def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", rows_of(PAGE), ids=lambda row: row.airflow)
def test_a_row_has_a_verdict_an_example_and_a_test(row: Row) -> None:
    assert faults_of(row) == []


def test_every_concept_of_the_notes_and_of_airflow_3_has_a_row() -> None:
    concepts = " ".join(row.airflow for row in rows_of(PAGE))
    for concept in CONCEPTS.split():
        assert concept.replace("&", " ") in concepts, concept


def test_every_rule_is_in_the_table_of_rules() -> None:
    from dedp_assets.cookbook.trigger_rules import RULES

    section = PAGE[PAGE.index("## Trigger rules") : PAGE.index("## Time limits")]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == RULES.keys()


def test_every_example_has_a_row() -> None:
    examples = {path.name for path in (REPOSITORY / "dedp_assets" / "cookbook").iterdir() if path.is_file()}
    parts = {"__init__.py", "three_tasks.py"}
    assert {name for name in examples - parts if f"/cookbook/{name})" not in PAGE} == set()


def test_every_link_of_the_page_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^) ]+)", PAGE):
        file, _, anchor = target.partition("#")
        page = (DOCS / file) if file else DOCS / "airflow-to-dagster.md"
        assert page.exists(), target
        assert not anchor or anchor in anchors_of(page.read_text()), target


def anchors_of(page: str) -> set[str]:
    """The anchors that a forge gives to the titles of a page."""
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", page, re.M)}


GOOD = rows_of(PAGE)[0]


@pytest.mark.parametrize(
    "row",
    [
        GOOD._replace(verdict=""),
        GOOD._replace(verdict="good"),
        GOOD._replace(example=""),
        GOOD._replace(example="[x](../dedp_assets/cookbook/nothing.py)"),
        GOOD._replace(test=""),
        GOOD._replace(test='[test](../tests/cookbook/test_waiting.py "test_that_is_not_there")'),
        GOOD._replace(test='[test](../tests/cookbook/test_nothing.py "test_x")'),
        GOOD._replace(here=""),
    ],
)
def test_a_row_that_lacks_something_is_found(row: Row) -> None:
    assert len(faults_of(row)) == 1
