"""The storage of Dagster's instance, with the password from the settings. docker/dagster.yaml names it."""

from collections.abc import Mapping
from typing import Any

from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import make_url

from dedp_assets import settings
from dedp_assets.resources.dagster_storage import PooledPostgresStorage


class StorageFromSettings(PooledPostgresStorage):
    """`PooledPostgresStorage`. An address without a password gets that of DEDP_POSTGRES_PASSWORD_FILE.

    The address in dagster.yaml, and what is handed from process to process, stay without it.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "PooledPostgresStorage":
        url = config_value.get("postgres_url")
        return super().from_config_value(
            inst_data, {**config_value, "postgres_url": with_password(url)} if url else config_value
        )


def with_password(url: str) -> str:
    """Return a URL of PostgreSQL with the password of the settings, if it has none. Never log it.

    Raises:
        SettingError: the file of the password can't be used.
    """
    address = make_url(url)
    password = None if address.password or "password" in address.query else settings.postgres_password()
    return address.set(password=password).render_as_string(hide_password=False) if password else url
