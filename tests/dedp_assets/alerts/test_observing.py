"""What is wrong is found in the tables of a real Dagster instance in PostgreSQL, after real runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg2
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.scheduler.instigation import TickStatus
from psycopg2.extensions import connection as Connection

from dedp_assets.alerts.incidents import Incident, Problem, decide
from dedp_assets.alerts.judging import Limits
from dedp_assets.alerts.observing import observe
from dedp_assets.alerts.process import World, look_once
from dedp_assets.alerts.store import ensure_tables, look, read_incidents
from dedp_assets.errors import PermanentError
from dedp_assets.failures import named_failures
from dedp_assets.notifications.notifiers import FileNotifier
from dedp_assets.observability.dagster_tables import connected_to_dagster
from tests.dagster_in_postgres import dagster_in_postgres
from tests.stored_ticks import add_sensor

pytestmark = pytest.mark.slow

DAYS = dg.DailyPartitionsDefinition("2024-01-01")
BROKEN: set[str] = set()


def _work(context: dg.AssetExecutionContext) -> None:
    if BROKEN & {"all", *context.partition_keys}:
        raise PermanentError("the file is damaged; ask for another one")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def raw(context: dg.AssetExecutionContext) -> None:
    with named_failures(context.log):
        _work(context)


@dg.asset(partitions_def=DAYS, deps=[raw], backfill_policy=dg.BackfillPolicy.single_run())
def totals(context: dg.AssetExecutionContext) -> None:
    with named_failures(context.log):
        _work(context)


@dg.asset
def report() -> None:
    if "report" in BROKEN:
        raise ValueError("no ink")


@dg.op
def sweep() -> None:
    if "sweep" in BROKEN:
        raise ValueError("no broom")


@dg.job
def cleaning() -> None:
    sweep()


class System:
    """A Dagster instance, and what is wrong with it."""

    def __init__(self, instance: dg.DagsterInstance, url: str, database: Connection) -> None:
        self.instance, self.url, self.database = instance, url, database

    def materialize(self, *assets: dg.AssetsDefinition, **tags: str) -> str:
        partition = tags.pop("day", None)
        given = {key.replace("__", "/"): value for key, value in tags.items()}
        return dg.materialize(
            assets, instance=self.instance, partition_key=partition, tags=given, raise_on_error=False
        ).run_id

    def problems(self, *kinds: str, **options: Any) -> list[Any]:
        # A failure counts after a few seconds.
        with psycopg2.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE runs SET end_time = end_time - 10 WHERE end_time IS NOT NULL")
        incidents: dict[str, Incident] = options.pop("incidents", {})
        with connected_to_dagster(self.url) as dagster:
            seen = observe(self.instance, dagster, self.database, None, incidents, Limits(**options))
        assert seen.unseen.keys() <= {"tick", "reconciliation"}  # no daemon runs here
        return [problem for problem in seen.problems if problem.kind in kinds]

    def failed(self) -> list[str]:
        return [problem.key for problem in self.problems("run")]


@pytest.fixture(scope="module")
def module_system(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    database = psycopg2.connect(module_dsn)
    with dagster_in_postgres(module_dsn, tmp_path_factory.mktemp("instance")) as (instance, url):
        yield System(instance, url, database)
    database.close()


@pytest.fixture
def system(module_system: System) -> Iterator[System]:
    BROKEN.clear()
    yield module_system
    BROKEN.clear()
    for run in module_system.instance.get_runs():
        module_system.instance.delete_run(run.run_id)


def test_a_partition_that_failed_is_a_problem_until_it_is_materialized(system: System) -> None:
    BROKEN.add("2024-01-02")
    run_id = system.materialize(raw, totals, day="2024-01-02")
    system.materialize(raw, totals, day="2024-01-03")
    (first, second) = system.problems("run")
    assert {first.key, second.key} == {"run/raw/2024-01-02", "run/totals/2024-01-02"}
    assert "the file is damaged; ask for another one" in first.what
    assert (first.run_id, run_id in first.action) == (run_id, True)
    BROKEN.clear()
    system.materialize(raw, day="2024-01-02")
    assert system.failed() == ["run/totals/2024-01-02"]
    system.materialize(totals, day="2024-01-02")
    assert system.failed() == []


def test_a_run_that_dagster_starts_again_has_not_failed_yet(system: System) -> None:
    BROKEN.add("all")
    run_id = system.materialize(raw, day="2024-01-02")
    system.instance.add_run_tags(run_id, {"dagster/will_retry": "true"})
    assert system.failed() == []
    system.instance.add_run_tags(run_id, {"dagster/auto_retry_run_id": "of the retry, which is under way"})
    with psycopg2.connect(system.url) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE runs SET end_time = end_time - 700")
    assert system.failed() == []
    # The last retry tells of it, and not the first run.
    retry = system.materialize(raw, day="2024-01-02", dagster__parent_run_id=run_id, dagster__root_run_id=run_id)
    assert [problem.run_id for problem in system.problems("run")] == [retry]


def test_a_retry_that_nobody_starts_is_a_failure_after_ten_minutes(system: System) -> None:
    BROKEN.add("all")
    run_id = system.materialize(raw, day="2024-01-02")
    system.instance.add_run_tags(run_id, {"dagster/will_retry": "true"})
    with psycopg2.connect(system.url) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE runs SET end_time = end_time - 700")
    assert system.failed() == ["run/raw/2024-01-02"]


def test_a_failed_range_is_a_problem_of_each_of_its_partitions(system: System) -> None:
    BROKEN.add("all")
    system.materialize(
        raw, dagster__asset_partition_range_start="2024-01-02", dagster__asset_partition_range_end="2024-01-04"
    )
    assert system.failed() == ["run/raw/2024-01-02", "run/raw/2024-01-03", "run/raw/2024-01-04"]
    BROKEN.clear()
    system.materialize(raw, day="2024-01-03")
    assert system.failed() == ["run/raw/2024-01-02", "run/raw/2024-01-04"]


def test_an_asset_without_partitions_and_a_job_without_assets_fail_and_recover(system: System) -> None:
    BROKEN.update(["report", "sweep"])
    system.materialize(report)
    cleaning.execute_in_process(instance=system.instance, raise_on_error=False)
    problems = {problem.key: problem.what for problem in system.problems("run")}
    assert problems.keys() == {"run/report/", "run/cleaning/"}
    assert "no ink" in problems["run/report/"]
    BROKEN.clear()
    system.materialize(report)
    cleaning.execute_in_process(instance=system.instance)
    assert system.failed() == []


def test_an_incident_about_an_old_failure_goes_on(system: System) -> None:
    BROKEN.add("all")
    system.materialize(raw, day="2024-01-02")
    (problem,) = system.problems("run")
    with psycopg2.connect(system.url) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE runs SET end_time = end_time - 30 * 86400")
    assert system.failed() == []
    (still,) = system.problems("run", incidents={problem.key: Incident(problem, "open", 0.0)})
    assert still.key == problem.key


def test_a_run_that_executes_for_too_long_and_one_that_waits_are_problems(system: System) -> None:
    for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING):
        system.instance.create_run_for_job(cleaning, status=status)
    assert system.problems("time-out") == []
    with psycopg2.connect(system.url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE runs SET start_time = extract(epoch FROM now()) - 4000 WHERE status = 'STARTED';"
            "UPDATE runs SET create_timestamp = create_timestamp - interval '2000 s';"
            "UPDATE runs SET update_timestamp = update_timestamp - interval '400 s'"
        )
    assert sorted(problem.headline for problem in system.problems("time-out")) == [
        "Runs wait too long for their start",
        "cleaning is stuck",
        "cleaning takes too long",
    ]


def test_lines_in_quarantine_are_a_problem_of_their_pipeline(system: System) -> None:
    with system.database, system.database.cursor() as cursor:
        cursor.execute(
            "CREATE SCHEMA IF NOT EXISTS dedp;"
            "CREATE TABLE dedp.upload_files (rows_loaded bigint, rows_quarantined bigint, dealt_with_at timestamptz);"
            "INSERT INTO dedp.upload_files VALUES (100, 900, now() - interval '2 h'), (600, 400, now())"
        )
    (problem,) = system.problems("quarantine")
    with system.database, system.database.cursor() as cursor:
        cursor.execute("DROP TABLE dedp.upload_files")
    assert "Of the 1,000 lines of the last hour, 400 are in quarantine (40%)" in problem.what


def test_an_asset_that_is_out_of_date_by_its_policy_is_a_problem(system: System) -> None:
    system.materialize(report)

    def becomes(state: FreshnessState) -> None:
        change = FreshnessStateChange(
            key=report.key, previous_state=FreshnessState.UNKNOWN, new_state=state, state_change_timestamp=0.0
        )
        system.instance._report_runless_asset_event(change)  # as Dagster's freshness daemon does

    becomes(FreshnessState.FAIL)
    assert [problem.key for problem in system.problems("freshness")] == ["freshness/report"]
    becomes(FreshnessState.PASS)
    assert system.problems("freshness") == []


def test_a_sensor_that_says_the_same_error_again_and_again_is_a_problem_also_while_its_next_tick_is_under_way(
    system: System,
) -> None:
    said = (TickStatus.SKIPPED, "error: the folder can't be read")
    add_sensor(system.instance, "jobs.tides", "shut", [said, said, said, (TickStatus.STARTED, "")])
    found = {problem.key: problem.what for problem in system.problems("tick")}
    assert "the folder can't be read" in found["tick/jobs.tides/shut"]


def test_an_error_is_seen_though_every_tick_starts_runs_and_so_has_no_message(system: System) -> None:
    add_sensor(system.instance, "jobs.tides", "busy", [(TickStatus.SUCCESS, "")] * 3, logged="half of it can't be read")
    add_sensor(system.instance, "jobs.tides", "well", [(TickStatus.SUCCESS, "")] * 3)
    found = {problem.key: problem.what for problem in system.problems("tick")}
    assert found["tick/jobs.tides/busy"].endswith("say: error: half of it can't be read")
    assert "tick/jobs.tides/well" not in found


def test_a_damaged_record_of_one_kind_hides_no_other_problem(system: System) -> None:
    BROKEN.add("all")
    system.materialize(raw, day="2024-01-02")
    with psycopg2.connect(system.url) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO daemon_heartbeats (daemon_type, timestamp, body) VALUES ('X', now(), '{')")
        cursor.execute("UPDATE runs SET end_time = end_time - 10")
    with connected_to_dagster(system.url) as dagster:
        seen = observe(system.instance, dagster, system.database, None, {}, Limits())
    assert seen.unseen.keys() == {"daemon"}
    assert "run" in {problem.kind for problem in seen.problems}
    with psycopg2.connect(system.url) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM daemon_heartbeats")


def test_a_process_that_knows_no_code_servers_does_not_end_what_another_one_says_of_them(
    system: System, module_dsn: str, tmp_path: Path
) -> None:
    ensure_tables(system.database)
    known = Problem("location/wrecked", "location", "location/wrecked", "can't be loaded", "No.", "Mend it.", wait=60)
    look(system.database, ["log"], (), lambda incidents: decide([known], incidents, 0.0))
    by_hand = World(
        module_dsn, system.url, None, ["file"], lambda _: FileNotifier(tmp_path / "told"), Limits(daemon=1e9)
    )
    look_once(by_hand, system.instance)
    assert read_incidents(system.database).keys() >= {"location/wrecked"}
