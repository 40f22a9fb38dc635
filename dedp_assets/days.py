"""Days in the form of partition keys, such as 2024-01-31."""

from collections.abc import Collection
from datetime import date, timedelta


def day_of(text: str) -> date | None:
    """Read a partition key.

    Args:
        text: Any text.

    Returns:
        The day, if the text has the form of Dagster's daily partition keys, such as 2024-01-31; else None. Years have
        four digits.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    # Since Python 3.11, fromisoformat accepts other forms too, such as 20240102.
    return day if day.isoformat() == text else None


def day_after(text: str) -> str | None:
    """The partition key of the next day; None after 9999-12-31, and for a text that is not a day."""
    day = day_of(text)
    return (day + timedelta(days=1)).isoformat() if day and day < date.max else None


def closed_days(days: Collection[str], appeared: Collection[str]) -> set[str]:
    """The days that are closed. A day is closed once data for the next day exists: it is expected to be complete.

    Args:
        days: Partition keys.
        appeared: Partition keys of the days that have data.

    Returns:
        The closed days among `days`. A text that is not a day is never closed.
    """
    return {day for day in days if day_after(day) in appeared}
