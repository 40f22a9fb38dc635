"""docs/operations.md says of everything that is kept what it grows with, and who deletes it."""

import re

from dedp_assets import settings
from dedp_assets.retention._dagster import GROWING, OF_RUNS_UNDER_WAY

PAGE = (settings.REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("\n## What is kept\n") : PAGE.index("\n### Old files of Delta tables\n")]
NAMED = set(re.findall(r"`(?:\w+\.)?(\w+)`", SECTION))


def test_each_table_that_a_migration_makes_is_in_the_list() -> None:
    migrations = (settings.REPOSITORY / "dedp_assets").rglob("migrations/*.sql")
    texts = [path.read_text(encoding="utf-8") for path in migrations]
    made = {name for text in texts for name in re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?\w+\.(\w+)", text)}
    assert len(made) > 20
    assert made - NAMED == set()


def test_each_table_of_dagster_that_grows_is_in_the_list() -> None:
    assert {*GROWING, *OF_RUNS_UNDER_WAY} - NAMED == set()
