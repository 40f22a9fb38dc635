"""The resources of the deployed code locations, built from the settings.

This is the one place where settings and resources meet: the classes in `dedp_assets.resources` read no setting. A
resource here reads the environment when it is used, and not when a module is imported.
"""

from dedp_assets import settings
from dedp_assets.errors import SettingError
from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.resources.lake import LakeResource
from dedp_assets.resources.postgres import PostgresResource
from dedp_assets.resources.spark import SparkConnectResource
from dedp_assets.servers_from_settings import database_dsn, spark_remote


def _chosen(field: str, value: str | None) -> str | None:
    """What the config of a run says, if it may say so: who launches a run then chooses where we connect to."""
    if value and not settings.run_config_may_have_addresses():
        # Not the value: it may hold a password.
        raise SettingError(
            f"the run config gives {field}, and DEDP_RUN_CONFIG_ADDRESSES is off; leave it out, and the run uses the "
            "servers and folders of the settings"
        )
    return value


class PostgresFromSettings(PostgresResource):
    """Connections to the database of the settings; to another one if run configuration gives a `dsn`."""

    def address(self) -> str:
        return _chosen("postgres.dsn", self.dsn) or database_dsn()


class SparkFromSettings(SparkConnectResource):
    """Spark on the endpoint of the settings; on another one if run configuration gives a `remote`."""

    def address(self) -> str:
        return _chosen("spark.remote", self.remote) or spark_remote()


class LakeFromSettings(LakeResource):
    """The Delta tables below DEDP_DATA_URI; elsewhere if run configuration gives a `uri`."""

    def address(self) -> str:
        return _chosen("lake.uri", self.uri) or settings.data_uri()


class NotifierFromSettings(NotifierResource):
    """Notifications to the target of the settings; to another one if run configuration gives a `target`."""

    def address(self) -> str:
        return _chosen("notifier.target", self.target) or settings.notify()

    def smtp_login(self) -> tuple[str, str] | None:
        return settings.smtp_login()
