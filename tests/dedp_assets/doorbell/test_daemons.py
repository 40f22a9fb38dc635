"""Dagster's own daemons, woken by the bell. Their loops would take an hour: only the bell can have a tick come."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, PartitionBackfill
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget

from dedp_assets.doorbell.daemons import Doorbell, ringing
from tests.dedp_assets.doorbell import watched_location
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere sensors are polled"),
]

HOUR = 3600.0


class System:
    """Dagster's daemons with a doorbell, and their instance."""

    def __init__(self, instance: dg.DagsterInstance, doorbell: Doorbell) -> None:
        self.instance, self.doorbell = instance, doorbell

    def ticks(self, sensor: str) -> list[str]:
        """What the ticks of a sensor said, the last one first. One that is under way has said "…"."""
        for state in self.instance.all_instigator_state():
            if state.instigator_name == sensor:
                ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
                return ["…" if tick.status.value == "STARTED" else tick.skip_reason or "" for tick in ticks]
        return []

    def is_quiet(self) -> bool:
        """Every bell that has rung until now has been answered."""
        sensors = self.doorbell.bell._sensors.values()
        return bool(sensors) and not any(each.known.rung_at or each.is_in_tick for each in sensors)


@pytest.fixture(scope="module")
def instance(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    home: Path = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(
        f"""
        storage: {{postgres: {{postgres_url: '{module_dsn}'}}}}
        run_launcher: {{module: dagster._core.test_utils, class: MockedRunLauncher}}
        run_coordinator: {{module: dagster.core.run_coordinator, class: QueuedRunCoordinator}}
        sensors: {{use_threads: true, num_workers: 4}}
        telemetry: {{enabled: false}}
        """
    )
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made


@contextmanager
def running(instance: dg.DagsterInstance) -> Iterator[System]:
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(executable_path=sys.executable, python_file=watched_location.__file__, attribute="defs"),
        location_name="watched",
    )
    with ExitStack() as stack:
        doorbell = Doorbell(instance, net_seconds=HOUR)
        shutdown = threading.Event()
        stack.enter_context(ringing(doorbell))
        context = stack.enter_context(WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget([origin])))
        daemons = [stack.enter_context(daemon) for daemon in doorbell.daemons(instance)]
        threads = [
            threading.Thread(target=daemon.run_daemon_loop, args=(context, "ours", shutdown, 30, 300), daemon=True)
            for daemon in daemons
            if daemon.daemon_type() in ("SENSOR", "ASSET", "BACKFILL", "QUEUED_RUN_COORDINATOR")
        ]
        for thread in threads:
            thread.start()
        try:
            yield System(instance, doorbell)
        finally:
            shutdown.set()
            for thread in threads:
                thread.join(300)
            assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    monkeypatch.setenv("DEDP_LANDING", str(folder))
    monkeypatch.setattr("dagster._daemon.controller.DEFAULT_DAEMON_INTERVAL_SECONDS", HOUR)
    monkeypatch.setattr("dagster._daemon.sensor.MIN_INTERVAL_LOOP_TIME", HOUR)
    monkeypatch.setattr("dagster._daemon.asset_daemon.MIN_INTERVAL_LOOP_SECONDS", HOUR)
    monkeypatch.setattr("dedp_assets.doorbell.bell.POLL_SECONDS", HOUR)
    monkeypatch.setattr("dedp_assets.doorbell.due.POLL_SECONDS", HOUR)
    return folder


@pytest.fixture
def system(instance: dg.DagsterInstance, landing: Path) -> Iterator[System]:
    with running(instance) as made:
        log = made.doorbell.log
        assert log
        wait_until(lambda: made.doorbell.folders.hears and log.hears)
        # Threads evaluate the sensors, and a busy machine may start one of them later than the others.
        wait_until(lambda: made.ticks("polled") and "…" not in made.ticks("polled"))
        wait_until(lambda: "nothing" in made.ticks("landed") and made.is_quiet())
        yield made


def test_a_renamed_file_has_a_tick_of_dagsters_sensor_daemon_and_no_other_sensor_has_one(
    system: System, landing: Path
) -> None:
    before = system.ticks("polled")
    draft = landing.parent / "draft"
    draft.touch()
    draft.rename(landing / "dataset.csv")
    wait_until(lambda: system.ticks("landed")[0] == "dataset.csv")
    assert system.ticks("polled") == before


def test_a_materialization_has_a_tick_of_the_automation_sensor_and_its_run_leaves_the_queue_at_once(
    system: System,
) -> None:
    system.instance.report_runless_asset_event(dg.AssetMaterialization("orders"))
    wait_until(lambda: any(run.asset_selection == {dg.AssetKey("bills")} for run in system.instance.get_runs()))
    launched = {dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED}
    wait_until(lambda: all(run.status in launched for run in system.instance.get_runs()))


def test_a_backfill_begins_when_it_is_launched_and_ends_with_its_last_run(system: System) -> None:
    shops, graph = dg.AssetKey("shops"), watched_location.defs.resolve_asset_graph()
    system.instance.add_backfill(
        PartitionBackfill.from_asset_graph_subset(
            backfill_id="ofshops",
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=system.instance,
            asset_graph_subset=AssetGraphSubset.from_asset_partition_set(
                {AssetKeyPartitionKey(shops, name) for name in ("north", "south")}, graph
            ),
            title=None,
            description=None,
            run_config=None,
        )
    )
    asked = dg.RunsFilter(tags={"dagster/backfill": "ofshops"}, statuses=[dg.DagsterRunStatus.STARTING])
    wait_until(lambda: len(system.instance.get_runs(asked)) == 2)

    for run in system.instance.get_runs(asked):
        system.instance.report_dagster_event(
            dg.DagsterEvent(DagsterEventType.RUN_SUCCESS.value, run.job_name), run.run_id
        )

    def has_ended() -> bool:
        found = system.instance.get_backfill("ofshops")
        return found is not None and found.status in BULK_ACTION_TERMINAL_STATUSES

    wait_until(has_ended)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_nothing_rings_the_sensors_are_still_evaluated_by_polling(
    instance: dg.DagsterInstance, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("dedp_assets.doorbell.folder_watch.FolderListener.listen", dies)
    monkeypatch.setattr("dedp_assets.doorbell.log.LogListener.listen", dies)
    monkeypatch.setattr("dagster._daemon.sensor.MIN_INTERVAL_LOOP_TIME", 0.3)
    monkeypatch.setattr("dedp_assets.doorbell.due.POLL_SECONDS", 0.3)
    with running(instance) as system:
        (landing / "late.csv").touch()
        wait_until(lambda: "late.csv" in system.ticks("landed"))
        assert not system.doorbell.folders.hears


def test_after_the_daemons_have_ended_dagster_decides_again_by_itself(instance: dg.DagsterInstance) -> None:
    from dagster._daemon import asset_daemon, sensor

    names = [(sensor, "is_under_min_interval"), (asset_daemon, "is_under_min_interval"), (sensor, "_process_tick")]
    stock = [getattr(*name) for name in names]
    with ringing(Doorbell(instance, net_seconds=HOUR)):
        assert not any(getattr(*name) in stock for name in names)
    assert [getattr(*name) for name in names] == stock
