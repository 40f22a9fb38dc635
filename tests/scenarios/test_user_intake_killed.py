"""Runs of the user intake that are killed: a day is the old one or the new one, and the next run does what is left.

A run is `dagster asset materialize`, against a real API and a real PostgreSQL, which has Dagster's history, too. A run
comes to rest where a test wants it, because the API is silent or a table is locked. Then it gets `kill -9`.
"""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import dagster as dg
import psycopg2
import pytest

from dedp_assets.resources_from_settings import PostgresFromSettings
from dedp_assets.user_intake import contract
from dedp_assets.user_intake.storing import ensure_tables
from jobs.user_intake import defs
from sensors import reconciliation
from sensors.pipelines.user_intake import users_reconciled
from tests.ticks import SensorTicks
from tests.user_api import Api, user, user_api
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

DAY = "2024-01-05"

# Two pages, so that a run can be killed between them. Then one user has moved, one is new, and another one is bad.
BEFORE = [user(0), *(user(number) for number in range(1, 130)), user(200, email="not an email")]
AFTER = [user(0, location={"country": "Iceland"}), *BEFORE[1:130], user(130), user(201, email=None)]

# What the day's users are, what its quarantine is, and what is written in its accounts.
Stored = tuple[dict[str, str], list[int], list[tuple[int, ...]]]
ACCOUNTS = "received, stored, quarantined, inserted, updated, unchanged"
OLD: Stored = ({user["email"]: "Norway" for user in BEFORE[:130]}, [131], [(131, 130, 1, 130, 0, 0)])
NEW: Stored = (
    OLD[0] | {"ann0@example.org": "Iceland", "ann130@example.org": "Norway"},
    [132],
    [(132, 131, 1, 1, 1, 129)],
)

# By the moment, in the order in which a run comes by: the table that it waits for.
BEFORE_THE_COMMIT = {
    "between the copy and the upsert": "dedp.users",
    "in the middle of the upsert": "dedp.users_as_of",
    "at the last statement": "dedp.users_intakes",
}


@pytest.fixture(scope="module")
def history(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance for all tests of this file, and the tables of the intake in the same database."""
    with closing(psycopg2.connect(module_dsn)) as connection:
        ensure_tables(connection)
    home = tmp_path_factory.mktemp("dagster")
    settings = {"storage": {"postgres": {"postgres_url": module_dsn}}, "telemetry": {"enabled": False}}
    (home / "dagster.yaml").write_text(json.dumps(settings))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def api() -> Iterator[Api]:
    with user_api() as running:
        yield running


@pytest.fixture
def instance(
    history: dg.DagsterInstance, module_dsn: str, api: Api, monkeypatch: pytest.MonkeyPatch
) -> dg.DagsterInstance:
    """The day was taken in, and the API has changed since."""
    monkeypatch.setenv("DAGSTER_HOME", history.root_directory)
    monkeypatch.setenv("DEDP_POSTGRES_DSN", module_dsn)
    monkeypatch.setenv("DEDP_USERS_API", api.url)
    query("TRUNCATE dedp.users, dedp.users_as_of, dedp.users_quarantine, dedp.users_intakes; SELECT 1")
    api.users = BEFORE
    take_in(history)
    assert stored() == OLD
    api.users = AFTER
    return history


def query(sql: str) -> list[tuple[Any, ...]]:
    with PostgresFromSettings().connect() as connection, connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def stored() -> Stored:
    return (
        dict(query("SELECT email, country FROM dedp.users")),
        [number for (number,) in query("SELECT number FROM dedp.users_quarantine")],
        query(f"SELECT {ACCOUNTS} FROM dedp.users_intakes"),
    )


def copied() -> int:
    """How many users the raw copy of the day has."""
    return len(contract.raw_copy(DAY).read_text().splitlines()) - 1


def take_in(instance: dg.DagsterInstance, *keys: dg.AssetKey) -> None:
    """A run of the day to its end, in this process."""
    job = defs.resolve_implicit_global_asset_job_def()
    selection = list(keys or (contract.RAW, contract.USERS))
    assert job.execute_in_process(instance=instance, partition_key=DAY, asset_selection=selection).success


def is_behind(instance: dg.DagsterInstance) -> bool:
    """Whether a tick of the reconciling sensor finds that the users of the day stay behind their raw copy."""
    tick = SensorTicks(users_reconciled, instance, resources={"postgres": PostgresFromSettings()})()
    return DAY in reconciliation.from_json(tick.cursor)


# Its processes have Dagster's modules already.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__, "dagster._cli", "dedp_assets.user_intake.fetching"])


@contextmanager
def run_until_killed() -> Iterator[None]:
    """A run of the day in a process of its own. It is killed at the end of the block."""
    process = _FORKS.Process(target=dagster_materialize, args=(dict(os.environ),))
    process.start()
    try:
        yield
        assert process.is_alive(), "it has ended by itself"
    finally:
        process.kill()
        process.join()


def dagster_materialize(environment: dict[str, str]) -> None:
    from dagster._cli import main

    os.environ.update(environment)
    what = ["-m", "jobs.user_intake", "--select", "users/raw*", "--partition", DAY]
    sys.argv = ["dagster", "asset", "materialize", *what]
    main()  # type: ignore[no-untyped-call]  # Dagster has no type for it


@contextmanager
def locked(table: str) -> Iterator[None]:
    """Others can only read the table."""
    with closing(psycopg2.connect(PostgresFromSettings().address())) as connection, connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
        yield


def wait_for_a_run_at(table: str) -> None:
    """Until a run waits for the lock of the table."""
    wait_until(lambda: query(f"SELECT 1 FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted"))


def test_a_run_killed_while_it_fetches_a_page_leaves_the_old_day_and_the_next_run_fetches_all_pages(
    instance: dg.DagsterInstance, api: Api
) -> None:
    api.asked.clear()
    api.answers = [api.page, api.silent]
    with run_until_killed():
        wait_until(lambda: len(api.asked) == 2)
    assert (stored(), copied()) == (OLD, 131)
    assert not is_behind(instance), "nothing new is known yet"

    take_in(instance)
    assert (stored(), copied()) == (NEW, 132)


@pytest.mark.parametrize("table", BEFORE_THE_COMMIT.values(), ids=BEFORE_THE_COMMIT)
def test_a_run_killed_while_it_stores_leaves_the_old_users_and_the_next_run_needs_no_second_fetch(
    instance: dg.DagsterInstance, api: Api, table: str
) -> None:
    api.asked.clear()
    with locked(table), run_until_killed():
        wait_for_a_run_at(table)
    assert (stored(), copied()) == (OLD, 132)
    assert is_behind(instance)

    take_in(instance, contract.USERS)
    assert stored() == NEW
    assert len(api.asked) == 2, "one fetch of two pages"
    assert not is_behind(instance)


def test_a_run_killed_after_its_commit_has_stored_the_day_and_the_next_run_changes_nothing(
    instance: dg.DagsterInstance,
) -> None:
    """Dagster does not know of it: its table of events is locked."""
    with run_until_killed(), ExitStack() as event_log:
        with locked("dedp.users_intakes"):
            wait_for_a_run_at("dedp.users_intakes")
            event_log.enter_context(locked("public.event_logs"))
        wait_for_a_run_at("public.event_logs")
        assert stored() == NEW

    take_in(instance)
    users, quarantine, _ = NEW
    assert stored() == (users, quarantine, [(132, 131, 1, 0, 0, 131)])
