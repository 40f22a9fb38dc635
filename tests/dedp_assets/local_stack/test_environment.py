"""Where the processes and the commands of a system find Dagster's own tables."""

from pathlib import Path

import pytest

from dedp_assets import local_stack

OURS = "postgresql://dedp@db.example.org/dedp"
THEIRS = "postgresql://dagster@other.example.org/dagster"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


def test_dagsters_tables_are_beside_ours_unless_the_deployment_names_another_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", OURS)
    monkeypatch.delenv("DEDP_DAGSTER_STORAGE", raising=False)
    with local_stack.environment() as shared:
        assert shared["DEDP_DAGSTER_STORAGE"] == local_stack.in_dagster_schema(OURS)
    monkeypatch.setenv("DEDP_DAGSTER_STORAGE", THEIRS)
    with local_stack.environment() as shared:
        assert shared["DEDP_DAGSTER_STORAGE"] == THEIRS


def test_no_schema_is_made_for_tables_that_are_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "postgresql://nobody@127.0.0.1:1/none")  # connecting would fail
    monkeypatch.setenv("DEDP_DAGSTER_STORAGE", THEIRS)
    with local_stack.environment() as shared:
        local_stack.create_instance_schema(shared)
