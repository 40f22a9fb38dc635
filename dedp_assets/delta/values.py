"""Partition values as text, as the log writes them. Dates get the one form that deltalake gives them.

A writer may put a date into the log as 2024-1-1. Without this, the files of one day would fall into two partitions.
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

# The name that we give to the partition of null.
NULL = ""

_DAYS_IN_400_YEARS = 146_097
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
# What deltalake reads as a date.
_DATE = re.compile(r"\s*([+-]?\d{1,6})-\s*(\d{1,2})-\s*(\d{1,2})")


def has_dates(table: DeltaTable, column: str) -> bool:
    """Whether a column of the table is of type date."""
    return any(field.name == column and field.type == PrimitiveType("date") for field in table.schema().fields)


def says_date(metadata: dict[str, Any], column: str) -> bool | None:
    """Whether a metaData action gives the column the type date; None if it gives no schema that we can read."""
    with suppress(ValueError, TypeError, KeyError):
        fields = json.loads(metadata["schemaString"])["fields"]
        return any(field["name"] == column and field["type"] == "date" for field in fields)
    return None


def may_be_odd_date(text: str) -> bool:
    """Whether a text looks like a date, but not in the form 2024-01-31, which columns of any type have unchanged."""
    return not _DAY.fullmatch(text) and _DATE.fullmatch(text) is not None


def date_as_read(text: str) -> str:
    """A value of a date column in deltalake's form: 2024-1-1 becomes 2024-01-01. Other texts stay unchanged."""
    found = _DATE.fullmatch(text)
    return (_date_text(*(int(part) for part in found.groups())) if found else None) or text


def as_text(values: pa.ChunkedArray) -> list[str | None]:
    """Partition values that deltalake has read, in the form that the log writes; None for null."""
    if not pa.types.is_date(values.type):
        return [None if value is None else str(value) for value in values.to_pylist()]
    days = pc.cast(pc.cast(values, pa.date32()), pa.int32()).to_pylist()
    texts = {day: None if day is None else _date_text(*_civil(day)) for day in set(days)}
    return [texts[day] for day in days]


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a number of days after 1970-01-01, also for years that Python's dates don't have."""
    cycles, rest = divmod(days + date(1970, 1, 1).toordinal() - 1, _DAYS_IN_400_YEARS)
    found = date.fromordinal(rest + 1)
    return found.year + 400 * cycles, found.month, found.day


def _date_text(year: int, month: int, day: int) -> str | None:
    """A date in the form that the log writes; None if there is no such date."""
    try:
        date(2000 + year % 400, month, day)  # the calendar repeats every 400 years
    except ValueError:
        return None
    sign = "+" if year > 9999 else "-" if year < 0 else ""
    return f"{sign}{abs(year):04}-{month:02}-{day:02}"
