"""All that the doorbell takes from Dagster's private modules, and nothing else does.

Dagster has no public way to say that a sensor is due. What stands here is small: the loops of its daemons wait for an
Event that they are given, and ask one function whether a sensor is still under its minimum interval. A release of
Dagster may move any of it: tests/dedp_assets/doorbell/test_canary.py names what has changed.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import click
from dagster import DagsterInstance
from dagster._core.definitions.sensor_definition import SensorType
from dagster._core.remote_representation.code_location import CodeLocation
from dagster._core.remote_representation.external import RemoteRepository, RemoteSensor
from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData
from dagster._core.workspace.context import IWorkspaceProcessContext
from dagster._daemon import asset_daemon, controller, sensor
from dagster._daemon import cli as daemon_cli
from dagster._daemon.asset_daemon import AssetDaemon
from dagster._daemon.daemon import BackfillDaemon, DagsterDaemon, IntervalDaemon, SensorDaemon
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._time import get_current_timestamp
from dagster._utils import return_as_list

from dedp_assets.doorbell.woken_by import Listener, listener_from_metadata

# Where a name of Dagster stands, and the parameters that we call it with or replace it with. The canary test compares.
TAKEN: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("dagster._daemon.sensor", "is_under_min_interval"): ("state", "remote_sensor", "minimum_allowed_min_interval"),
    ("dagster._daemon.asset_daemon", "is_under_min_interval"): (
        "state",
        "remote_sensor",
        "minimum_allowed_min_interval",
    ),
    ("dagster._daemon.sensor", "_process_tick_generator"): (
        "workspace_process_context",
        "logger",
        "remote_sensor",
        "sensor_state",
        "sensor_debug_crash_flags",
        "tick_retention_settings",
        "submit_threadpool_executor",
    ),
    ("dagster._daemon.sensor", "get_elapsed"): ("state",),
    ("dagster._daemon.asset_daemon", "AssetDaemon._process_auto_materialize_tick"): (
        "self",
        "workspace_process_context",
        "workspace",
        "repository",
        "sensor",
        "debug_crash_flags",
    ),
    ("dagster._daemon.daemon", "DagsterDaemon.core_loop"): ("self", "workspace_process_context", "shutdown_event"),
    ("dagster._daemon.daemon", "IntervalDaemon.run_iteration"): ("self", "workspace_process_context"),
    ("dagster._daemon.daemon", "BackfillDaemon.core_loop"): ("self", "workspace_process_context", "shutdown_event"),
    ("dagster._daemon.controller", "create_daemons_from_instance"): ("instance",),
    ("dagster._daemon.cli", "daemon_controller_from_instance"): (
        "instance",
        "workspace_load_target",
        "heartbeat_interval_seconds",
        "heartbeat_tolerance_seconds",
        "gen_daemons",
        "error_interval_seconds",
        "code_server_log_level",
        "log_level",
        "log_format",
    ),
}

# What the loops are to do with what they are given. Of the source, because no call shows it without a wait.
WAITS: Mapping[tuple[str, str], str] = {
    ("dagster._daemon.sensor", "execute_sensor_iteration_loop"): "shutdown_event.wait(sleep_time)",
    ("dagster._daemon.sensor", "execute_sensor_iteration"): "elif is_under_min_interval(sensor_state, sensor):",
    ("dagster._daemon.asset_daemon", "AssetDaemon.core_loop"): "shutdown_event.wait(sleep_time)",
    ("dagster._daemon.backfill", "execute_backfill_iteration_loop"): "shutdown_event.wait(sleep_time)",
    ("dagster._daemon.daemon", "IntervalDaemon.core_loop"): "while time.time() - start_time < interval:",
    ("dagster_postgres.event_log.event_log", "PostgresEventLogStorage.store_event"): "NOTIFY {CHANNEL_NAME}",
}


def required_daemons(instance: DagsterInstance) -> list[DagsterDaemon[Any]]:
    """Dagster's own daemons, as `dagster-daemon run` makes them."""
    return list(controller.create_daemons_from_instance(instance))


def daemon_command(gen_daemons: Callable[[DagsterInstance], Iterable[DagsterDaemon[Any]]]) -> click.Command:
    """The command `dagster-daemon run`, with all its options, for other daemons."""
    controlled = partial(controller.daemon_controller_from_instance, gen_daemons=gen_daemons)
    setattr(daemon_cli, "daemon_controller_from_instance", controlled)  # noqa: B010
    return daemon_cli.run_command


def code_locations(context: IWorkspaceProcessContext[Any]) -> list[CodeLocation]:
    """The code locations of the workspace that are loaded. One that was loaded again is another object."""
    entries = context.create_request_context().get_code_location_entries().values()
    return [entry.code_location for entry in entries if entry.code_location]


def listeners_in(locations: Iterable[CodeLocation]) -> dict[str, Listener]:
    """What wakes each sensor, by the id that Dagster selects it by."""
    return {
        each.selector_id: _listener(each, repository)
        for location in locations
        for repository in location.get_repositories().values()
        for each in repository.get_sensors()
    }


def _listener(each: RemoteSensor, repository: RemoteRepository) -> Listener:
    name, location, interval = each.name, each.handle.location_name, float(each.min_interval_seconds)
    kind, metadata = each.sensor_type, each.metadata
    if kind in (SensorType.AUTOMATION, SensorType.AUTO_MATERIALIZE):
        # Conditions look at the assets that the location knows, and at whether its own runs are in progress.
        nodes = repository.get_asset_node_snaps()
        keys = {node.asset_key for node in nodes}
        keys |= {edge.parent_asset_key for node in nodes for edge in node.parent_edges}
        daemon = "ASSET" if kind.is_handled_by_asset_daemon else "SENSOR"
        assets = frozenset(key.to_string() for key in keys)
        return Listener(name, location, interval, assets=assets, own_runs=True, daemon=daemon)
    if kind in (SensorType.ASSET, SensorType.MULTI_ASSET) and metadata and metadata.asset_keys:
        return Listener(name, location, interval, assets=frozenset(key.to_string() for key in metadata.asset_keys))
    if kind == SensorType.RUN_STATUS:
        return Listener(name, location, interval, all_runs=True)
    return listener_from_metadata(name, location, interval, (metadata and metadata.standard_metadata) or {})


def connect_to_log(instance: DagsterInstance) -> Callable[[], Any] | None:
    """How to open a connection to the PostgreSQL database of the log; None if the log is elsewhere."""
    try:
        from dagster_postgres import PostgresEventLogStorage
    except ImportError:
        return None
    storage = instance.event_log_storage
    if not isinstance(storage, PostgresEventLogStorage):
        return None
    engine = storage._engine  # it knows how to log in, also with tokens

    def connect() -> Any:
        connection = engine.raw_connection()
        try:
            return connection.driver_connection
        finally:
            connection.detach()

    return connect


@contextmanager
def replaced(
    is_due: Callable[[str, float | None, bool], bool | None],
    tick_begins: Callable[[str], None],
    tick_ended: Callable[[str], None],
) -> Iterator[None]:
    """Have Dagster's sensor and asset daemons ask us whether a sensor is due, and tell us of its ticks.

    Args:
        is_due: whether to evaluate a sensor: its id, when its last tick began (s since the epoch), and whether that
            failed. None: Dagster decides.
        tick_begins: a tick of the sensor begins.
        tick_ended: it has ended.
    """
    stock_check, stock_tick = sensor.is_under_min_interval, sensor._process_tick_generator
    stock_asset_tick = AssetDaemon._process_auto_materialize_tick
    in_tick: set[str] = set()

    def is_under_min_interval(
        state: InstigatorState, remote_sensor: RemoteSensor, minimum_allowed_min_interval: int | None = None
    ) -> bool:
        if remote_sensor.selector_id in in_tick:
            return False  # It was decided, when the tick was asked for.
        elapsed, data = sensor.get_elapsed(state), state.instigator_data
        if elapsed is not None and minimum_allowed_min_interval and elapsed < minimum_allowed_min_interval:
            return True
        has_failed = (
            isinstance(data, SensorInstigatorData)
            and data.last_tick_timestamp is not None
            and data.last_tick_success_timestamp is None
        )
        began = None if elapsed is None else get_current_timestamp() - elapsed
        due = is_due(remote_sensor.selector_id, began, has_failed)
        return stock_check(state, remote_sensor, minimum_allowed_min_interval) if due is None else not due

    @contextmanager
    def tick_of(id: str) -> Iterator[None]:
        in_tick.add(id)
        tick_begins(id)
        try:
            yield
        finally:
            in_tick.discard(id)
            tick_ended(id)

    def process_tick(context: Any, log: Any, remote_sensor: RemoteSensor, *others: Any, **named: Any) -> Iterator[Any]:
        with tick_of(remote_sensor.selector_id):
            yield from stock_tick(context, log, remote_sensor, *others, **named)

    def process_asset_tick(
        self: Any, context: Any, workspace: Any, repository: Any, each: RemoteSensor | None, *others: Any
    ) -> None:
        with tick_of(each.selector_id) if each else nullcontext():
            stock_asset_tick(self, context, workspace, repository, each, *others)

    replacements: list[tuple[Any, str, Any]] = [
        (sensor, "is_under_min_interval", is_under_min_interval),
        (asset_daemon, "is_under_min_interval", is_under_min_interval),
        (sensor, "_process_tick_generator", process_tick),
        (sensor, "_process_tick", return_as_list(process_tick)),
        (AssetDaemon, "_process_auto_materialize_tick", process_asset_tick),
    ]
    stock = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    for owner, name, ours in replacements:
        setattr(owner, name, ours)
    try:
        yield
    finally:
        for owner, name, theirs in stock:
            setattr(owner, name, theirs)


def moved(taken: Mapping[tuple[str, str], tuple[str, ...]] = TAKEN) -> list[str]:
    """What of Dagster is not where we take it from, or has other parameters."""
    wrong = []
    for (module, name), parameters in taken.items():
        found = named(module, name)
        if found is None:
            wrong.append(f"{module}.{name} is gone")
        elif tuple(inspect.signature(found).parameters) != parameters:
            wrong.append(f"{module}.{name} takes {', '.join(inspect.signature(found).parameters)}")
    return wrong


def waits_otherwise(waits: Mapping[tuple[str, str], str] = WAITS) -> list[str]:
    """What of Dagster does not do any more what we rely on."""
    wrong = []
    for (module, name), line in waits.items():
        found = named(module, name)
        if found is None or line not in inspect.getsource(found):
            wrong.append(f"{module}.{name} has no `{line}`")
    return wrong


def named(module: str, name: str) -> Any:
    """What has this name in a module, also below a class; None if there is none."""
    try:
        found: Any = __import__(module, fromlist=["_"])
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return found


__all__ = [
    "AssetDaemon",
    "BackfillDaemon",
    "CodeLocation",
    "DagsterDaemon",
    "IWorkspaceProcessContext",
    "IntervalDaemon",
    "QueuedRunCoordinatorDaemon",
    "SensorDaemon",
    "code_locations",
    "connect_to_log",
    "daemon_command",
    "listeners_in",
    "moved",
    "replaced",
    "required_daemons",
    "waits_otherwise",
]
