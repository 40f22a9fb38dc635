"""A setting with a secret in it that can't be used: the message names the setting, and not the secret."""

from collections.abc import Callable

import pytest

from dedp_assets import settings
from dedp_assets.errors import SettingError

DATABASES = [
    "secret",
    "postgresql://u:se%cret@h/d",
    "postgresql://u:p@secret@h/d",
    "postgresql://u:p@sec/ret@h/d",
    "postgresql://u:sec/ret@h/d",
    "postgresql://u:secret@[h/d",
    "postgresql+psycopg2://u:secret@h/d",
    "mysql://u:secret@h/d",
    "host=h password=se cret",
    "host=h password='secret",
    " postgresql://u:secret@h/d",
]


@pytest.mark.parametrize("value", DATABASES)
@pytest.mark.parametrize(
    ("variable", "read"),
    [("DEDP_POSTGRES_DSN", settings.postgres_dsn), ("DEDP_DAGSTER_STORAGE", settings.dagster_storage)],
)
def test_an_address_of_a_database_with_a_password_that_is_not_escaped(
    variable: str, read: Callable[[], str | None], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the password would be taken for the host, the port or the database, which each error names."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingError, match=f"{variable} is not an address of a PostgreSQL server") as error:
        read()
    assert "sec" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize("value", ["postgresql://u:%40%2F@h/d", "postgresql://u@[::1]:5432/d", "postgresql:///d"])
def test_an_address_of_a_database_that_is_one(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", value)
    assert settings.postgres_dsn() == value
    monkeypatch.setenv("DEDP_POSTGRES_DSN", "host=@socket user=u")
    assert settings.postgres_dsn() == "host=@socket user=u"
    monkeypatch.setenv("DEDP_DAGSTER_STORAGE", value)
    assert settings.dagster_storage() == value


@pytest.mark.parametrize("value", ["SC://h:1/;token=secret", " sc://h:1/;token=secret", "https://h/?token=secret"])
def test_an_endpoint_of_spark_with_a_token(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_SPARK_REMOTE", value)
    with pytest.raises(SettingError, match="DEDP_SPARK_REMOTE is not a Spark Connect endpoint") as error:
        settings.spark_remote()
    assert "secret" not in str(error.value)
