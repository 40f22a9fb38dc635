"""The Spark session that all assets of a process share, on a Spark Connect server."""

import atexit
import contextlib
import os
import re
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg

from dedp_assets.errors import TransientError

if TYPE_CHECKING:  # its import takes a second, which a process without Spark assets need not spend
    from pyspark.sql.connect.session import SparkSession

# They take about 8 s. The default takes more than ten minutes, without any message.
_ATTEMPTS = 6


class SparkUnreachable(TransientError):
    """The Spark Connect server can't be used. The message names the endpoint, the reason and what to do."""


class SparkConnectResource(dg.ConfigurableResource[Any]):
    """Spark on the endpoint `remote`. `resources_from_settings` has the resource that follows the settings."""

    remote: str | None = None

    def address(self) -> str:
        """Return the endpoint, such as sc://host:15002. Raises SparkUnreachable if `remote` is not given."""
        if self.remote is None:
            raise SparkUnreachable(
                "the resource for Spark has no endpoint; give it a `remote` such as sc://localhost:15002, "
                "or use DEDP_SPARK_REMOTE"
            )
        return self.remote

    @property
    def session(self) -> "SparkSession":
        """The session of this process, whose server has just answered. Ask for it at every use, and do not keep it.

        Raises:
            SparkUnreachable: the server does not answer.
            SparkNotStarted: an embedded server is to be used, and does not start.
        """
        remote = self.address()
        try:
            return _shared.on(remote)
        except SparkUnreachable:
            # The attempts took seconds. Meanwhile a shared server that had just died may have been replaced.
            replaced = self.address()
            if replaced == remote:
                raise
            return _shared.on(replaced)


class _SharedSession:
    """The session of this process. It is replaced if its server has gone or forgotten it, and for another endpoint."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._remote = ""
        self._session: SparkSession | None = None

    def on(self, remote: str) -> "SparkSession":
        with self._lock:
            if self._session is not None and (self._remote != remote or _problem(self._session) is not None):
                # Stop it, or the library returns it again. Do not tell the server, which may be gone.
                self._session.release_session_on_close = False
                self._session.stop()
                self._session = None
            if self._session is None:
                self._session, self._remote = _opened(remote), remote
            return self._session


_shared = _SharedSession()


def _opened(remote: str) -> "SparkSession":
    from dagster_pyspark import LazyPySparkResource
    from pyspark.sql.connect.client.retries import DefaultPolicy

    _check_is_first()
    _avoid_proxy(remote)
    session: SparkSession = LazyPySparkResource(spark_config={"spark.remote": remote}).spark_session
    policy = DefaultPolicy(_ATTEMPTS, initial_backoff=50, backoff_multiplier=4, max_backoff=2000, jitter=0)
    session.client.set_retry_policies([policy])
    _lift_deadlines(session)
    atexit.register(_close, session)
    problem = _problem(session)
    if problem is not None:
        _close(session)
        raise SparkUnreachable(_unreachable(remote, problem)) from problem
    return session


def _check_is_first() -> None:
    # The library returns a session that is already open, even if it is on another server.
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql.connect.session import SparkSession

    with contextlib.suppress(PySparkRuntimeError):
        other = SparkSession.active()
        raise SparkUnreachable(
            f"this process has a Spark session on {other.client.host} that SparkConnectResource did not open; "
            "call its stop() first, because a process has only one session"
        )


def _avoid_proxy(remote: str) -> None:
    # By default gRPC uses `http_proxy` even for a server on this machine.
    host = urlsplit(remote).hostname or ""
    names = "no_grpc_proxy", "no_proxy"
    direct = next((os.environ[name] for name in names if os.environ.get(name)), "")
    if host in ("localhost", "127.0.0.1", "::1") and host not in direct.split(","):
        os.environ[names[0]] = f"{direct},{host}".lstrip(",")


def _lift_deadlines(session: "SparkSession") -> None:
    """Remove the deadlines of calls to the server.

    gRPC in Python computes deadlines from `time.time()`: if the clock jumps or is simulated, every call would be late.
    A server that has gone shows in the connection.
    """
    client: Any = session.client
    if hasattr(client, "_rpc_deadlines"):  # pyspark 4.3
        client._rpc_deadlines = client._rpc_deadlines.disabled()
        client._artifact_manager._add_artifacts_timeout = None
        client._artifact_manager._artifact_status_timeout = None


def _problem(session: "SparkSession") -> Exception | None:
    """Return why the server of the session does not answer, or None if it answers."""
    try:
        session.conf.get("spark.sql.session.timeZone")
    except Exception as problem:
        return problem
    return None


def _close(session: "SparkSession") -> None:
    """End the session on its server, in one attempt: do not wait for a server that has gone."""
    session.client.set_retry_policies([])
    session.stop()


def _unreachable(remote: str, problem: Exception) -> str:
    details = re.search(r'details = "(.*)"', str(problem))
    reason = details[1] if details else str(problem).strip().partition("\n")[0]
    return (
        f"the Spark Connect server at {remote.partition('/;')[0]} can't be used: {reason}. "
        "Is it running? DEDP_SPARK_REMOTE names the server, with its token if it wants one; "
        "unset, an embedded server is used"
    )
