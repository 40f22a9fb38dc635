"""When a sensor is due, and that no bell is lost between the bell and a tick: plain values and a clock by hand."""

import time
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedp_assets.doorbell.bell import Bell
from dedp_assets.doorbell.due import PAUSE_SECONDS, POLL_SECONDS, Known, seconds_until_due
from dedp_assets.doorbell.woken_by import Listener

NET = 8.0
QUIET = Known(interval=1, is_heard=True, last_began=100.0, last_ended=100.2)


def test_a_sensor_that_has_never_been_evaluated_is_due() -> None:
    assert seconds_until_due(Known(interval=60, is_heard=True), 0.0, NET) == 0


def test_without_a_bell_it_is_due_after_the_net_where_bells_ring_and_after_the_poll_elsewhere() -> None:
    assert seconds_until_due(QUIET, 101.0, NET) == NET - 1
    assert seconds_until_due(replace(QUIET, is_heard=False), 101.0, NET) == POLL_SECONDS - 1


def test_a_tick_that_failed_is_repeated_as_soon_as_by_dagsters_own_loop() -> None:
    assert seconds_until_due(replace(QUIET, has_failed=True), 101.0, NET) == POLL_SECONDS - 1


def test_a_minimum_interval_that_is_longer_than_the_net_stays() -> None:
    assert seconds_until_due(replace(QUIET, interval=60), 110.0, NET) == 50


def test_bells_within_the_pause_make_one_tick() -> None:
    assert seconds_until_due(replace(QUIET, rung_at=105.0), 105.0, NET) == pytest.approx(PAUSE_SECONDS)
    assert seconds_until_due(replace(QUIET, rung_at=105.0), 105.0 + 2 * PAUSE_SECONDS, NET) == 0


def test_a_minimum_interval_of_more_than_a_second_holds_for_bells() -> None:
    assert seconds_until_due(replace(QUIET, interval=10, rung_at=101.0), 101.0, NET) == 9


def test_at_most_half_of_the_time_is_spent_on_a_sensor_that_bells_do_not_leave_alone() -> None:
    slow = replace(QUIET, last_ended=100.8, rung_at=100.1)
    assert abs(seconds_until_due(slow, 100.8, NET) - 0.8) < 1e-9


def test_a_file_is_looked_at_again_once_it_has_settled() -> None:
    assert seconds_until_due(replace(QUIET, look_again_at=102.2), 101.0, NET) == 102.2 - 101.0


times = st.floats(0, 1000)


@given(st.builds(Known, st.sampled_from([1, 15, 60]), st.booleans(), times, times, st.booleans(), times), times)
def test_no_wait_is_longer_than_the_interval_or_the_net_even_if_the_clock_was_set_back(
    known: Known, now: float
) -> None:
    assert 0 <= seconds_until_due(known, now, NET) <= max(known.interval, NET)


@given(st.builds(Known, st.sampled_from([1, 15, 60]), st.booleans(), times, times, st.booleans()), times)
def test_a_bell_never_makes_a_sensor_wait_longer(known: Known, now: float) -> None:
    assert seconds_until_due(replace(known, rung_at=now), now, NET) <= seconds_until_due(known, now, NET)


@dataclass
class Daemon:
    """A bell, a clock, and a daemon that evaluates one sensor. A tick sees the changes before its begin."""

    now: float = 1000.0
    ticks: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    in_tick: bool = False

    def __post_init__(self) -> None:
        self.bell = Bell(NET, now=lambda: self.now)
        self.bell.set_listeners({"landed": Listener("landed", "here", 1, folders="x:y")})
        self.bell.set_deaf("folders", lambda sensor: False)

    def step(self) -> None:
        """A round of the daemon's loop."""
        last = self.ticks[-1] if self.ticks else None
        if not self.in_tick and self.bell.is_due("landed", last, False):
            self.bell.tick_begins("landed")
            self.ticks.append(self.now)
            self.in_tick = True

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            self.step()

    def end_tick(self) -> None:
        if self.in_tick:
            self.bell.tick_ended("landed")
            self.ends.append(self.now)
            self.in_tick = False

    def run(self, seconds: float) -> None:
        """Time passes, and ticks take 0.1 s."""
        for _ in range(round(seconds / 0.1)):
            self.pass_time(0.1)
            self.end_tick()


def test_a_bell_during_a_tick_has_one_more_tick() -> None:
    daemon = Daemon()
    daemon.step()
    daemon.bell.ring(["landed"])
    daemon.bell.ring(["landed"])
    daemon.pass_time(0.2)
    daemon.end_tick()
    daemon.run(3)
    assert len(daemon.ticks) == 2


def test_a_file_that_is_written_in_place_has_a_second_tick_when_it_has_settled_after_the_first() -> None:
    daemon = Daemon()
    daemon.run(1)
    daemon.bell.ring(["landed"], settle=2.0)
    daemon.run(10)
    first, second = daemon.ticks[1:]
    assert second - first >= 2.0


def test_a_bell_in_between_does_not_put_off_the_second_look_at_a_file() -> None:
    daemon = Daemon()
    daemon.run(1)
    daemon.bell.ring(["landed"], settle=2.0)
    daemon.run(1)
    daemon.bell.ring(["landed"])
    daemon.run(3)
    seen, _, settled = daemon.ticks[1:]
    assert 2.0 <= settled - seen < 2.6


def test_a_sensor_that_was_stopped_keeps_no_loop_awake() -> None:
    daemon = Daemon()
    daemon.run(1)
    daemon.bell.wait_for_sensors("SENSOR", 0.0)  # a round in which the daemon does not ask for it
    daemon.bell.ring(["landed"])
    daemon.now += 100
    daemon.bell.wait_for_sensors("SENSOR", 0.05)  # returns after the 0.05 s, and would have returned at once


def test_backfills_that_bells_do_not_leave_alone_are_looked_at_for_half_of_the_time() -> None:
    bell = Bell()
    bell.ring_backfills()
    began = time.monotonic()
    bell.wait_for_backfills(at_least=0.2, at_most=3600)
    assert time.monotonic() - began >= 0.2
    bell.wait_for_backfills(at_least=0, at_most=0.05)  # the bell was answered, so this waits, and not for an hour


actions = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from(["told", "told twice", "told late", "lost"])),
        st.tuples(st.just("other bell"), st.just("")),
        st.tuples(st.just("wait"), st.sampled_from(["0.1", "0.5", "2", "4"])),
        st.tuples(st.just("end of tick"), st.just("")),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(actions)
def test_every_change_has_a_tick_and_a_look_after_settling_whatever_happens_to_its_notification(
    steps: list[tuple[str, str]],
) -> None:
    daemon, changes, late = Daemon(), [], 0
    for action, how in steps:
        if action == "change":
            changes.append((daemon.now, how))
            for _ in range({"told": 1, "told twice": 2}.get(how, 0)):
                daemon.bell.ring(["landed"], settle=2.0)
            late += how == "told late"
        elif action == "other bell":
            daemon.bell.ring(["landed"])
        elif action == "wait":
            daemon.pass_time(float(how))
            for _ in range(late):
                daemon.bell.ring(["landed"], settle=2.0)
            late = 0
        else:
            daemon.end_tick()
    daemon.end_tick()
    daemon.run(2 * NET + 5)
    for at, how in changes:
        looks = [tick for tick in daemon.ticks if tick > at]
        settled = [tick for tick in looks if tick - looks[0] >= 2.0]
        assert settled
        if how.startswith("told") and how != "told late":
            # It waits for the tick that is under way, and as long as that took, up to a second. It waits for no net.
            free = max([at, *(end for begin, end in zip(daemon.ticks, daemon.ends, strict=True) if begin <= at)])
            assert looks[0] <= free + 1.3
