"""The assets as a user materializes them: what is shown, what fails a run and what is tried again. Real Spark."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from dedp_assets.flight_search import contract, ingestion
from dedp_assets.resources.spark_limits import LimitedSpark
from jobs.flight_search import defs
from tests.dedp_assets.flight_search.landed import DAY, OTHER, event, land, rows, search_ids

ALL = [contract.SEARCHES, contract.PER_ROUTE, contract.PER_HOUR]
ENDLESS = "SELECT count(*) FROM range(0, 10000000) a, range(0, 10000000) b WHERE a.id * b.id % 7 = 3"


def materialize(instance: dg.DagsterInstance, *keys: dg.AssetKey, **config: Any) -> dg.ExecuteInProcessResult:
    """A run over one day, with this configuration of the ingestion."""
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        partition_key=DAY,
        asset_selection=list(keys),
        run_config={"ops": {"flights__searches": {"config": config}}} if config else None,
        raise_on_error=False,
    )


def failure(result: dg.ExecuteInProcessResult) -> tuple[str, int]:
    """What the failed step said, and how often it was tried again."""
    assert not result.success
    (failed,) = result.filter_events(lambda event: event.is_step_failure)
    retries = result.filter_events(lambda event: event.event_type == dg.DagsterEventType.STEP_RESTARTED)
    data = failed.step_failure_data
    assert data.user_failure_data
    return data.user_failure_data.description or "", len(retries)


def shown(instance: dg.DagsterInstance, key: dg.AssetKey, day: str) -> dict[str, Any]:
    wanted = dg.AssetRecordsFilter(key, asset_partitions=[day])
    (record,) = instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def test_one_run_takes_in_and_aggregates_its_day_and_reports_other_days(
    spark_remote: str, instance: dg.DagsterInstance
) -> None:
    land("a.jsonl", event("s1"), event("late", OTHER), "nonsense")
    assert materialize(instance, *ALL).success
    assert instance.get_materialized_partitions(contract.SEARCHES) == {DAY, OTHER}
    assert instance.get_materialized_partitions(contract.PER_HOUR) == {DAY}
    found = shown(instance, contract.SEARCHES, OTHER)
    assert (found["events_of_this_day"], found["lines_set_aside"], found["table_version"]) == (1, 1, 1)
    (file,) = found["files"].records
    assert file.data == {"file": "a.jsonl", "events": 2, "known": 0, "set aside": 1, "reasons": "not one JSON object"}
    assert shown(instance, contract.PER_ROUTE, DAY)["outcome"] == f"{DAY}: aggregated 1 searches as of version 1"


def test_a_limit_that_the_server_can_not_give_fails_the_run_at_once_and_is_not_tried_again(
    spark_remote: str, instance: dg.DagsterInstance
) -> None:
    land("a.jsonl", event("s1"))
    said, retries = failure(materialize(instance, contract.SEARCHES, memory="900g"))
    assert "has 1g of memory, and the run asks for `memory: 900g`; ask for less" in said
    assert "DEDP_SPARK_MEMORY=900g" in said
    assert (retries, search_ids()) == (0, [])


def test_a_run_past_its_time_limit_says_what_it_was_doing_and_is_not_tried_again(
    spark_remote: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    land("a.jsonl", event("s1"))

    def endless(copies: Any, table: Any, lake: Any, spark: LimitedSpark, now: Any) -> Any:
        # A busy machine may take a while to come here. So the time of this query begins here.
        monkeypatch.setattr(spark, "_ends", time.monotonic() + 2)
        return spark.run("reading a.jsonl", lambda: spark.session.sql(ENDLESS).toArrow())

    monkeypatch.setattr(ingestion, "_check", endless)
    said, retries = failure(materialize(instance, contract.SEARCHES, timeout_seconds=300))
    assert said.startswith(
        "reading a.jsonl was not done when the time limit of 300 s was over; the query was cancelled"
    )
    assert (retries, search_ids()) == (0, [])


@pytest.mark.slow
def test_if_the_spark_server_dies_the_step_is_tried_again_on_another_one_and_appends_once(
    own_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of this process is killed while it executes a query."""
    land("a.jsonl", event("s1"), "nonsense")
    check: Callable[..., Any] = ingestion._check
    killed: list[int] = []

    def with_a_server_that_dies(copies: Any, table: Any, lake: Any, spark: LimitedSpark, now: Any) -> Any:
        if not killed:
            # Not the server of the session, which other tests use.
            children = psutil.Process().children(recursive=True)
            for server in [each for each in children if "java" in each.name() and str(own_home) in each.cwd()]:
                killed.append(server.pid)
                server.kill()
            spark.run("reading a.jsonl", lambda: spark.session.sql(ENDLESS).toArrow())
        return check(copies, table, lake, spark, now)

    monkeypatch.setattr(ingestion, "_check", with_a_server_that_dies)
    result = materialize(instance, *ALL)
    assert result.success
    retries = result.filter_events(lambda event: event.event_type == dg.DagsterEventType.STEP_RESTARTED)
    assert (len(killed), len(retries)) == (1, 1)
    assert search_ids() == ["s1"]
    assert len(rows(contract.QUARANTINE, "line")) == 1
    assert rows(contract.PER_ROUTE, "searches") == [(1,)]


# Runs `dagster asset materialize`, and kills its process before or after the commit of the events.
KILLED = """
import os, signal, sys
from dedp_assets.flight_search import searches

append, when = searches.append, sys.argv.pop(1)

def dies(table, *arguments):
    if not table.table_uri.rstrip("/").endswith("/searches"):
        return append(table, *arguments)
    if when == "after":
        append(table, *arguments)
    os.kill(os.getpid(), signal.SIGKILL)

searches.append = dies
from dagster._cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_around_its_commit_leaves_the_old_table_or_the_new_one(
    spark_remote: str, instance: dg.DagsterInstance, when: str
) -> None:
    land("a.jsonl", event("s1"), event("late", OTHER), "nonsense")
    command = ["asset", "materialize", "-m", "jobs.flight_search", "--partition", DAY, "--select", "flights/searches"]
    done = subprocess.run([sys.executable, "-c", KILLED, when, *command], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert search_ids() == ([] if when == "before" else ["late", "s1"])
    assert len(rows(contract.QUARANTINE, "line")) == 1
    assert materialize(instance, *ALL).success
    assert search_ids() == ["late", "s1"]
    assert len(rows(contract.QUARANTINE, "line")) == 1
    assert rows(contract.PER_ROUTE, "searches") == [(1,)]
