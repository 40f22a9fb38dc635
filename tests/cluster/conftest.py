"""One Spark cluster for the tests in this folder. They need a Java on the machine: `make test-cluster`."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pyspark.errors import PySparkRuntimeError
from pyspark.sql.connect.session import SparkSession

from tests.cluster.spark_cluster import WORKERS, Cluster, find_java


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the whole session. It may have lost workers, so use the fixture `cluster`."""
    java_home = find_java()
    if java_home is None:
        pytest.exit(
            "the tests on a Spark cluster need a JDK 17 to 24, and none was found in JAVA_HOME, on PATH and below "
            "/usr/lib/jvm. On Debian and Ubuntu: apt-get install openjdk-17-jre-headless",
            returncode=1,
        )
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), java_home)
    try:
        cluster.start()
        yield cluster
        with suppress(PySparkRuntimeError):  # no session was opened
            SparkSession.active().stop()  # while there is a server to say good-bye to
    finally:
        cluster.stop()


@pytest.fixture
def cluster(running_cluster: Cluster, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster with two workers, whose Connect server is this test's DEDP_SPARK_REMOTE."""
    while len(running_cluster.workers) < WORKERS:
        running_cluster.add_worker()
    monkeypatch.setenv("DEDP_SPARK_REMOTE", running_cluster.remote)
    return running_cluster
