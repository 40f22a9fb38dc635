"""Where the processes and the commands of a system find Dagster's own tables."""

from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from dedp_assets import local_stack
from dedp_assets.local_stack.environment import in_schema

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


@pytest.mark.parametrize("schema", ["dagster", "their tables"])
def test_the_schema_of_dagsters_tables_is_made_where_they_are(
    dsn: str, empty_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    monkeypatch.setenv("DEDP_DAGSTER_STORAGE", in_schema(empty_dsn, f'"{schema}"'.replace(" ", "\\ ")))
    with local_stack.environment() as shared:
        for _ in range(2):
            local_stack.create_instance_schema(shared)
    assert schemas(empty_dsn) == {schema}
    assert schemas(dsn) == {"dedp"}


def test_without_a_schema_in_their_address_dagsters_tables_are_in_the_public_one(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", empty_dsn)
    monkeypatch.setenv("DEDP_DAGSTER_STORAGE", empty_dsn)
    with local_stack.environment() as shared:
        local_stack.create_instance_schema(shared)
    assert schemas(empty_dsn) == set()


def schemas(dsn: str) -> set[str]:
    """The names of the schemas in a database, but for those that every database has."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname !~ '^dedp_'")
        return {name for (name,) in cursor.fetchall()} - {"public", "information_schema"}
