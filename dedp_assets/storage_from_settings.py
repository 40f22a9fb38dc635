"""The storage of Dagster's instance, with the password from the settings. docker/dagster.yaml names it."""

from collections.abc import Mapping
from typing import Any

from dagster._serdes import ConfigurableClassData

from dedp_assets import settings
from dedp_assets.resources.dagster_storage import PooledPostgresStorage


class StorageFromSettings(PooledPostgresStorage):
    """`PooledPostgresStorage`. A URL without a password gets that of DEDP_POSTGRES_PASSWORD_FILE.

    The URL in dagster.yaml, and what is handed from process to process, stay without it.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "StorageFromSettings":
        url = config_value.get("postgres_url")
        with_password = {"postgres_url": settings.with_password(url)} if url else {}
        storage = super().from_config_value(inst_data, {**config_value, **with_password})
        assert isinstance(storage, cls)
        return storage
