"""The resources of the code locations follow the settings, and read them only when they are used."""

from pathlib import Path

import dagster as dg
import pytest

from dedp_assets.errors import DedpError, SettingError
from dedp_assets.resources.postgres import PostgresResource, UnusableDatabase
from dedp_assets.resources.spark import SparkConnectResource, SparkUnreachable
from dedp_assets.resources_from_settings import PostgresFromSettings, SparkFromSettings


def test_the_database_is_the_one_that_the_settings_name_when_it_is_used(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres = PostgresFromSettings()
    monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
    with postgres.connect() as connection:
        assert dsn.endswith(f"/{connection.info.dbname}") or f"/{connection.info.dbname}?" in dsn


def test_an_address_in_run_configuration_comes_before_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "postgresql://settings/database")
    monkeypatch.setenv("DEDP_SPARK_REMOTE", "sc://settings:15002")
    found: list[str] = []

    @dg.op
    def note(postgres: PostgresResource, spark: SparkConnectResource) -> None:
        found.extend([postgres.address(), spark.address()])

    @dg.job(resource_defs={"postgres": PostgresFromSettings(), "spark": SparkFromSettings()})
    def notes() -> None:
        note()

    assert notes.execute_in_process().success
    given = {
        "postgres": {"config": {"dsn": "postgresql://given/database"}},
        "spark": {"config": {"remote": "sc://given"}},
    }
    assert notes.execute_in_process(run_config={"resources": given}).success
    assert found == [
        *("postgresql://settings/database", "sc://settings:15002"),
        *("postgresql://given/database", "sc://given"),
    ]


def test_a_wrong_setting_is_an_error_where_the_resource_is_used_and_not_before(
    monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "nonsense")
    monkeypatch.setenv("DEDP_SPARK_REMOTE", "nonsense")
    postgres, spark = PostgresFromSettings(), SparkFromSettings()
    with pytest.raises(SettingError, match="DEDP_POSTGRES_DSN"), postgres.connect():
        pass
    with pytest.raises(SettingError, match="DEDP_SPARK_REMOTE"):
        _ = spark.session
    assert list(own_home.iterdir()) == []


@pytest.mark.parametrize(
    ("resource", "error", "setting"),
    [
        (PostgresResource(), UnusableDatabase, "DEDP_POSTGRES_DSN"),
        (SparkConnectResource(), SparkUnreachable, "DEDP_SPARK_REMOTE"),
    ],
)
def test_a_resource_without_an_address_names_what_it_needs(
    resource: PostgresResource | SparkConnectResource, error: type[DedpError], setting: str
) -> None:
    with pytest.raises(error, match=f"has no .*{setting}"):
        resource.address()
