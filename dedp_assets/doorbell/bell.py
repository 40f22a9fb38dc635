"""The bell: what has rung and which tick has answered it, for the loops of Dagster's daemons that wait for it."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from dedp_assets.doorbell.due import POLL_SECONDS, Known, seconds_until_due
from dedp_assets.doorbell.woken_by import Listener

# A sensor that was handed to a thread begins its tick within this time, or may be handed over again.
_HANDED_OVER_SECONDS = 1.0
# A loop does not look again sooner, whatever is due: Dagster notes the end of a tick a little later than we do.
_SHORTEST_WAIT = 0.02
# Stands for the queue of runs where the id of a sensor stands.
QUEUE = "queue"


@dataclass
class _Sensor:
    """The state of a sensor between the bell and the daemon.

    Attributes:
        known: what decides when it is due; its interval, `is_heard` and `look_again_at` are filled in when needed.
        settle: look again so many s after the next tick; 0 for no.
        settle_of_tick: the same for the tick that is under way.
        look_again: when to look again.
        handed_over_at: when the daemon took it for a tick that has not begun yet.
        is_in_tick: whether a tick is under way.
        is_running: whether the daemon has asked for it, or evaluated it, in its last round.
    """

    known: Known
    settle: float = 0.0
    settle_of_tick: float = 0.0
    look_again: tuple[float, ...] = ()
    handed_over_at: float | None = None
    is_in_tick: bool = False
    is_running: bool = False


class Bell:
    """Thread-safe. Sensors have the ids that Dagster selects them by.

    Args:
        net_seconds: how often a sensor is evaluated without a bell, where bells ring for it.
        now: the time, in s since the epoch.
    """

    def __init__(self, net_seconds: float = 30.0, now: Callable[[], float] = time.time) -> None:
        self._net_seconds, self._now = net_seconds, now
        self._changed = threading.Condition()
        self._sensors: dict[str, _Sensor] = {}
        self._listeners: dict[str, Listener] = {}
        self._deaf: dict[str, Callable[[str], bool]] = {}
        self._queue_rung = False
        self._backfills_rung = False
        self._is_stopped = False

    # What rings.

    def ring(self, sensors: Iterable[str], settle: float = 0.0) -> None:
        """Something has happened that these sensors should see.

        Args:
            sensors: their ids.
            settle: look again so many seconds after the tick that answers, if more than 0.
        """
        with self._changed:
            for each in sensors:
                sensor = self._sensor(each)
                if sensor.known.rung_at is None:
                    sensor.known = replace(sensor.known, rung_at=self._now())
                sensor.settle = max(sensor.settle, settle)
            self._changed.notify_all()

    def look_later(self, sensors: Iterable[str], seconds: float) -> None:
        """Something goes on that these sensors will have to see: look in so many seconds, and once more after that."""
        with self._changed:
            for each in sensors:
                sensor = self._sensor(each)
                sensor.look_again = sensor.look_again or (self._now() + seconds,)
                sensor.settle = max(sensor.settle, seconds)
            self._changed.notify_all()

    def ring_queue(self) -> None:
        """A run waits in the queue, or a place is free."""
        with self._changed:
            self._queue_rung = True
            self._changed.notify_all()

    def ring_backfills(self) -> None:
        """A backfill was launched or canceled, or a run has ended that one may wait for."""
        with self._changed:
            self._backfills_rung = True
            self._changed.notify_all()

    def set_deaf(self, source: str, is_deaf: Callable[[str], bool]) -> None:
        """Say for which sensors a source hears nothing at present. They are polled.

        Args:
            source: its name. The last answer of each source counts.
            is_deaf: tells it for the id of a sensor that the source should hear for.
        """
        with self._changed:
            self._deaf[source] = is_deaf
            self._changed.notify_all()

    # What the daemons ask.

    def set_listeners(self, listeners: Mapping[str, Listener]) -> None:
        """Say what wakes each sensor of the workspace."""
        with self._changed:
            self._listeners = dict(listeners)
            for gone in self._sensors.keys() - listeners.keys():
                del self._sensors[gone]

    @property
    def listeners(self) -> Mapping[str, Listener]:
        with self._changed:
            return dict(self._listeners)

    def is_due(self, sensor: str, last_began: float | None, has_failed: bool) -> bool | None:
        """Whether the daemon should evaluate a sensor now. None: it is not known, and Dagster decides.

        A sensor that is due is taken for handed over: it is not due again until its tick has ended.

        Args:
            sensor: its id.
            last_began: when its last tick began, in s since the epoch, as Dagster has stored it.
            has_failed: whether that tick failed.
        """
        with self._changed:
            state = self._sensor(sensor)
            state.is_running = True
            state.known = replace(state.known, last_began=last_began, has_failed=has_failed)
            if sensor not in self._listeners:
                return None
            if self._wait_of(sensor, self._now()) > 0:
                return False
            state.handed_over_at = self._now()
            return True

    def tick_begins(self, sensor: str) -> None:
        """The tick answers every bell until now. What rings from now on has another tick."""
        with self._changed:
            state, now = self._sensor(sensor), self._now()
            # Dagster does not ask whether a sensor is due that it has never seen before.
            state.handed_over_at, state.is_in_tick, state.is_running = None, True, True
            state.settle_of_tick, state.settle = state.settle, 0.0
            state.look_again = tuple(at for at in state.look_again if at > now)
            state.known = replace(state.known, last_began=now, rung_at=None)

    def tick_ended(self, sensor: str) -> None:
        """The tick has ended, whatever came of it."""
        with self._changed:
            state, now = self._sensor(sensor), self._now()
            state.is_in_tick = False
            if state.settle_of_tick > 0:
                # Not from the bell on: a file has settled only so long after a tick has seen it.
                state.look_again = (*state.look_again, now + state.settle_of_tick)
            state.known = replace(state.known, last_ended=now)
            self._changed.notify_all()

    def wait_for_sensors(self, daemon: str, at_most: float) -> None:
        """Wait until a sensor of a daemon is due, at most so many seconds.

        After the wait, the daemon asks for each of its sensors that runs. One that it does not ask for was stopped.
        """
        begin = time.monotonic()
        with self._changed:
            while not self._is_stopped:
                waited = time.monotonic() - begin
                now = self._now()
                due = min((self._wait_of(each, now) for each in self._running(daemon)), default=at_most)
                left = min(at_most - waited, max(due, _SHORTEST_WAIT - waited))
                if left <= 0:
                    break
                self._changed.wait(left)
            for each in self._running(daemon):
                self._sensors[each].is_running = False

    def wait_for_queue(self, interval: float) -> None:
        """Wait until the queue of runs should be looked at.

        Args:
            interval: how often Dagster looks, in s. Where bells ring, it is no more often than every 5 s.
        """
        begin = time.monotonic()
        with self._changed:
            while not self._is_stopped and not self._queue_rung:
                is_heard = "log" in self._deaf and not self._deaf["log"](QUEUE)
                left = begin + (max(interval, POLL_SECONDS) if is_heard else interval) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._queue_rung = False

    def wait_for_backfills(self, at_least: float, at_most: float) -> None:
        """Wait until backfills should be looked at, in s. What rings before `at_least` is answered then."""
        begin = time.monotonic()
        with self._changed:
            while not self._is_stopped:
                waited = time.monotonic() - begin
                left = (min(at_least, at_most) if self._backfills_rung else at_most) - waited
                if left <= 0:
                    break
                self._changed.wait(left)
            self._backfills_rung = False

    def stop(self) -> None:
        """End every wait, now and from now on."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    # Only with the lock.

    def _sensor(self, sensor: str) -> _Sensor:
        return self._sensors.setdefault(sensor, _Sensor(Known(1, False)))

    def _running(self, daemon: str) -> Collection[str]:
        return [
            sensor
            for sensor, state in self._sensors.items()
            if state.is_running and sensor in self._listeners and self._listeners[sensor].daemon == daemon
        ]

    def _wait_of(self, sensor: str, now: float) -> float:
        state = self._sensors[sensor]
        if state.is_in_tick:
            return float("inf")
        listener = self._listeners[sensor]
        known = replace(
            state.known,
            interval=listener.interval,
            is_heard=self._is_heard(sensor, listener),
            look_again_at=min(state.look_again, default=None),
        )
        wait = seconds_until_due(known, now, self._net_seconds)
        if state.handed_over_at is not None:
            wait = max(wait, min(_HANDED_OVER_SECONDS, state.handed_over_at + _HANDED_OVER_SECONDS - now))
        return wait

    def _is_heard(self, sensor: str, listener: Listener) -> bool:
        if listener.polls:
            return False
        wanted = [("folders", listener.folders is not None), ("log", listener.listens_to_log)]
        sources = [source for source, is_wanted in wanted if is_wanted]
        return bool(sources) and all(source in self._deaf and not self._deaf[source](sensor) for source in sources)
