"""The dates of a cron expression, as Dagster has them, without the hour that it looks through before each of them.

Dagster begins an hour early, twice, because of the hour that a clock change repeats. For a schedule of each minute that
are 120 dates for the next one, and it is asked five times for each run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from dagster_scenario import _dagster as dagster_

# How far from a moment no clock change may be.
_AROUND = timedelta(days=1)


@contextmanager
def crons_begin_at_once() -> Iterator[None]:
    """Within it, Dagster's iterator over the dates of a cron expression does without that hour."""
    module, name = dagster_.SCHEDULES, dagster_.CRON_DATES
    original = getattr(module, name)

    def dates(
        start_timestamp: float, cron_string: str, timezone_str: str, ascending: bool = True, start_offset: int = 0
    ) -> Iterator[datetime]:
        if ascending and start_offset == 0:
            return dates_from(start_timestamp, cron_string, timezone_str, original)
        found: Iterator[datetime] = original(start_timestamp, cron_string, timezone_str, ascending, start_offset)
        return found

    setattr(module, name, dates)
    try:
        yield
    finally:
        setattr(module, name, original)


def dates_from(
    timestamp: float, cron: str, zone: str, dagsters: Callable[..., Iterator[datetime]]
) -> Iterator[datetime]:
    """The dates of a cron expression from a moment on, that moment included.

    Args:
        timestamp: The moment, in seconds since 1970.
        cron: The expression.
        zone: The name of its time zone.
        dagsters: Dagster's own iterator, for what is further away than a clock change may be.
    """
    start: Any = datetime.fromtimestamp(timestamp, dagster_.get_timezone(zone))
    last = timestamp - 1
    if (start - _AROUND).utcoffset() == start.utcoffset() == (start + _AROUND).utcoffset():
        wall = start.replace(tzinfo=None)
        # A cron has no seconds, so this is before its first date.
        croniter: Any = dagster_.CroniterShim
        dates = croniter(cron, wall.replace(second=0, microsecond=0) - timedelta(seconds=1))
        while (date := dates.get_next(datetime)) < wall + _AROUND / 2:
            moment = date.replace(tzinfo=start.tzinfo)
            if moment.timestamp() >= timestamp:
                last = moment.timestamp()
                yield moment
    for moment in dagsters(timestamp, cron, zone):
        if moment.timestamp() > last:
            yield moment
