"""Limits of a run that uses Spark: what the server says that it has, and what a run may ask for."""

import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from dedp_assets.errors import DedpError, SettingError
from dedp_assets.resources.spark import SparkConnectResource
from dedp_assets.resources.spark_limits import (
    Given,
    LimitedSpark,
    LimitsNotGiven,
    OutOfTime,
    SparkFailed,
    SparkLimits,
    check_given,
    given_by,
    memory_bytes,
)

# Takes hours.
ENDLESS = "SELECT count(*) FROM range(0, 10000000) a, range(0, 10000000) b WHERE a.id * b.id % 7 = 3"


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({"spark.master": "local[2]", "spark.driver.memory": "512m"}, Given("local[2]", 2, "512m")),
        ({"spark.master": "local[4,3]"}, Given("local[4,3]", 4, "1g")),
        ({"spark.master": "local"}, Given("local", 1, "1g")),
        ({"spark.master": "local[*]", "spark.executor.memory": "9g"}, Given("local[*]", None, "1g")),
        (
            {"spark.master": "spark://host:7077", "spark.cores.max": "4", "spark.executor.memory": "5g"},
            Given("spark://host:7077", 4, "5g"),
        ),
        ({"spark.master": "yarn", "spark.driver.memory": "9g"}, Given("yarn", None, "1g")),
        ({}, Given("unknown", None, "1g")),
    ],
)
def test_the_settings_of_a_server_say_what_it_was_started_with(settings: Mapping[str, str], given: Given) -> None:
    assert given_by(settings.get) == given


@pytest.mark.parametrize(
    ("limits", "given"),
    [
        (SparkLimits(), Given("local[*]", None, "1g")),
        (SparkLimits(cores=2, memory="1g"), Given("local[2]", 2, "1024m")),
        (SparkLimits(cores=1, memory="512m"), Given("spark://host:7077", 8, "5g")),
    ],
)
def test_a_run_may_ask_for_what_the_server_has(limits: SparkLimits, given: Given) -> None:
    check_given(limits, given)


@pytest.mark.parametrize(
    ("limits", "given", "said"),
    [
        (SparkLimits(cores=4), Given("local[2]", 2, "1g"), "has 2 cores, and the run asks for `cores: 4`"),
        (SparkLimits(cores=4), Given("local[*]", None, "1g"), "does not say how many cores it has.*local.4."),
        (SparkLimits(memory="5g"), Given("yarn", 8, "4g"), "has 4g of memory, and the run asks for `memory: 5g`"),
    ],
)
def test_a_run_that_asks_for_more_is_told_what_there_is_and_how_to_start_the_server(
    limits: SparkLimits, given: Given, said: str
) -> None:
    with pytest.raises(LimitsNotGiven, match=said) as problem:
        check_given(limits, given)
    assert not problem.value.may_pass


def test_amounts_of_memory_are_read_as_spark_reads_them() -> None:
    amounts = ["1g", "1G", "1gb", "1024m", "1048576k", "1073741824b", "1024"]
    assert {memory_bytes(text) for text in amounts} == {1 << 30}
    for text in ("", "g", "1.5g", "-1g", "0m", "much"):
        with pytest.raises(SettingError, match="expected one such as 512m or 5g"):
            memory_bytes(text)


@pytest.mark.parametrize("wrong", [{"cores": 0}, {"timeout_seconds": 0}, {"timeout_seconds": -1}])
def test_limits_that_make_no_sense_are_refused_before_a_run_begins(wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="greater than"):
        SparkLimits(**wrong)


@pytest.fixture
def session(spark_server: str) -> Any:
    return SparkConnectResource(remote=spark_server).session


def running(session: Any, tag: str) -> list[str]:
    """The operations with this tag that the server was executing. They are interrupted."""
    found: list[str] = session.interruptTag(tag)
    return found


def test_a_query_past_the_time_limit_is_cancelled_on_the_server_and_the_next_one_runs(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags: list[str] = []
    add = session.addTag

    def note(tag: str) -> None:
        tags.append(tag)
        add(tag)

    monkeypatch.setattr(session, "addTag", note)
    spark = LimitedSpark(session, SparkLimits(timeout_seconds=300))
    # A busy machine may take a while to come to the query. So its time begins here.
    monkeypatch.setattr(spark, "_ends", time.monotonic() + 1.5)
    with pytest.raises(OutOfTime) as problem:
        spark.run("counting for ever", lambda: session.sql(ENDLESS).toArrow())
    assert str(problem.value).startswith(
        "counting for ever was not done when the time limit of 300 s was over; the query was cancelled, and nothing"
    )
    assert not problem.value.may_pass
    assert running(session, tags[-1]) == []
    with pytest.raises(OutOfTime, match="writing"):
        spark.check_time("writing")
    assert LimitedSpark(session, SparkLimits()).run("counting", lambda: session.range(7).count()) == 7


def test_a_run_that_is_canceled_cancels_its_query(session: Any) -> None:
    spark = LimitedSpark(session, SparkLimits(timeout_seconds=300))
    ended = threading.Event()

    def query() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            session.sql(ENDLESS).toArrow()
        finally:
            ended.set()

    # A process in the background of a shell ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            spark.run("counting for ever", query)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.is_set()


def test_a_stage_has_no_more_tasks_than_the_run_may_have_cores(session: Any) -> None:
    partition = "spark_partition_id() AS task"
    for cores in (1, 2):
        spark = LimitedSpark(session, SparkLimits(cores=cores))
        many = session.range(0, 1000, 1, 16)
        assert many.selectExpr(partition).distinct().count() == 16
        read = spark.within_cores(many)
        assert read.selectExpr(partition).distinct().count() == cores
        assert read.repartition("id").selectExpr(partition).distinct().count() <= cores


def test_an_error_of_spark_is_named_and_may_pass_and_a_fault_of_ours_keeps_its_traceback(session: Any) -> None:
    from pyspark.errors import AnalysisException

    spark = LimitedSpark(session, SparkLimits())
    with pytest.raises(SparkFailed, match=r"dividing failed: .*DIVIDE_BY_ZERO") as problem:
        spark.run("dividing", lambda: session.sql("SELECT 1 / (id - id) FROM range(3)").toArrow())
    assert problem.value.may_pass
    with pytest.raises(AnalysisException):
        spark.run("selecting", lambda: session.sql("SELECT nothing").toArrow())
    with pytest.raises(DedpError, match=r"reading failed: \[PATH_NOT_FOUND\].*DEDP_INTERNAL") as unseen:
        spark.run("reading", lambda: session.read.text("/nowhere/at/all").toArrow())
    assert not unseen.value.may_pass
    with pytest.raises(ZeroDivisionError):
        spark.run("in Python", lambda: 1 // 0)
