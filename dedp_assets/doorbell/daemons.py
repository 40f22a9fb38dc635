"""Dagster's daemons, with a bell that ends the waits of their loops."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dagster import DagsterInstance

from dedp_assets.doorbell._dagster import (
    AssetDaemon,
    BackfillDaemon,
    CodeLocation,
    DagsterDaemon,
    IWorkspaceProcessContext,
    QueuedRunCoordinatorDaemon,
    SensorDaemon,
    code_locations,
    connect_to_log,
    listeners_in,
    replaced,
    required_daemons,
)
from dedp_assets.doorbell.bell import Bell
from dedp_assets.doorbell.folder_watch import FolderListener
from dedp_assets.doorbell.log import LogListener
from dedp_assets.doorbell.sources import Source, logger


class Doorbell:
    """The bell, and the sources that ring it. They begin with the first loop of a daemon, and end with it.

    Args:
        instance: Dagster's.
        net_seconds: how often a sensor is evaluated without a bell, where bells ring for it.
    """

    def __init__(self, instance: DagsterInstance, net_seconds: float) -> None:
        self.bell = Bell(net_seconds)
        self._stopped = threading.Event()
        self._started = threading.Lock()
        self._is_started = False
        self._locations: list[CodeLocation] = []
        self._folders = FolderListener(self.bell, self._stopped, net_seconds)
        self.folders = Source("the directories that sensors watch", self._folders.listen, self._stopped)
        self.bell.set_deaf("folders", lambda sensor: not self.folders.hears or self._folders.is_deaf(sensor))
        self.log: Source | None = None
        connect = connect_to_log(instance)
        if connect is None:
            logger.warning("Dagster's log is not in PostgreSQL, so nothing tells of its events; it is polled every 5 s")
            return
        self._log = LogListener(connect, self.bell, self._stopped, net_seconds)
        log = self.log = Source("Dagster's log", self._log.listen, self._stopped)
        self.bell.set_deaf("log", lambda sensor: not log.hears or self._log.is_mute)

    def daemons(self, instance: DagsterInstance) -> list[DagsterDaemon[Any]]:
        """Dagster's own daemons. Those that look for something new are woken by the bell."""
        return [self._woken(daemon) for daemon in required_daemons(instance)]

    def refresh(self, context: IWorkspaceProcessContext[Any]) -> None:
        """Take over what wakes the sensors of the workspace, as it is loaded now."""
        try:
            locations = code_locations(context)
            if [id(each) for each in locations] == [id(each) for each in self._locations]:
                return
            listeners, before = listeners_in(locations), self.bell.listeners
        except Exception as error:
            logger.warning("what wakes the sensors can't be read: %s: %s", type(error).__name__, error)
            return
        self._locations = locations
        self.bell.set_listeners(listeners)
        self.bell.ring(id for id in listeners.keys() - before.keys() if listeners[id].has_bell)
        self._folders.wake()

    def start(self) -> None:
        """Begin to listen. Once is enough."""
        with self._started:
            if not self._is_started:
                self._is_started = True
                self.folders.start()
                if self.log:
                    self.log.start()

    def stop_with(self, shutdown: threading.Event) -> None:
        """End all waits and all listening once Dagster's daemons are told to end."""

        def wait() -> None:
            shutdown.wait()
            self.stop()

        threading.Thread(target=wait, name="doorbell-stop", daemon=True).start()

    def stop(self) -> None:
        """End all waits and all listening."""
        self._stopped.set()
        self.bell.stop()
        self._folders.wake()
        if self.log:
            self._log.stop()

    def _woken(self, daemon: DagsterDaemon[Any]) -> DagsterDaemon[Any]:
        if isinstance(daemon, (SensorDaemon, AssetDaemon)):
            _replace(daemon, "core_loop", self._loop_of_sensors(daemon.core_loop, daemon.daemon_type()))
        elif isinstance(daemon, BackfillDaemon):
            _replace(daemon, "core_loop", self._loop_of_backfills(daemon.core_loop))
        elif isinstance(daemon, QueuedRunCoordinatorDaemon):
            # Its own wait ends only after its interval, whatever happens. So that is nothing, and ours comes after it.
            interval, daemon.interval_seconds = daemon.interval_seconds, 0
            _replace(daemon, "run_iteration", self._iteration_of_queue(daemon.run_iteration, interval))
            _replace(daemon, "core_loop", self._loop_of_queue(daemon.core_loop))
        return daemon

    def _loop_of_sensors(self, stock: Callable[..., Any], daemon: str) -> Callable[..., Iterator[Any]]:
        def core_loop(context: IWorkspaceProcessContext[Any], shutdown: threading.Event) -> Iterator[Any]:
            self.stop_with(shutdown)
            self.refresh(context)
            self.start()

            def wait(at_most: float) -> None:
                self.refresh(context)
                self.bell.wait_for_sensors(daemon, at_most)

            yield from stock(context, WokenEvent(shutdown, wait))

        return core_loop

    def _loop_of_backfills(self, stock: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def core_loop(context: IWorkspaceProcessContext[Any], shutdown: threading.Event) -> Iterator[Any]:
            self.stop_with(shutdown)
            began = time.monotonic()

            def wait(at_most: float) -> None:
                nonlocal began
                # A large backfill is looked at for seconds, and its runs end one by one. Half of the time is enough.
                self.bell.wait_for_backfills(time.monotonic() - began, at_most)
                began = time.monotonic()

            yield from stock(context, WokenEvent(shutdown, wait))

        return core_loop

    def _loop_of_queue(self, stock: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def core_loop(context: IWorkspaceProcessContext[Any], shutdown: threading.Event) -> Iterator[Any]:
            self.stop_with(shutdown)
            yield from stock(context, shutdown)

        return core_loop

    def _iteration_of_queue(self, stock: Callable[..., Any], interval: float) -> Callable[..., Iterator[Any]]:
        def run_iteration(context: IWorkspaceProcessContext[Any]) -> Iterator[Any]:
            try:
                yield from stock(context)
            finally:
                self.bell.wait_for_queue(interval)

        return run_iteration


class WokenEvent:
    """Stands for the Event that ends a daemon. Its wait ends sooner when a bell rings.

    Args:
        event: Dagster's.
        wait: waits for the bell, at most so many seconds.
    """

    def __init__(self, event: threading.Event, wait: Callable[[float], None]) -> None:
        self._event, self._wait = event, wait

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float) -> bool:
        if not self._event.is_set():
            self._wait(timeout)
        return self._event.is_set()


@contextmanager
def ringing(doorbell: Doorbell) -> Iterator[None]:
    """Have Dagster ask the doorbell which sensors are due, while the block lasts."""
    bell = doorbell.bell
    with replaced(bell.is_due, bell.tick_begins, bell.tick_ended):
        try:
            yield
        finally:
            doorbell.stop()


def _replace(daemon: DagsterDaemon[Any], name: str, method: Callable[..., Any]) -> None:
    setattr(daemon, name, method)
