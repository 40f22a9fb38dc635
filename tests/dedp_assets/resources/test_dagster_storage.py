"""A process keeps its connection to Dagster's storage, and everything else is as with Dagster's own class."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import dagster as dg
import psycopg2
import pytest
import sqlalchemy as sa
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy.engine import Engine

from dedp_assets.partition_runs import AssetResult
from dedp_assets.resources import dagster_storage
from dedp_assets.resources.dagster_storage import PooledPostgresStorage


@dg.asset(
    partitions_def=dg.StaticPartitionsDefinition(["a", "b"]), check_specs=[dg.AssetCheckSpec("right", asset="made")]
)
def made() -> AssetResult:
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


@pytest.fixture(scope="module")
def url(module_dsn: str) -> str:
    """The storage's tables are in a schema of their own, as in the deployment."""
    connection = psycopg2.connect(module_dsn)
    connection.autocommit = True
    connection.cursor().execute("CREATE SCHEMA dagster")
    connection.close()
    return f"{module_dsn}{'&' if '?' in module_dsn else '?'}options={quote('-csearch_path=dagster')}"


@pytest.fixture
def kept(url: str) -> Iterator[dg.DagsterInstance]:
    named = {"module": dagster_storage.__name__, "class": "PooledPostgresStorage", "config": {"postgres_url": url}}
    with dg.instance_for_test(overrides={"storage": {"custom": named}}) as instance:
        yield instance


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How many connections are made in the block, and how many statements."""
    found: Counter[str] = Counter()

    def connected(*arguments: Any) -> None:
        found["connections"] += 1

    def executed(*arguments: Any) -> None:
        found["statements"] += 1

    sa.event.listen(Engine, "do_connect", connected)
    sa.event.listen(Engine, "before_cursor_execute", executed)
    try:
        yield found
    finally:
        sa.event.remove(Engine, "do_connect", connected)
        sa.event.remove(Engine, "before_cursor_execute", executed)


def test_a_run_makes_no_connection_of_its_own_and_does_not_ask_what_tables_there_are(kept: dg.DagsterInstance) -> None:
    assert dg.materialize([made], partition_key="a", instance=kept).success
    with counted() as found:
        assert dg.materialize([made], partition_key="a", instance=kept).success
    assert found["connections"] == 0
    # Each event is one INSERT and one NOTIFY, and the rest are reads and writes of the run.
    assert found["statements"] < 60, found


def test_a_storage_that_is_made_again_in_the_same_process_asks_nothing(kept: dg.DagsterInstance, url: str) -> None:
    with counted() as found:
        again = PooledPostgresStorage(url)
        assert not found
        assert again.schedule_storage.supports_batch_queries
        again.run_storage.get_runs()
    assert found["connections"] == 0


def test_what_one_class_has_stored_the_other_one_reads(kept: dg.DagsterInstance, url: str) -> None:
    with dg.instance_for_test(overrides={"storage": {"postgres": {"postgres_url": url}}}) as stock:
        for instance, other in ((kept, stock), (stock, kept)):
            run_id = dg.materialize([made], partition_key="b", instance=instance).run_id
            run = other.get_run_by_id(run_id)
            assert run
            assert run.status == dg.DagsterRunStatus.SUCCESS
            latest = other.get_latest_materialization_event(made.key)
            assert latest
            assert latest.run_id == run_id
            assert len(other.all_logs(run_id)) == len(instance.all_logs(run_id))


def test_when_postgresql_ends_the_connection_the_next_query_has_another(
    kept: dg.DagsterInstance, module_dsn: str
) -> None:
    number = kept.get_runs_count()
    connection = psycopg2.connect(module_dsn)
    connection.autocommit = True
    cursor = connection.cursor()
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    cursor.execute(f"SELECT pg_terminate_backend(pid) {others}")
    assert cursor.rowcount
    while True:
        cursor.execute(f"SELECT {others}")
        if not cursor.rowcount:
            break
        time.sleep(0.01)
    connection.close()
    assert kept.get_runs_count() == number
    assert dg.materialize([made], partition_key="a", instance=kept).success


def test_a_fork_has_a_connection_of_its_own(kept: dg.DagsterInstance, url: str) -> None:
    number = kept.get_runs_count()
    child = os.fork()
    if child == 0:
        with counted() as found:
            same = PooledPostgresStorage(url).run_storage.get_runs_count() == number
        os._exit(0 if same and found["connections"] == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with counted() as found:
        assert kept.get_runs_count() == number
    assert found["connections"] == 0


def test_dagsters_storages_have_what_is_replaced_in_them(url: str) -> None:
    """If this fails after an update of Dagster, look at `dagster_storage` again."""
    stock = DagsterPostgresStorage(url)
    storages = (stock.run_storage, stock.event_log_storage, stock.schedule_storage)
    assert all(isinstance(vars(storage)["_engine"], Engine) for storage in storages)
    for question in dagster_storage._QUESTIONS:
        assert any(hasattr(storage, question) for storage in storages), question
