"""The resources of the deployed code locations, built from the settings.

This is the one place where settings and resources meet: the classes in `dedp_assets.resources` read no setting. A
resource here reads the environment when it is used, and not when a module is imported.
"""

from dedp_assets import settings
from dedp_assets.notifications.resource import NotifierResource
from dedp_assets.resources import embedded_postgres, embedded_spark
from dedp_assets.resources.lake import LakeResource
from dedp_assets.resources.postgres import PostgresResource
from dedp_assets.resources.shared_spark import shared_url
from dedp_assets.resources.spark import SparkConnectResource


def database_dsn() -> str:
    """Return the address of the project's database. It may hold a password: never log it.

    Without DEDP_POSTGRES_DSN this starts the embedded server, if it does not run, and uses it until this process ends.

    Raises:
        SettingError: DEDP_POSTGRES_DSN is not an address.
        PostgresNotStarted: the embedded server does not start.
    """
    return settings.postgres_dsn() or embedded_postgres.attach(settings.make_home() / "postgres")


def spark_remote() -> str:
    """Return the Spark Connect endpoint to use. It may hold a token: never log it.

    Without DEDP_SPARK_REMOTE this is the server that the running system of this home shares. If no system runs, it is a
    server of this process. Its start takes seconds, and it ends with the process.

    Raises:
        SettingError: DEDP_SPARK_REMOTE is not an endpoint.
        SparkNotStarted: the embedded server does not start.
    """
    folder = settings.home() / "spark"
    return settings.spark_remote() or shared_url(folder) or embedded_spark.attach(folder, spark_size())


def spark_size() -> embedded_spark.Size:
    """Return the size of an embedded Spark server that has to start.

    Raises:
        SettingError: DEDP_SPARK_CORES or DEDP_SPARK_MEMORY can't be used.
    """
    default = embedded_spark.all_cores()
    return embedded_spark.Size(settings.spark_cores() or default.cores, settings.spark_memory() or default.memory)


class PostgresFromSettings(PostgresResource):
    """Connections to the database of the settings; to another one if run configuration gives a `dsn`."""

    def address(self) -> str:
        return self.dsn or database_dsn()


class SparkFromSettings(SparkConnectResource):
    """Spark on the endpoint of the settings; on another one if run configuration gives a `remote`."""

    def address(self) -> str:
        return self.remote or spark_remote()


class LakeFromSettings(LakeResource):
    """The Delta tables below DEDP_DATA_URI; elsewhere if run configuration gives a `uri`."""

    def address(self) -> str:
        return self.uri or settings.data_uri()


class NotifierFromSettings(NotifierResource):
    """Notifications to the target of the settings; to another one if run configuration gives a `target`."""

    def address(self) -> str:
        return self.target or settings.notify()
