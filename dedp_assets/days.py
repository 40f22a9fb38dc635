"""Days as partitions name them, such as 2024-01-31: what is one, which comes next, and which are closed."""

from collections.abc import Collection
from datetime import date, timedelta


def day_of(text: str) -> date | None:
    """The day that a partition's name is, or None for any other text.

    One form only: what Dagster's daily partitions are called. A year of more than four digits is no day here.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    # Newer Pythons read other forms too, 20240102 among them.
    return day if day.isoformat() == text else None


def day_after(text: str) -> str | None:
    """The name of the next day; None where there is none, after 9999-12-31 and after what is no day."""
    day = day_of(text)
    return (day + timedelta(days=1)).isoformat() if day and day < date.max else None


def closed_days(days: Collection[str], appeared: Collection[str]) -> set[str]:
    """Those of the days whose next day is among those that have appeared: nothing more is expected in them then."""
    return {day for day in days if day_after(day) in appeared}
