"""When a sensor is due, from what has rung and from its last tick. Plain values only."""

from dataclasses import dataclass

# Several bells in a short time make one tick. What rings has often more to say at once: 30 files, a run and its end.
PAUSE_SECONDS = 0.08
# Where no notification comes, a sensor is evaluated as often as in Dagster's own loop.
POLL_SECONDS = 5.0
# The smallest `minimum_interval_seconds` that Dagster takes. It means: as often as needed.
SMALLEST_INTERVAL = 1


@dataclass(frozen=True)
class Known:
    """What is known of a sensor. All times are in s since the epoch.

    Attributes:
        interval: its `minimum_interval_seconds`.
        is_heard: whether a bell rings for everything that it looks at.
        last_began: when its last tick began; None if there was none.
        last_ended: when its last tick ended, as far as this process knows.
        has_failed: whether its last tick failed.
        rung_at: when the first bell rang that no tick has answered; None if none has.
        look_again_at: when to look again, without a bell: a file has settled then.
    """

    interval: float
    is_heard: bool
    last_began: float | None = None
    last_ended: float | None = None
    has_failed: bool = False
    rung_at: float | None = None
    look_again_at: float | None = None


def seconds_until_due(known: Known, now: float, net_seconds: float) -> float:
    """How long a sensor still has to wait for its next tick; 0 if it is due.

    A bell is answered after a short pause. A tick that takes long is not repeated at once: at most half of the time is
    spent on it. A `minimum_interval_seconds` of more than 1 holds for bells, too. Without a bell the sensor is due
    after its interval, but not before the net. Where no bell rings, or after a tick that has failed, the net is as
    short as Dagster's own loop.

    Args:
        known: what is known of it.
        now: the time now, in s since the epoch.
        net_seconds: how often to look without a bell where bells ring.
    """
    if known.last_began is None:
        return 0.0
    # If the clock was set back, wait no longer than one interval from now.
    age = max(0.0, now - known.last_began)
    is_quiet = known.is_heard and not known.has_failed
    waits = [max(known.interval, net_seconds if is_quiet else POLL_SECONDS) - age]
    spacing = _spacing(known, now, age)
    if known.rung_at is not None:
        waits.append(max(min(PAUSE_SECONDS, known.rung_at + PAUSE_SECONDS - now), spacing))
    if known.look_again_at is not None:
        waits.append(max(known.look_again_at - now, spacing))
    return max(0.0, min(waits))


def _spacing(known: Known, now: float, age: float) -> float:
    """How long not to evaluate the sensor again whatever rings."""
    if known.interval > SMALLEST_INTERVAL:
        return known.interval - age
    if known.last_ended is None or known.last_began is None:
        return 0.0
    took = min(max(0.0, known.last_ended - known.last_began), SMALLEST_INTERVAL)
    return min(took, known.last_ended + took - now)
