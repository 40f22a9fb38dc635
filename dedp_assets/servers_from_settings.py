"""The servers that the settings name, or the embedded ones in their place.

Commands and the supervisor of the system need them, too: nothing here imports Dagster.
"""

from dedp_assets import settings
from dedp_assets.resources import embedded_postgres, embedded_spark
from dedp_assets.resources.shared_spark import shared_url


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
