"""Partition values as text: as they stand in the log, and dates of any year in the one form that deltalake gives them.

A writer may put a date into the log as 2024-1-1. Files of one day must not fall into two partitions for that.
"""

import json
import re
from contextlib import suppress
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.schema import PrimitiveType

# The partition of the files that have no value.
NULL = ""

_DAYS_IN_400_YEARS = 146_097
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
# What deltalake takes for a date.
_DATE = re.compile(r"\s*([+-]?\d{1,6})-\s*(\d{1,2})-\s*(\d{1,2})")


def has_dates(table: DeltaTable, column: str) -> bool:
    """Whether a column of the table is of type date."""
    return any(field.name == column and field.type == PrimitiveType("date") for field in table.schema().fields)


def says_date(metadata: dict[str, Any], column: str) -> bool | None:
    """Whether a metaData action has the column as a date; None if it does not say."""
    with suppress(ValueError, TypeError, KeyError):
        fields = json.loads(metadata["schemaString"])["fields"]
        return any(field["name"] == column and field["type"] == "date" for field in fields)
    return None


def may_be_odd_date(text: str) -> bool:
    """Whether this looks like a date, and not like 2024-01-31, which means itself in a column of any type."""
    return not _DAY.fullmatch(text) and _DATE.fullmatch(text) is not None


def date_as_read(text: str) -> str:
    """A value of a date column as deltalake reads it: 2024-1-1 is 2024-01-01. The text itself if it is no date."""
    found = _DATE.fullmatch(text)
    return (_date_text(*(int(part) for part in found.groups())) if found else None) or text


def as_text(values: pa.ChunkedArray) -> list[str | None]:
    """Partition values, as deltalake has them, as the log has them."""
    if not pa.types.is_date(values.type):
        return [None if value is None else str(value) for value in values.to_pylist()]
    days = pc.cast(pc.cast(values, pa.date32()), pa.int32()).to_pylist()
    texts = {day: None if day is None else _date_text(*_civil(day)) for day in set(days)}
    return [texts[day] for day in days]


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of so many days after 1970-01-01, also where Python has no dates."""
    cycles, rest = divmod(days + date(1970, 1, 1).toordinal() - 1, _DAYS_IN_400_YEARS)
    found = date.fromordinal(rest + 1)
    return found.year + 400 * cycles, found.month, found.day


def _date_text(year: int, month: int, day: int) -> str | None:
    """A date in the form that values have in the log; None if there is no such date."""
    try:
        date(2000 + year % 400, month, day)  # of any year: every 400 the calendar is the same again
    except ValueError:
        return None
    sign = "+" if year > 9999 else "-" if year < 0 else ""
    return f"{sign}{abs(year):04}-{month:02}-{day:02}"
