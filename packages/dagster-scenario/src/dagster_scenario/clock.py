"""The simulated clock. While a scenario is open, the whole process sees its time, and only the scenario moves it.

`datetime.now()`, `time.time()` and whatever is built on them give simulated time, in Dagster and in the code under
test alike, a millisecond after what `Scenario.now` says. `time.monotonic()` and `time.perf_counter()` stay real.
`time.sleep()` is simulated where it would keep Dagster waiting: see `sleeps`.

Processes that are forked off this one have real time and sleep for real.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import time_machine

from dagster_scenario.errors import ScenarioError

# Nobody looks at a clock at the very moment at which something falls due, and Dagster's cron conditions hold twice for
# one who does. So the process sees the time a little later; Dagster's own scheduler waits as long for the same reason.
_A_MOMENT = timedelta(milliseconds=1)

# When what has no end is over.
FOR_EVER = datetime.max.replace(tzinfo=timezone.utc)

_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")


# What gives a process that was forked off this one back what is real.
_undo_in_children: list[Callable[[], None]] = []


@contextmanager
def undone_in_children(undo: Callable[[], None]) -> Iterator[None]:
    """Within it, a process that is forked off this one begins with a call of `undo`."""
    _undo_in_children.append(undo)
    try:
        yield
    finally:
        _undo_in_children.remove(undo)


def _undo_in_child() -> None:
    for undo in _undo_in_children[::-1]:
        undo()
    _undo_in_children.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_undo_in_child)


class Clock:
    """Simulated time. It is kept in UTC, where every day has 24 hours, and shown in one time zone."""

    def __init__(self, start: datetime | str, zone: str = "UTC") -> None:
        try:
            self._zone = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ScenarioError(f"{zone!r} is not a time zone; expected a name such as 'Europe/Berlin'") from None
        self._travel: Any = None
        self._traveller: Any = None
        self.instant = self.parse(start)

    def freeze(self) -> None:
        """From here on the process sees simulated time."""
        self._travel = time_machine.travel(self._seen, tick=False)
        self._traveller = self._travel.start()
        _undo_in_children.append(self.unfreeze)

    def unfreeze(self) -> None:
        """Give the process its real time back."""
        if self._travel is not None:
            travel, self._travel, self._traveller = self._travel, None, None
            travel.stop()
            if self.unfreeze in _undo_in_children:
                _undo_in_children.remove(self.unfreeze)

    def now(self) -> datetime:
        """The simulated time, in the scenario's time zone. For showing; count with `instant`, which is UTC."""
        return self.instant.astimezone(self._zone)

    def show(self, moment: datetime) -> str:
        """A moment in the scenario's time zone, as text."""
        return shown(moment.astimezone(self._zone))

    def set(self, moment: datetime) -> None:
        """Jump to a moment, in either direction; `move` is for time that passes."""
        self.instant = moment.astimezone(timezone.utc)
        if self._traveller is not None:
            self._traveller.move_to(self._seen, tick=False)

    def move(self, moment: datetime) -> None:
        """Let time pass until a moment that has not passed yet."""
        if moment.astimezone(timezone.utc) < self.instant:
            raise ScenarioError(f"time can't go back: it is {shown(self.now())}, not {self.show(moment)}")
        self.set(moment)

    def after(self, seconds: float) -> datetime:
        """The moment, in UTC, at which so many seconds have passed; a later one than now, however few they are."""
        try:
            return self.instant + timedelta(microseconds=max(1, round(seconds * 1_000_000)))
        except OverflowError:
            return FOR_EVER

    def parse(self, moment: datetime | str) -> datetime:
        """A moment, in UTC, from a datetime or an ISO text; without an offset it is in the scenario's time zone."""
        if isinstance(moment, str):
            try:
                moment = datetime.fromisoformat(moment)
            except ValueError:
                raise ScenarioError(
                    f"{moment!r} is not a time; expected one such as '2024-01-31 16:00' or '2024-01-31'"
                ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=self._zone)
        return moment.astimezone(timezone.utc)

    def next(self, moment: datetime | str) -> datetime:
        """A moment, in UTC; a time of day such as '16:00' is its next occurrence, which may be now."""
        if not isinstance(moment, str) or not _TIME_OF_DAY.fullmatch(moment):
            return self.parse(moment)
        try:
            hour, minute, second = (int(part) for part in f"{moment}:0".split(":")[:3])
            today = self.now().replace(hour=hour, minute=minute, second=second, microsecond=0, fold=0)
        except ValueError:
            raise ScenarioError(f"{moment!r} is not a time of day; expected one such as '16:00'") from None
        days = [today, today + timedelta(days=1)]
        if self.now().replace(tzinfo=None) > today.replace(tzinfo=None) and not _comes_twice(today):
            del days[0]
        # Of a time that the clocks show twice on a day, it is the next one. A time that they leave out is the moment at
        # which a clock would show it that was not put forward.
        moments = [self.parse(day.replace(fold=fold)) for day in days for fold in (0, 1)]
        return next(moment for moment in moments if moment >= self.instant)

    @property
    def _seen(self) -> datetime:
        """What the process sees; in the time zone, so that its local time is the scenario's."""
        return (self.instant + _A_MOMENT).astimezone(self._zone)


def shown(moment: datetime) -> str:
    """A moment as text; in the hour that a clock change repeats, with which of the two it is (CEST or CET)."""
    return f"{moment:%Y-%m-%d %H:%M:%S %Z}" if _comes_twice(moment) else f"{moment:%Y-%m-%d %H:%M:%S}"


def _comes_twice(moment: datetime) -> bool:
    """Whether the clocks show this time twice on its day."""
    first, second = moment.replace(fold=0).utcoffset(), moment.replace(fold=1).utcoffset()
    return first is not None and second is not None and first > second


@contextmanager
def sleeps(sleep: Callable[[float, Callable[[float], None]], None]) -> Iterator[None]:
    """Send every `time.sleep(seconds)` of this process to `sleep(seconds, real_sleep)` instead.

    A function that was imported by `from time import sleep` before the scenario began sleeps for real.
    """
    real = time.sleep

    def simulated(seconds: float, /) -> None:
        sleep(seconds, real)

    def make_real() -> None:
        time.sleep = real

    time.sleep = simulated  # type: ignore[assignment]
    try:
        with undone_in_children(make_real):
            yield
    finally:
        make_real()
