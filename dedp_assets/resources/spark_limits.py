"""Limits of a Spark workload that are really applied: time, cores and memory.

Over Spark Connect a client can't choose how large the server is: cores and memory are settings of the server's start.
What a client can do, and what `LimitedSpark` does:

time    The queries of a run share one time limit. A query that is past it is cancelled on the server.
cores   A stage of a query gets at most so many tasks, so it keeps at most so many cores busy. And the server says how
        many cores it was started with: a run that asks for more fails at once.
memory  The server says how much memory it was started with. A run that asks for more fails at once. The server's own
        limit is what holds: its Java heap can't grow beyond it.
"""

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import dagster as dg
from pydantic import Field

from dedp_assets.errors import PermanentError, SettingError, TransientError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.connect.session import SparkSession

T = TypeVar("T")

TIMEOUT_SECONDS = 600.0

# Spark's own default for a driver and for an executor, in its words.
_DEFAULT_MEMORY = "1g"
_UNITS = {"": 1 << 20, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

# A cancelled query ends within this time, unless its server hangs.
_GRACE_SECONDS = 30.0
_CANCEL_AGAIN_SECONDS = 1.0
_LONGEST_REASON = 500


class OutOfTime(PermanentError):
    """A run is past its time limit. Its query was cancelled, and it has written nothing."""


class LimitsNotGiven(PermanentError):
    """The Spark server has fewer cores or less memory than the run asks for."""


class SparkFailed(TransientError):
    """A query failed. The next attempt may succeed: the server has gone, or an executor was lost."""


class FilesNotSeen(PermanentError):
    """Spark does not see the files that it should read."""


class SparkLimits(dg.Config):
    """What a run may use of Spark, as the configuration of its asset."""

    cores: int | None = Field(
        default=None,
        ge=1,
        description="A stage of a query has at most so many tasks at once. None: as the server likes.",
    )
    memory: str | None = Field(
        default=None, description="The server must have at least so much for an executor, such as 5g. None: any."
    )
    timeout_seconds: float = Field(
        default=TIMEOUT_SECONDS, gt=0, description="All queries of the run together may take so long, in s."
    )


class Given(NamedTuple):
    """What a server was started with.

    Attributes:
        master: where its tasks run, such as local[2] or spark://host:7077.
        cores: how many cores it may use, or None if it does not say.
        memory: the memory of an executor, in Spark's words. With a local master, it is the memory of the server itself.
    """

    master: str
    cores: int | None
    memory: str


def given_by(setting: Callable[[str], str | None]) -> Given:
    """What a server was started with, from its settings.

    Args:
        setting: gives the value of a setting, or None if it is not set.
    """
    master = setting("spark.master") or "unknown"
    local = re.fullmatch(r"local(\[(\d+|\*)(,\d+)?\])?", master)
    cores = (local[2] if local[1] else "1") if local else setting("spark.cores.max") or ""
    memory = setting("spark.driver.memory" if local else "spark.executor.memory") or _DEFAULT_MEMORY
    return Given(master, int(cores) if cores.isdigit() else None, memory)


def check_given(limits: SparkLimits, given: Given) -> None:
    """Check that a server has what a run asks for.

    Raises:
        LimitsNotGiven: it has fewer cores or less memory, or does not say how many cores it has.
        SettingError: the configured memory is not an amount of memory.
    """
    if limits.cores is not None and (given.cores is None or given.cores < limits.cores):
        found = "does not say how many cores it has" if given.cores is None else f"has {_counted(given.cores)}"
        raise LimitsNotGiven(
            f"the Spark server (spark.master={given.master}) {found}, and the run asks for `cores: {limits.cores}`; "
            f"ask for fewer, or start the server with more: the embedded one with DEDP_SPARK_CORES={limits.cores}, "
            f"another one with spark.master=local[{limits.cores}] or, on a cluster, spark.cores.max={limits.cores}"
        )
    if limits.memory is not None and memory_bytes(given.memory) < memory_bytes(limits.memory):
        raise LimitsNotGiven(
            f"an executor of the Spark server (spark.master={given.master}) has {given.memory} of memory, and the run "
            f"asks for `memory: {limits.memory}`; ask for less, or start the server with more: the embedded one with "
            f"DEDP_SPARK_MEMORY={limits.memory}, another one with spark.driver.memory={limits.memory} or, on a "
            f"cluster, spark.executor.memory={limits.memory}"
        )


def memory_bytes(text: str) -> int:
    """An amount of memory in Spark's words, such as 512m or 5g, in bytes. A number alone is in MiB, as in Spark.

    Raises:
        SettingError: the text is not such an amount.
    """
    found = re.fullmatch(r"(\d+)([bkmgt]?)b?", text.strip().lower())
    if found is None or int(found[1]) == 0:
        raise SettingError(f"{text!r} is not an amount of memory; expected one such as 512m or 5g")
    return int(found[1]) * _UNITS[found[2]]


class LimitedSpark:
    """A Spark session for one run, within limits. The time of the run begins when this is made.

    Args:
        session: opens the session. It is called at every use, so that a retry gets a session on a new server.
        limits: the limits of the run.

    Raises:
        LimitsNotGiven: the server can't give what the run asks for.
        SettingError: an amount of memory can't be read.
        DedpError: the session can't be opened.
    """

    def __init__(self, session: "SparkSession", limits: SparkLimits) -> None:
        self.session, self.limits = session, limits
        self._ends = time.monotonic() + limits.timeout_seconds
        self.given = self.run("asking the server for its settings", lambda: given_by(self._setting))
        check_given(limits, self.given)
        self.run("setting the number of tasks", self._limit_tasks)

    def run(self, doing: str, query: Callable[[], T]) -> T:
        """Run a query within the time that is left.

        Args:
            doing: what the query does, for messages, such as "counting 3 days".
            query: sends the query, and waits for its result.

        Raises:
            OutOfTime: the time was over. The server was told to cancel the query.
            SparkFailed: the query failed, or the server has gone.
            FilesNotSeen: the server does not find a file.
        """
        outcome: list[T] = []
        errors: list[BaseException] = []
        tag, done = f"dedp-{uuid.uuid4().hex}", threading.Event()

        def work() -> None:
            self.session.addTag(tag)  # tags belong to a thread
            try:
                outcome.append(query())
            except BaseException as error:  # it is raised again in the thread that waits
                errors.append(error)
            finally:
                done.set()

        # A thread of its own, because a server that hangs never answers. Nothing else would notice the time then.
        worker = threading.Thread(target=work, name=f"spark: {doing}", daemon=True)
        try:
            worker.start()
            done.wait(max(0.0, self._ends - time.monotonic()))
        finally:
            # Also if the run is canceled while it waits.
            is_cancelled = not done.is_set()
            if is_cancelled:
                self._cancel(tag, done)
        if is_cancelled or time.monotonic() >= self._ends:
            raise self._out_of_time(doing, answered=done.is_set())
        if errors:
            with _named_failures(doing):
                raise errors[0]
        return outcome[0]

    def check_time(self, doing: str) -> None:
        """Check that there is time left. Call it before a result is written.

        Raises:
            OutOfTime: the time is over.
        """
        if time.monotonic() >= self._ends:
            raise self._out_of_time(doing, answered=True)

    def within_cores(self, rows: "DataFrame") -> "DataFrame":
        """The rows, read by no more tasks than the run may have cores."""
        return rows if self.limits.cores is None else rows.coalesce(self.limits.cores)

    def _setting(self, name: str) -> str | None:
        return self.session.conf.get(name, None)

    def _limit_tasks(self) -> None:
        # A process has one session, and a run before this one may have left its number there.
        name = "spark.sql.shuffle.partitions"
        if self.limits.cores is None:
            self.session.conf.unset(name)
        else:
            self.session.conf.set(name, str(self.limits.cores))

    def _cancel(self, tag: str, done: threading.Event) -> None:
        """Have the server cancel the query. Several times: the query may have been on its way to the server."""

        def cancel() -> None:
            while not done.is_set():
                with suppress(Exception):  # the query itself says what is wrong with its server
                    self.session.interruptTag(tag)
                done.wait(_CANCEL_AGAIN_SECONDS)

        threading.Thread(target=cancel, name="spark: cancel", daemon=True).start()
        done.wait(_GRACE_SECONDS)

    def _out_of_time(self, doing: str, *, answered: bool) -> OutOfTime:
        how = "the query was cancelled" if answered else f"the server has not answered for {_GRACE_SECONDS:g} s since"
        return OutOfTime(
            f"{doing} was not done when the time limit of {self.limits.timeout_seconds:g} s was over; {how}, and "
            "nothing of it was written. Give the run more time (`timeout_seconds` in its configuration) or the server "
            "more cores, or see in its log what holds it up"
        )


@contextmanager
def _named_failures(doing: str) -> Iterator[None]:
    from pyspark.errors import AnalysisException, PySparkException

    try:
        yield
    except PySparkException as error:
        said = _reason(error)
        if "[PATH_NOT_FOUND]" in said:
            raise FilesNotSeen(
                f"{doing} failed: {said}. The server, and each executor of a cluster, has to see DEDP_INTERNAL and "
                "DEDP_DATA_URI at the same path as this process"
            ) from error
        if isinstance(error, AnalysisException):
            raise  # a fault of ours
        raise SparkFailed(f"{doing} failed: {said}; look at the log of the Spark server") from error


def _reason(error: Exception) -> str:
    details = re.search(r'details = "(.*)"', str(error))
    return (details[1] if details else str(error).strip().partition("\n")[0])[:_LONGEST_REASON]


def _counted(cores: int) -> str:
    return "1 core" if cores == 1 else f"{cores} cores"
