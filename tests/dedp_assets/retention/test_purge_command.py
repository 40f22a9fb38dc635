"""`dedp purge` on a system of its own, as a person runs it."""

from contextlib import closing

import psycopg2
import pytest

from tests.dedp_command import run_dedp


@pytest.mark.parametrize("age", ["90", "0d", "soon", "-1d"])
def test_an_age_that_is_none_is_refused_with_what_is_expected(age: str) -> None:
    refused = run_dedp("purge", f"--older-than={age}")
    assert refused.returncode == 2
    assert f"'{age}' is not an age; expected a number of days or weeks, such as 90d or 12w" in refused.stderr


@pytest.mark.slow
def test_a_new_system_has_nothing_to_purge(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", empty_dsn)
    done = run_dedp("purge", "--older-than", "12w", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Would be deleted:\n")
    assert "           0  events\n" in done.stdout


@pytest.mark.slow
def test_a_deployment_that_names_dagsters_storage_is_purged_there(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DEDP_POSTGRES_DSN", "DEDP_DAGSTER_STORAGE"):
        monkeypatch.setenv(name, empty_dsn)
    done = run_dedp("purge", "--older-than", "12w")
    assert done.returncode == 0, done.stderr
    with closing(psycopg2.connect(empty_dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.runs') IS NOT NULL, to_regnamespace('dagster') IS NULL")
        assert cursor.fetchone() == (True, True)
