"""Rings for files: in the directories that sensors name, the operating system tells what changes."""

import errno
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import NamedTuple

from dedp_assets import inotify
from dedp_assets.doorbell.bell import Bell
from dedp_assets.doorbell.folders import (
    Place,
    Polled,
    Watch,
    file_system_of,
    mounted,
    places,
    places_below,
    tells_changes,
    watches_of,
)
from dedp_assets.doorbell.sources import logger
from dedp_assets.errors import DedpError
from dedp_assets.inotify import Event, Inotify

_ARRIVALS = inotify.MOVED_TO | inotify.CREATED
_OF_FILES = inotify.WRITER_CLOSED | inotify.MODIFIED | inotify.ATTRIBUTES_CHANGED
_OF_DIRECTORY = inotify.DIRECTORY_DELETED | inotify.DIRECTORY_MOVED
# What comes within this time is read at once: a file that is written in many parts sends a notification for each.
_GATHER_SECONDS = 0.02
# While a file is being written, its sensor is evaluated no more often than this.
_WRITING_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0


class Interest(NamedTuple):
    """Why a directory is watched: for a sensor, because of one of its watches, with so many levels below it."""

    sensor: str
    watch: Watch
    levels: int


class FolderListener:
    """Listens to the directories of the sensors that the bell knows, and rings.

    Args:
        bell: to ring.
        stopped: set when the daemon stops.
        net_seconds: how often to ask the sensors again which directories they watch.
        mounts: where file systems are mounted, and their types.
    """

    def __init__(
        self,
        bell: Bell,
        stopped: threading.Event,
        net_seconds: float,
        mounts: Callable[[], list[tuple[str, str]]] = mounted,
    ) -> None:
        self._bell, self._stopped, self._net_seconds, self._mounts = bell, stopped, net_seconds, mounts
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        self._watches: dict[str, list[Watch | Polled]] = {}
        self._interests: dict[int, dict[Interest, str]] = {}
        self._deaf: dict[str, str] = {}
        self._said: set[str] = set()
        self._seen_alive = time.monotonic()

    def is_deaf(self, sensor: str) -> bool:
        """Whether something that the sensor watches does not ring."""
        # A directory may be on a mount that hangs. Then so does this thread.
        hangs = time.monotonic() - self._seen_alive > 2 * self._net_seconds + _PATIENCE_SECONDS
        return hangs or sensor in self._deaf or sensor not in self._watches

    def wake(self) -> None:
        """Have it look at once whether the sensors have changed, or whether it is stopped."""
        with suppress(OSError):
            os.write(self._wake_writer, b"!")

    def listen(self, say_hearing: Callable[[], None]) -> None:
        """Listen until stopped. Raises OSError if the kernel has no instance of inotify left."""
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, f"no notifications are read on {sys.platform}")
        self._watches, self._interests, self._deaf = {}, {}, {}
        with closing(Inotify()) as kernel:
            self._refresh(kernel, is_complete=True)
            say_hearing()
            refreshed = time.monotonic()
            while not self._stopped.is_set():
                self._seen_alive = time.monotonic()
                wait = max(0.0, refreshed + self._net_seconds - time.monotonic())
                ready = _readable([kernel.fileno(), self._wake_reader], wait)
                if kernel.fileno() in ready:
                    self._stopped.wait(_GATHER_SECONDS)
                    self._answer(kernel, kernel.read())
                if self._wake_reader in ready:
                    os.read(self._wake_reader, 1 << 12)
                if self._wake_reader in ready or time.monotonic() >= refreshed + self._net_seconds:
                    self._refresh(kernel)
                    refreshed = time.monotonic()

    def _answer(self, kernel: Inotify, events: Iterable[Event]) -> None:
        refresh: set[str] = set()
        for event in events:
            if event.kind & inotify.EVENTS_LOST:
                self._say("the queue of notifications of files has overflowed; every directory is looked at")
                self._refresh(kernel, is_complete=True)
                return
            for interest in list(self._interests.get(event.watch, ())):
                if self._rings(kernel, event, interest):
                    refresh.add(interest.sensor)
            if event.kind & inotify.UNWATCHED:
                self._interests.pop(event.watch, None)
            elif event.kind & inotify.DIRECTORY_MOVED:
                self._interests.pop(event.watch, None)
                kernel.remove(event.watch)
        for sensor in refresh:
            self._refresh_sensor(kernel, sensor, is_complete=True)

    def _rings(self, kernel: Inotify, event: Event, interest: Interest) -> bool:
        """Ring for an event; returns whether the sensor may watch other directories now."""
        sensor, watch, levels = interest
        name = os.fsdecode(event.name)
        if event.kind & (_OF_DIRECTORY | inotify.UNWATCHED):
            return True
        is_new_directory = bool(event.kind & inotify.OF_DIRECTORY and event.kind & _ARRIVALS)
        if levels < 0:
            return is_new_directory
        if is_new_directory:
            if levels > 0:
                # The watch first, then the tick: what came before the watch is seen by the tick.
                path = os.path.join(self._interests[event.watch][interest], name)
                self._add(kernel, sensor, watch, places_below(path, levels - 1))
            self._bell.ring([sensor], watch.settle_seconds)
            return levels == 0
        if not watch.is_told_of(name):
            return False
        if event.kind & inotify.MODIFIED:
            self._bell.look_later([sensor], max(watch.settle_seconds, _WRITING_SECONDS))
        else:
            self._bell.ring([sensor], watch.settle_seconds)
        return watch.name is not None

    def _refresh(self, kernel: Inotify, is_complete: bool = False) -> None:
        """Watch what the sensors name now. Completely: look at every directory for new ones below it."""
        sensors = {id for id, listener in self._bell.listeners.items() if listener.folders}
        for gone in self._watches.keys() - sensors:
            self._forget(kernel, gone)
        for sensor in sensors:
            self._refresh_sensor(kernel, sensor, is_complete)

    def _refresh_sensor(self, kernel: Inotify, sensor: str, is_complete: bool) -> None:
        listener = self._bell.listeners.get(sensor)
        if listener is None or listener.folders is None:
            return
        try:
            watches = watches_of(listener.folders)
        except DedpError as error:
            self._deafen(sensor, f"{listener.name}: {error}")
            self._watches.setdefault(sensor, [])
            return
        if watches == self._watches.get(sensor) and not is_complete and sensor not in self._deaf:
            return
        self._deaf.pop(sensor, None)
        before = self._numbers_of(sensor)
        for number in before:
            self._interests[number] = self._without(number, sensor)
        for watch in watches:
            if isinstance(watch, Polled):
                self._deafen(sensor, f"{listener.name} can't be told of changes: {watch.what}")
            else:
                self._watch(kernel, sensor, listener.name, watch)
        for number in before:
            self._drop_unused(kernel, number)
        self._watches[sensor] = watches
        # What came before the watch.
        self._bell.ring(
            [sensor], max((each.settle_seconds for each in watches if isinstance(each, Watch)), default=0.0)
        )

    def _watch(self, kernel: Inotify, sensor: str, name: str, watch: Watch) -> None:
        # First by its name alone: to ask a network for it may take for ever.
        for path in (os.path.abspath, os.path.realpath):
            kind = file_system_of(path(watch.path), self._mounts())
            if not tells_changes(kind):
                self._deafen(sensor, f"{name} watches {watch.path}, which is on a file system of a network ({kind})")
                return
        first = next(places(watch), None)
        is_watched = self._add(kernel, sensor, watch, places(watch))
        if not is_watched or next(places(watch), None) != first:
            # The directory came or went meanwhile. The next refresh tries again.
            self._deaf.setdefault(sensor, "a directory has changed")
            self.wake()

    def _add(self, kernel: Inotify, sensor: str, watch: Watch, found: Iterable[Place]) -> bool:
        is_watched = False
        for path, levels in found:
            try:
                number = kernel.add(path, _ARRIVALS | _OF_FILES | _OF_DIRECTORY)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    self._deafen(
                        sensor,
                        f"{watch.path} has more directories than the kernel watches for a user; "
                        "more are watched after `sysctl fs.inotify.max_user_watches=...`",
                    )
                    break
                continue  # it is gone, or may not be read: the sensor says what is to be said
            is_watched = True
            self._interests.setdefault(number, {})[Interest(sensor, watch, levels)] = path
        return is_watched

    def _numbers_of(self, sensor: str) -> set[int]:
        return {
            number
            for number, interests in self._interests.items()
            if any(interest.sensor == sensor for interest in interests)
        }

    def _without(self, number: int, sensor: str) -> dict[Interest, str]:
        return {interest: path for interest, path in self._interests[number].items() if interest.sensor != sensor}

    def _drop_unused(self, kernel: Inotify, number: int) -> None:
        if not self._interests.get(number):
            self._interests.pop(number, None)
            kernel.remove(number)

    def _forget(self, kernel: Inotify, sensor: str) -> None:
        for number in self._numbers_of(sensor):
            self._interests[number] = self._without(number, sensor)
            self._drop_unused(kernel, number)
        del self._watches[sensor]
        self._deaf.pop(sensor, None)

    def _deafen(self, sensor: str, why: str) -> None:
        self._deaf[sensor] = why
        self._say(f"{why}. This sensor is polled every 5 s")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.warning("%s", text)


def _readable(descriptors: list[int], seconds: float) -> list[int]:
    ready, _, _ = select.select(descriptors, [], [], seconds)
    return ready
