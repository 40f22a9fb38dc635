"""Events in Dagster's log ring the bell, on a real PostgreSQL with Dagster's real storage."""

import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from dedp_assets.doorbell._dagster import connect_to_log
from dedp_assets.doorbell.bell import Bell
from dedp_assets.doorbell.log import (
    _BACKFILL_TRIGGER,
    _TRIGGER,
    LogEvent,
    LogListener,
    told_ids,
    wakes_backfills,
    wakes_queue,
    woken,
)
from dedp_assets.doorbell.sources import LONGEST_PAUSE_SECONDS, Source, next_pause
from dedp_assets.doorbell.woken_by import Listener, listener_from_metadata, woken_by
from dedp_assets.resources import embedded_postgres
from tests.waiting import wait_until

ORDERS, BILLS = dg.AssetKey("orders"), dg.AssetKey(["shop", "bills"])
LISTENERS = {
    "follows": Listener("follows", "shop", 1, assets=frozenset({ORDERS.to_string()}), own_runs=True),
    "elsewhere": Listener("elsewhere", "office", 1, assets=frozenset({BILLS.to_string()})),
    "any run": Listener("any run", "office", 1, all_runs=True),
    "files": Listener("files", "shop", 1, folders="module:name"),
}


def test_an_event_of_an_asset_wakes_those_that_look_at_this_asset() -> None:
    assert woken([LogEvent(1, "ASSET_MATERIALIZATION", ORDERS.to_string(), "shop")], LISTENERS) == {"follows"}
    assert woken([LogEvent(1, "ASSET_OBSERVATION", BILLS.to_string(), "shop")], LISTENERS) == {"elsewhere"}


def test_the_end_of_a_run_wakes_its_own_location_and_those_that_look_at_any_run() -> None:
    assert woken([LogEvent(1, "PIPELINE_SUCCESS", None, "shop")], LISTENERS) == {"follows", "any run"}
    assert woken([LogEvent(1, "PIPELINE_FAILURE", None, "office")], LISTENERS) == {"any run"}


def test_the_end_of_a_run_whose_location_is_not_known_wakes_every_location() -> None:
    assert woken([LogEvent(1, "PIPELINE_CANCELED")], LISTENERS) == {"follows", "any run"}


def test_a_run_that_waits_or_ends_wakes_the_queue_and_one_that_starts_does_not() -> None:
    assert wakes_queue([LogEvent(1, "PIPELINE_ENQUEUED")])
    assert wakes_queue([LogEvent(1, "PIPELINE_FAILURE")])
    assert not wakes_queue([LogEvent(1, "PIPELINE_START"), LogEvent(2, "ASSET_MATERIALIZATION", "[]")])


def test_only_the_end_of_a_run_wakes_the_backfills() -> None:
    assert wakes_backfills([LogEvent(1, "PIPELINE_FAILURE")])
    assert not wakes_backfills([LogEvent(1, "PIPELINE_ENQUEUED"), LogEvent(2, "ASSET_MATERIALIZATION", "[]")])


def test_the_ids_of_events_are_read_from_notifications_also_of_runless_events_and_of_our_trigger() -> None:
    assert told_ids(["6f1c-22_17", "_18", "", "nonsense"]) == {17, 18}


def test_what_wakes_a_sensor_comes_back_from_its_metadata() -> None:
    metadata = woken_by(folders="module:name", assets=[ORDERS, BILLS], own_runs=True)
    keys = frozenset({ORDERS.to_string(), BILLS.to_string()})
    listener = Listener("a", "b", 1, folders="module:name", assets=keys, own_runs=True)
    assert listener_from_metadata("a", "b", 1, metadata) == listener
    assert not listener_from_metadata("a", "b", 1, {}).has_bell


def test_the_pauses_between_attempts_grow_up_to_a_bound() -> None:
    assert next_pause(0.5) == 1.0
    assert next_pause(29.0) == LONGEST_PAUSE_SECONDS


class Heard(Bell):
    """Notes who was rung for."""

    def __init__(self) -> None:
        super().__init__()
        self.rung: set[str] = set()
        self.set_listeners(LISTENERS)

    def ring(self, sensors: object, settle: float = 0.0) -> None:
        self.rung |= set(sensors)  # type: ignore[call-overload]

    def ring_queue(self) -> None:
        self.rung.add("queue")

    def ring_backfills(self) -> None:
        self.rung.add("backfills")


class Listening:
    """A listener to the log of an instance, and what it has heard."""

    def __init__(self, dsn: str, instance: dg.DagsterInstance, net_seconds: float) -> None:
        self.dsn, self.instance, self.bell = dsn, instance, Heard()
        self.stopped = threading.Event()
        connect = connect_to_log(instance)
        assert connect
        self.listener = LogListener(connect, self.bell, self.stopped, net_seconds)
        self.source = Source("Dagster's log", self.listener.listen, self.stopped)

    def start(self) -> None:
        self.source.start()
        wait_until(self.has_rung_for_all)
        self.bell.rung.clear()

    def has_rung_for_all(self) -> bool:
        """Whether all has been rung for that looks at the log, as when the connection has just been made."""
        return self.bell.rung == {"follows", "elsewhere", "any run", "queue", "backfills"}

    def stop(self) -> None:
        self.stopped.set()
        self.listener.stop()
        self.source.join(300)

    def execute(self, statement: str) -> None:
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = True
        with connection.cursor() as sql:
            sql.execute(statement)
        connection.close()


def instance_in(home: Path, dsn: str) -> dg.DagsterInstance:
    (home / "dagster.yaml").write_text(
        f"storage: {{postgres: {{postgres_url: '{dsn}'}}}}\ntelemetry: {{enabled: false}}\n"
    )
    return dg.DagsterInstance.from_config(str(home))


@pytest.fixture(scope="module")
def instance(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with instance_in(tmp_path_factory.mktemp("dagster"), module_dsn) as made:
        yield made


@pytest.fixture
def listening(module_dsn: str, instance: dg.DagsterInstance) -> Iterator[Listening]:
    made = Listening(module_dsn, instance, net_seconds=3600)
    made.start()
    yield made
    made.stop()


def materialize(instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(ORDERS))


def test_a_materialization_rings_for_those_that_look_at_the_asset_and_nobody_else(listening: Listening) -> None:
    materialize(listening.instance)
    wait_until(lambda: bool(listening.bell.rung))
    assert listening.bell.rung == {"follows"}


def test_when_the_end_of_a_run_rings_dagster_has_stored_that_the_run_has_ended(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It rings without that, too, if Dagster takes longer: as here on a busy machine.
    monkeypatch.setattr("dedp_assets.doorbell.log._EFFECT_SECONDS", 300)

    @dg.op
    def nothing() -> None: ...

    @dg.job
    def work() -> None:
        nothing()

    run = listening.instance.create_run_for_job(work)
    statuses: list[dg.DagsterRunStatus] = []

    def ring_queue() -> None:
        statuses.append(listening.instance.get_runs()[0].status)

    listening.bell.ring_queue = ring_queue  # type: ignore[method-assign]
    listening.instance.report_run_canceled(run)
    wait_until(lambda: bool(statuses))
    assert statuses[0] == dg.DagsterRunStatus.CANCELED


def test_a_backfill_that_is_launched_or_canceled_rings_and_its_progress_does_not(listening: Listening) -> None:
    backfill = PartitionBackfill("b", BulkActionStatus.REQUESTED, from_failure=False, tags={}, backfill_timestamp=1.0)
    listening.instance.add_backfill(backfill)
    wait_until(lambda: listening.bell.rung == {"backfills"})

    listening.bell.rung.clear()
    listening.instance.update_backfill(backfill._replace(last_submitted_partition_name="2024-01-01"))
    materialize(listening.instance)
    wait_until(lambda: "follows" in listening.bell.rung)
    assert "backfills" not in listening.bell.rung

    listening.instance.update_backfill(backfill._replace(status=BulkActionStatus.CANCELING))
    wait_until(lambda: "backfills" in listening.bell.rung)


def test_daemons_that_start_at_once_make_the_triggers_without_an_error(listening: Listening) -> None:
    with ThreadPoolExecutor(8) as starting:
        list(starting.map(listening.execute, [_TRIGGER, _BACKFILL_TRIGGER] * 20))


def test_a_trigger_of_an_earlier_version_still_rings(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    listening.execute(_TRIGGER.replace("dedp_doorbell('run_events')", "dedp_doorbell()"))
    monkeypatch.setattr("dagster_postgres.event_log.event_log.CHANNEL_NAME", "another_channel")
    materialize(listening.instance)
    wait_until(lambda: "follows" in listening.bell.rung)
    listening.execute("DROP TRIGGER dedp_doorbell ON event_logs")


def test_without_the_privilege_for_a_trigger_everything_else_rings(
    module_dsn: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dedp_assets.doorbell.log._HAS_BACKFILL_TRIGGER", "SELECT false")
    monkeypatch.setattr("dedp_assets.doorbell.log._BACKFILL_TRIGGER", "CREATE TABLE pg_catalog.forbidden ()")
    made = Listening(module_dsn, instance, net_seconds=3600)
    made.start()
    materialize(instance)
    wait_until(lambda: "follows" in made.bell.rung)
    made.stop()
    assert "they are looked at every 30 s" in caplog.text


def test_a_lost_connection_comes_back_and_then_everything_that_looks_at_the_log_is_rung_for(
    listening: Listening,
) -> None:
    listening.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database() AND query NOT LIKE '%pg_stat%'"
    )
    wait_until(lambda: not listening.source.hears or bool(listening.bell.rung))
    wait_until(lambda: listening.source.hears and listening.has_rung_for_all())
    listening.bell.rung.clear()
    materialize(listening.instance)
    wait_until(lambda: "follows" in listening.bell.rung)


@pytest.mark.slow
def test_when_postgresql_is_stopped_and_started_again_the_bell_rings_again(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="dedp-tests-") as folder:
        with embedded_postgres.server_lease(Path(folder)) as dsn:
            made = Listening(dsn, instance_in(tmp_path, dsn), net_seconds=3600)
            made.start()
        wait_until(lambda: not made.source.hears)
        with embedded_postgres.server_lease(Path(folder)):
            wait_until(lambda: made.source.hears and made.has_rung_for_all())
            made.bell.rung.clear()
            materialize(made.instance)
            wait_until(lambda: "follows" in made.bell.rung)
            made.stop()
            made.instance.dispose()


def test_a_notification_that_comes_twice_or_late_or_of_nothing_does_no_harm(listening: Listening) -> None:
    materialize(listening.instance)
    wait_until(lambda: "follows" in listening.bell.rung)
    for payload in ("a_1", "a_1", "a_999999999", "", "what"):
        listening.execute(f"NOTIFY run_events, '{payload}'")
    listening.bell.rung.clear()
    listening.instance.report_runless_asset_event(dg.AssetMaterialization(BILLS))
    wait_until(lambda: "elsewhere" in listening.bell.rung)
    assert listening.source.hears


def test_an_event_that_nobody_was_told_of_is_found_by_the_net_and_a_trigger_tells_of_the_next(
    module_dsn: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagster_postgres.event_log.event_log.CHANNEL_NAME", "another_channel")
    monkeypatch.setattr("dedp_assets.doorbell.log._NOTIFICATION_SECONDS", 0.05)
    made = Listening(module_dsn, instance, net_seconds=0.2)
    made.start()
    materialize(instance)
    wait_until(lambda: "follows" in made.bell.rung)
    wait_until(lambda: made.listener._has_trigger)
    made.bell.rung.clear()
    made.listener._net_seconds = 3600
    materialize(instance)
    wait_until(lambda: "follows" in made.bell.rung)
    assert not made.listener.is_mute
    made.execute("DROP FUNCTION dedp_doorbell CASCADE")
    made.stop()


def test_where_neither_dagster_nor_a_trigger_can_notify_the_log_is_read_and_the_sensors_are_polled(
    module_dsn: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagster_postgres.event_log.event_log.CHANNEL_NAME", "another_channel")
    monkeypatch.setattr("dedp_assets.doorbell.log._NOTIFICATION_SECONDS", 0.05)
    monkeypatch.setattr("dedp_assets.doorbell.log._TRIGGER", "SELECT 1 / 0")
    monkeypatch.setattr("dedp_assets.doorbell.log.POLL_SECONDS", 0.1)
    made = Listening(module_dsn, instance, net_seconds=0.2)
    made.start()
    materialize(instance)
    wait_until(lambda: made.listener.is_mute)
    made.bell.rung.clear()
    materialize(instance)
    wait_until(lambda: "follows" in made.bell.rung)
    made.stop()


def test_what_listens_and_fails_says_so_and_starts_again(caplog: pytest.LogCaptureFixture) -> None:
    stopped, tries = threading.Event(), []

    def listen(say_hearing: Callable[[], None]) -> None:
        say_hearing()
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("the wire is cut")
        stopped.wait()

    source = Source("the wire", listen, stopped)
    source.start()
    wait_until(lambda: len(tries) == 2)
    assert source.hears
    assert "the doorbell hears nothing of the wire: the wire is cut. Sensors are polled every 5 s" in caplog.text
    stopped.set()
    source.join(300)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_thread_of_a_source_dies_it_counts_as_deaf() -> None:
    def listen(say_hearing: Callable[[], None]) -> None:
        say_hearing()
        raise SystemExit

    source = Source("the wire", listen, threading.Event())
    source.start()
    source.join(300)
    assert not source.hears
