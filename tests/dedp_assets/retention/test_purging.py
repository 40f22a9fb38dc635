"""A purge deletes what is old from Dagster's storage in PostgreSQL, and changes nothing that anybody decides by."""

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import psycopg2
import pytest
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.scheduler.instigation import InstigatorType, TickData, TickStatus
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.utils import make_new_backfill_id

from dedp_assets.partition_runs import AssetResult
from dedp_assets.request_ids import request_tag
from dedp_assets.retention import purging
from dedp_assets.retention.purging import purge
from sensors.automation import on_input_change

AGE = timedelta(days=90)
LETTERS = dg.StaticPartitionsDefinition(["followed", "failed", "behind", "reported", "missing"])

_numbers = count(1)


@dg.asset(partitions_def=LETTERS)
def source(context: dg.AssetExecutionContext) -> None:
    context.log.info("a line in the log")


@dg.asset(
    partitions_def=LETTERS,
    deps=[source],
    automation_condition=on_input_change(),
    check_specs=[dg.AssetCheckSpec("right", asset="copy")],
)
def copy(context: dg.AssetExecutionContext) -> AssetResult:
    if "fail" in context.run.tags:
        raise dg.Failure("as asked")
    return dg.MaterializeResult(
        data_version=dg.DataVersion("1"), metadata={"rows": 1}, check_results=[dg.AssetCheckResult(passed=True)]
    )


@dg.asset(deps=[source], automation_condition=on_input_change(existing="any"))
def total() -> None: ...


DEFS = dg.Definitions(assets=[source, copy, total])


def run(instance: dg.DagsterInstance, asset: Any, partition: str | None, **tags: str) -> dg.ExecuteInProcessResult:
    named = {key.replace("__", "/"): value for key, value in tags.items()}
    return dg.materialize([asset], instance=instance, partition_key=partition, tags=named, raise_on_error=False)


def tick(instance: dg.DagsterInstance, cursor: AssetDaemonCursor | None = None) -> Any:
    return dg.evaluate_automation_conditions(DEFS, instance, cursor=cursor)


def requested(instance: dg.DagsterInstance, cursor: AssetDaemonCursor | None) -> set[tuple[str, str | None]]:
    """What a tick requests. An asset without partitions has the partition None."""
    return {
        (result.key.to_user_string(), partition)
        for result in tick(instance, cursor).results
        for _, partition in result.true_subset.expensively_compute_asset_partitions()
    }


@contextmanager
def instance_on(url: str) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(overrides={"storage": {"postgres": {"postgres_url": url}}}) as instance:
        yield instance


def grow_old(url: str, days: float = 100) -> None:
    """As if all that is stored had happened so many days earlier."""
    columns = {
        "runs": ["create_timestamp", "update_timestamp"],
        "event_logs": ["timestamp"],
        "job_ticks": ["timestamp"],
        "asset_check_executions": ["create_timestamp"],
        "asset_daemon_asset_evaluations": ["create_timestamp"],
        "bulk_actions": ["timestamp"],
    }
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        for table, aged in columns.items():
            for column in aged:
                cursor.execute(f"UPDATE {table} SET {column} = {column} - interval '{days} days'")


@pytest.fixture(scope="module")
def played(module_dsn: str) -> tuple[str, dict[str, AssetDaemonCursor | None]]:
    """A history of 100 days ago, and the cursors that a daemon may continue with."""
    cursors: dict[str, AssetDaemonCursor | None] = {"lost": None}
    with instance_on(module_dsn) as instance:
        for letter in ("followed", "failed", "behind"):
            run(instance, source, letter)
            run(instance, copy, letter)
        run(instance, total, None)
        cursors["of a daemon that was away"] = tick(instance, tick(instance).cursor).cursor
        run(instance, source, "followed", dagster__run_key="file 1", dagster__sensor_name="landed")
        run(instance, copy, "followed")
        run(instance, source, "failed")
        run(instance, copy, "failed", fail="yes")
        run(instance, total, None, **{"dedp__request": "order 1"})
        cursors["of the tick before the last update"] = tick(instance, cursors["of a daemon that was away"]).cursor
        run(instance, source, "behind")
        for _ in range(3):
            instance.report_runless_asset_event(dg.AssetMaterialization(source.key, partition="reported"))
        cursors["up to date"] = tick(instance, cursors["of the tick before the last update"]).cursor
    grow_old(module_dsn)
    return module_dsn, cursors


@pytest.fixture
def url(postgres_server: str, played: tuple[str, Any]) -> Iterator[str]:
    """The test's own copy of this history."""
    original = urlsplit(played[0]).path[1:]
    name = f"{original}_{next(_numbers)}"
    with closing(psycopg2.connect(postgres_server)) as server:
        server.autocommit = True
        server.cursor().execute(f"CREATE DATABASE {name} TEMPLATE {original}")
        yield urlsplit(played[0])._replace(path=f"/{name}").geturl()
        server.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def instance(url: str) -> Iterator[dg.DagsterInstance]:
    with instance_on(url) as instance:
        yield instance


@pytest.fixture
def purged(url: str, instance: dg.DagsterInstance) -> Callable[..., "Counter[str]"]:
    def now(**options: Any) -> "Counter[str]":
        with closing(psycopg2.connect(url)) as connection:
            return purge(connection, AGE, instance.compute_log_manager, **options)

    return now


def rows(url: str, query: str) -> list[Any]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def everything(url: str) -> dict[str, list[Any]]:
    tables = ("runs", "run_tags", "event_logs", "asset_event_tags", "job_ticks", "asset_check_executions")
    return {table: rows(url, f"SELECT id FROM {table} ORDER BY id") for table in tables}


def print_to(instance: dg.DagsterInstance, place: list[str]) -> None:
    """Leave output, as a step or a tick does."""
    stream: Any = instance.compute_log_manager.open_log_stream(place, ComputeIOType.STDOUT)
    with stream as output:
        output.write("something printed")
    assert instance.compute_log_manager.get_log_data(place).stdout


LATEST = """
    SELECT asset_key, dagster_event_type, partition, max(id)
      FROM event_logs
     WHERE asset_key IS NOT NULL
     GROUP BY 1, 2, 3
     ORDER BY 1, 2, 3
"""


@pytest.mark.parametrize(
    "cursor",
    [
        "lost",
        pytest.param("of a daemon that was away", marks=pytest.mark.slow),
        "of the tick before the last update",
        pytest.param("up to date", marks=pytest.mark.slow),
    ],
)
def test_a_tick_after_a_purge_requests_what_it_would_have_requested_before(
    instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"], played: tuple[str, Any], cursor: str
) -> None:
    before = requested(instance, played[1][cursor])
    assert purged()[purging.EVENTS]
    assert requested(instance, played[1][cursor]) == before
    if cursor == "of the tick before the last update":
        assert before == {("copy", "behind"), ("copy", "reported"), ("total", None)}


def test_an_update_after_a_purge_is_followed(
    instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"], played: tuple[str, Any]
) -> None:
    purged()
    cursor = tick(instance, played[1]["up to date"]).cursor
    run(instance, source, "followed")
    assert requested(instance, cursor) == {("copy", "followed"), ("total", None)}


def test_the_latest_event_of_each_kind_and_partition_stays_and_no_other_old_event(
    url: str, purged: Callable[..., "Counter[str]"]
) -> None:
    before = rows(url, LATEST)
    purged()
    assert rows(url, LATEST) == before
    assert sorted(rows(url, "SELECT id FROM event_logs")) == sorted((row[3],) for row in before)
    assert rows(url, "SELECT count(*) FROM asset_event_tags WHERE event_id NOT IN (SELECT id FROM event_logs)") == [
        (0,)
    ]


def test_what_the_ui_shows_of_an_asset_stays(
    instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"]
) -> None:
    def shown() -> list[Any]:
        check = next(iter(copy.check_keys))
        results = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])
        return [
            instance.get_latest_materialization_event(copy.key),
            instance.get_materialized_partitions(source.key),
            instance.fetch_materializations(
                dg.AssetRecordsFilter(copy.key, asset_partitions=["behind"]), limit=1
            ).records,
            instance.get_latest_data_version_record(copy.key, partition_key="followed"),
            results[check],
        ]

    before = shown()
    purged()
    assert shown() == before


def test_a_run_with_a_run_key_or_the_id_of_a_request_keeps_its_record_and_its_tags(
    instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"]
) -> None:
    run(instance, source, "followed")
    run(instance, total, None)
    counted = purged()
    [landed] = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": "file 1"}))
    assert landed.tags["dagster/sensor_name"] == "landed"
    assert instance.get_runs(dg.RunsFilter(tags=request_tag("order 1")))
    assert not instance.all_logs(landed.run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)
    assert counted[purging.TRIMMED]


def test_a_run_whose_partition_was_made_anew_goes_with_its_tags_and_its_output(
    url: str, instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"]
) -> None:
    first = run(instance, source, "missing").run_id
    print_to(instance, [first, "compute_logs", "step"])
    grow_old(url)
    second = run(instance, source, "missing").run_id
    counted = purged()
    assert counted[purging.RUNS] > 0
    assert instance.get_run_by_id(first) is None
    assert not rows(url, f"SELECT FROM run_tags WHERE run_id = '{first}'")
    assert not instance.compute_log_manager.get_log_data([first, "compute_logs", "step"]).stdout
    assert instance.all_logs(second)


def test_young_runs_keep_all_their_events_and_a_second_purge_finds_nothing(
    url: str, instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"]
) -> None:
    young = run(instance, source, "followed").run_id
    logged = len(instance.all_logs(young))
    purged()
    assert len(instance.all_logs(young)) == logged
    left = everything(url)
    assert not +purged()
    assert everything(url) == left


@pytest.mark.slow
def test_a_run_goes_together_with_its_later_attempts_and_never_before_them(
    url: str, instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"]
) -> None:
    root = run(instance, copy, "failed", fail="yes").run_id
    grow_old(url)
    again = run(instance, copy, "failed", dagster__root_run_id=root, dagster__parent_run_id=root).run_id
    run(instance, copy, "failed")
    purged()
    assert instance.get_run_by_id(root)
    assert instance.get_run_group(root)
    grow_old(url)
    run(instance, copy, "failed")
    purged()
    assert instance.get_run_by_id(again) is None
    assert instance.get_run_by_id(root) is None


def test_what_is_under_way_or_has_just_ended_keeps_everything(
    url: str, instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"]
) -> None:
    backfill = make_new_backfill_id()
    ended = run(instance, source, "followed", dagster__backfill=backfill).run_id
    started = run(instance, source, "followed").run_id
    took_100_days = run(instance, source, "followed").run_id
    run(instance, source, "followed")
    instance.add_backfill(
        PartitionBackfill(
            backfill,
            BulkActionStatus.REQUESTED,
            from_failure=False,
            tags={},
            backfill_timestamp=0.0,
            asset_selection=[source.key],
        )
    )
    grow_old(url)
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE runs SET status = 'STARTED' WHERE run_id = %s", [started])
        cursor.execute("UPDATE runs SET update_timestamp = LOCALTIMESTAMP WHERE run_id = %s", [took_100_days])
    logged = {run_id: len(instance.all_logs(run_id)) for run_id in (ended, started, took_100_days)}
    assert purged()[purging.RUNS]
    assert {run_id: len(instance.all_logs(run_id)) for run_id in (ended, started, took_100_days)} == logged
    assert instance.get_backfill(backfill)


def test_the_latest_tick_of_each_sensor_stays_and_the_output_of_the_others_goes(
    url: str, instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"]
) -> None:
    place = ["repository", "landed", "1"]
    print_to(instance, place)
    for sensor in ("landed", "committed"):
        for second in range(3):
            instance.create_tick(
                TickData(
                    instigator_origin_id=sensor,
                    instigator_name=sensor,
                    instigator_type=InstigatorType.SENSOR,
                    status=TickStatus.SUCCESS,
                    timestamp=1_700_000_000.0 + second,
                    selector_id=sensor,
                    run_ids=[],
                    log_key=place if second == 0 and sensor == "landed" else None,
                )
            )
    counted = purged()
    assert counted[purging.TICKS] == 4
    assert [tick.timestamp for tick in instance.get_ticks("landed", "landed")] == [1_700_000_002]
    assert not instance.compute_log_manager.get_log_data(place).stdout


def test_the_output_of_ticks_goes_whose_records_dagster_has_deleted_itself(
    instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"]
) -> None:
    old, young = ["repository", "landed", "1"], ["repository", "landed", "2"]
    of_an_asset = ["lake", "2024", "counts"]
    for place in (old, young, of_an_asset):
        print_to(instance, place)
    logs: Any = instance.compute_log_manager
    for place in (old, of_an_asset):
        os.utime(logs.get_captured_local_path(place, "out"), (0, 0))
    assert purged()[purging.TICK_OUTPUTS] == 1
    assert not logs.get_log_data(old).stdout
    assert logs.get_log_data(young).stdout
    assert logs.get_log_data(of_an_asset).stdout


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_nothing_that_is_younger_than_the_age_goes_whatever_the_time_zone_of_the_server(url: str, zone: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {urlsplit(url).path[1:]} SET timezone = '{zone}'")
    with instance_on(url) as instance:
        run(instance, source, "missing")
        first = run(instance, copy, "missing").run_id
        run(instance, copy, "missing")
        logged = len(instance.all_logs(first))
        grow_old(url, days=0.8)
        with closing(psycopg2.connect(url)) as connection:
            assert purge(connection, timedelta(days=1), instance.compute_log_manager)[purging.EVENTS]
        assert len(instance.all_logs(first)) == logged
        grow_old(url, days=1)
        with closing(psycopg2.connect(url)) as connection:
            purge(connection, timedelta(days=1), instance.compute_log_manager)
        assert instance.get_run_by_id(first) is None


def test_a_dry_run_deletes_nothing_and_counts_what_a_purge_then_deletes(
    url: str, purged: Callable[..., "Counter[str]"]
) -> None:
    before = everything(url)
    counted = purged(dry_run=True, batch_runs=3, batch_rows=1)
    assert everything(url) == before
    assert counted[purging.EVENTS] > 100
    assert purged() == counted


class KilledAt(NoOpComputeLogManager):
    """Kills its process when the output of the n-th run is deleted."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number

    def delete_logs(self, *arguments: Any, **named: Any) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def _purge_until_killed(url: str, number: int) -> None:
    with closing(psycopg2.connect(url)) as connection:
        purge(connection, AGE, KilledAt(number), batch_runs=2)


def test_a_purge_that_is_killed_half_way_has_lost_nothing_and_is_completed_by_the_next(
    url: str, instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"], played: tuple[str, Any]
) -> None:
    whole = purged(dry_run=True)
    latest, asked = rows(url, LATEST), requested(instance, None)
    killed = multiprocessing.get_context("fork").Process(target=_purge_until_killed, args=(url, 6))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert rows(url, LATEST) == latest
    assert requested(instance, None) == asked
    rest = purged()
    assert 0 < rest[purging.EVENTS] < whole[purging.EVENTS]
    assert rows(url, LATEST) == latest
    assert not +purged()


@pytest.mark.slow
def test_two_purges_at_once_delete_together_what_one_would_delete(
    url: str, instance: dg.DagsterInstance, purged: Callable[..., "Counter[str]"]
) -> None:
    whole, latest = purged(dry_run=True), rows(url, LATEST)
    with ThreadPoolExecutor(3) as at_once:
        counted = list(at_once.map(lambda _: purged(batch_runs=1, batch_rows=1), range(3)))
    assert sum(counted, Counter())[purging.EVENTS] == whole[purging.EVENTS]
    assert rows(url, LATEST) == latest
    assert not +purged()


def test_events_that_sensors_reported_without_a_run_are_purged_like_the_others(
    url: str, purged: Callable[..., "Counter[str]"]
) -> None:
    reported = f"SELECT count(*) FROM event_logs WHERE run_id = '{RUNLESS_RUN_ID}'"
    assert rows(url, reported) == [(3,)]
    purged(batch_rows=1)
    assert rows(url, reported) == [(1,)]
