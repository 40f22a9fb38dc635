"""`dedp metrics` has the figures of a real Dagster instance, also without a daemon, and serves them to Prometheus."""

import subprocess
import time
import urllib.request

import dagster as dg
import psycopg2
import pytest
from dagster._core.scheduler.instigation import TickStatus
from dagster._daemon.types import DaemonHeartbeat
from prometheus_client.parser import text_string_to_metric_families

from dedp_assets import local_stack
from dedp_assets.alerts import store
from dedp_assets.alerts.incidents import Problem, decide
from tests.dagster_in_postgres import dagster_in_postgres
from tests.dedp_command import DEDP, run_dedp
from tests.stored_ticks import add_sensor

pytestmark = pytest.mark.slow


FILE, RAW = dg.AssetKey("devices_file"), dg.AssetKey(["dedp", "devices_raw"])

LATER = """
    UPDATE dagster.event_logs SET "timestamp" = "timestamp" + %s::interval
    WHERE id = (SELECT id FROM dagster.event_logs WHERE asset_key = %s ORDER BY id OFFSET %s LIMIT 1)
"""


@dg.asset
def fine() -> None: ...


@dg.asset
def faulty() -> None:
    raise ValueError("no")


@dg.job
def work() -> None: ...


@pytest.fixture(scope="module")
def used_dsn(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database in which runs have run, a sensor was evaluated, and somebody was alerted."""
    with dagster_in_postgres(module_dsn, tmp_path_factory.mktemp("instance")) as (instance, _):
        tags = {".dagster/repository": "__repository__@jobs.tides"}
        dg.materialize([fine], instance=instance, tags=tags)
        for _ in range(2):
            dg.materialize([faulty], instance=instance, tags=tags, raise_on_error=False)
        instance.create_run_for_job(work, status=dg.DagsterRunStatus.STARTED)
        instance.create_run_for_job(work, status=dg.DagsterRunStatus.NOT_STARTED)
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 40, "SENSOR", "x", []))
        skipped, failed = (TickStatus.SKIPPED, "nothing new"), (TickStatus.FAILURE, "no")
        under_way = (TickStatus.STARTED, "")
        add_sensor(instance, "jobs.tides", "watched", [skipped, skipped, failed, under_way])
        add_sensor(instance, "jobs.tides", "wrong", [skipped, (TickStatus.SKIPPED, "error: the folder can't be read")])
        add_sensor(instance, "jobs.tides", '"odd"\\\n', [skipped])
        for key in (FILE, RAW, RAW):  # a file that was loaded, and then loaded again by hand
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2024-01-02"))
    connection = psycopg2.connect(module_dsn)
    with connection, connection.cursor() as cursor:
        # The file was complete 30 s before its rows were there, and the second load is of an hour later.
        cursor.execute(LATER, ["-30 s", FILE.to_string(), 0])
        cursor.execute(LATER, ["1 h", RAW.to_string(), 1])
    store.ensure_tables(connection)
    with connection, connection.cursor() as cursor:
        # What waits for a target that is in no settings any more, is nothing that somebody has to mend.
        cursor.execute("INSERT INTO dedp.alert_targets VALUES ('replaced', now() - interval '1 h')")
    problem = Problem("run/faulty/", "run", "run/faulty", "faulty failed", "faulty failed.", "Mend it.")
    store.look(connection, ["a"], (), lambda incidents: decide([problem], incidents, 0.0))
    connection.close()
    return module_dsn


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The values by name and labels, in the alphabetical order of the labels' names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_figures_are_those_of_what_has_happened(used_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", used_dsn)
    ended = run_dedp("metrics")
    assert ended.returncode == 0, ended.stderr
    found = samples(ended.stdout)
    job = "__ephemeral_asset_job__"
    for name, value in {
        ("dedp_database_up",): 1,
        ("dedp_runs_finished", job, "jobs.tides", "SUCCESS", "1h"): 1,
        ("dedp_runs_finished", job, "jobs.tides", "FAILURE", "1d"): 2,
        ("dedp_runs_under_way", "work", "STARTED"): 1,
        ("dedp_queue_length",): 1,
        ("dedp_ticks", "jobs.tides", "watched", "SKIPPED"): 2,
        ("dedp_last_tick_failed", "jobs.tides", "watched"): 1,
        ("dedp_last_tick_failed", "jobs.tides", "wrong"): 1,
        ("dedp_last_tick_failed", "jobs.tides", '"odd"\\\n'): 0,
        ("dedp_daemon_errors", "SENSOR"): 0,
        ("dedp_incidents_open", "run", "error"): 1,
        ("dedp_alerts_undelivered",): 1,
    }.items():
        assert found[name] == value, name
    assert found["dedp_daemon_silent_seconds", "SENSOR"] >= 40
    assert found["dedp_asset_updated_timestamp_seconds", "fine"] == pytest.approx(time.time(), abs=600)
    assert ("dedp_asset_updated_timestamp_seconds", "faulty") not in found
    for window in ("1h", "1d"):
        assert 30 <= found["dedp_landing_to_result_seconds", "sequencer", "0.95", window] < 300
    assert found["dedp_run_duration_seconds", job, "jobs.tides", "0.95", "SUCCESS", "1h"] > 0


def test_no_label_has_a_value_for_each_run_or_partition(used_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDP_POSTGRES_DSN", used_dsn)
    names = {
        label
        for each in text_string_to_metric_families(run_dedp("metrics").stdout)
        for sample in each.samples
        for label in sample.labels
    }
    assert not names & {"run_id", "partition", "run", "file"}


def test_the_figures_are_served_and_say_when_the_database_is_away(
    used_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def served(dsn: str) -> dict[tuple[str, ...], float]:
        monkeypatch.setenv("DEDP_POSTGRES_DSN", dsn)
        port = local_stack.free_port()
        server = subprocess.Popen([DEDP, "metrics", "--serve", "--port", str(port)], stderr=subprocess.PIPE, text=True)
        assert server.stderr
        try:
            assert f"http://127.0.0.1:{port}/metrics" in server.stderr.readline()
            opened = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opened.open(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                return samples(answer.read().decode())
        finally:
            server.terminate()
            server.communicate()

    assert served(used_dsn)["dedp_queue_length",] == 1
    assert served("postgresql://nobody@127.0.0.1:1/nothing") == {("dedp_database_up",): 0}
