"""What an event is: the rule that Spark applies to each line of a file, as SQL expressions.

In `EVENT` and below, each line is one row with the columns `file` and `value`.
"""

from datetime import date, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from dedp_assets.flight_search.contract import FIRST_DAY, PARTITION_COLUMN

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SCHEMA = pa.schema(
    [
        pa.field(PARTITION_COLUMN, pa.date32()),
        pa.field("search_id", pa.string()),
        pa.field("searched_at", pa.timestamp("us", "UTC")),
        pa.field("origin", pa.string()),
        pa.field("destination", pa.string()),
        pa.field("departure_date", pa.date32()),
        pa.field("passengers", pa.int32()),
        pa.field("file", pa.string()),
    ]
)
DESCRIPTIONS = {
    PARTITION_COLUMN: "The day of the search (UTC). The table is partitioned by it.",
    "search_id": "Identifies the search within its day.",
    "searched_at": "When somebody searched.",
    "origin": "The airport of departure, by its IATA code, such as FRA.",
    "destination": "The airport of arrival, by its IATA code, such as JFK.",
    "departure_date": "The day of the flight, at the airport of departure.",
    "passengers": "How many seats were searched for: 1 to 9.",
    "file": "The name of the first file that had the event.",
}

# The values that make two lines the same event.
VALUES = ("searched_at", "origin", "destination", "departure_date", "passengers")

# An event may be so far in the future, because clocks differ.
_DAYS_AHEAD = 1

# All fields as text: what a value should be is checked below, with a reason that names the field.
_FIELDS = ("search_id", *VALUES)
_PARSED = f"""
from_json(
    line,
    '{", ".join(f"{name} STRING" for name in _FIELDS)}, corrupt STRING',
    map(
        'mode', 'PERMISSIVE',
        'columnNameOfCorruptRecord', 'corrupt',
        'allowSingleQuotes', 'false',
        'allowNonNumericNumbers', 'false'
    )
)
"""

# `from_json` reads the first value of a line, and ignores what comes after it: a second event, or half of one. Inside
# an array and inside an object, anything after the event makes it invalid. A name that occurs twice does so, too.
_IS_ONE_OBJECT = """
coalesce(json_array_length(concat('[', line, ']')) = 1, false)
AND try_parse_json(concat('{"event":', line, '}')) IS NOT NULL
AND parsed IS NOT NULL
AND parsed.corrupt IS NULL
"""

_REASON = f"""
CASE
    WHEN NOT is_utf8 THEN 'not UTF-8'
    WHEN line RLIKE '^[ \t]*$' THEN 'empty line'
    WHEN NOT ({_IS_ONE_OBJECT}) THEN 'not one JSON object'
    WHEN missing <> '' THEN concat('missing: ', missing)
    WHEN parsed.search_id NOT RLIKE '^[A-Za-z0-9_.:-]{{1,100}}$'
        THEN 'search_id: expected 1 to 100 letters, digits and _ . : -'
    WHEN at IS NULL
        THEN 'searched_at: expected a time with its zone, such as 2024-01-02T10:15:30Z'
    WHEN day < DATE '{FIRST_DAY}' THEN 'searched_at: before {FIRST_DAY}, the first partition'
    WHEN day > last_day THEN 'searched_at: more than {_DAYS_AHEAD} day in the future'
    WHEN parsed.origin NOT RLIKE '^[A-Z]{{3}}$' THEN 'origin: expected three capital letters, such as FRA'
    WHEN parsed.destination NOT RLIKE '^[A-Z]{{3}}$' THEN 'destination: expected three capital letters, such as JFK'
    WHEN parsed.origin = parsed.destination THEN 'origin and destination are the same'
    WHEN departure IS NULL THEN 'departure_date: expected a day such as 2024-02-01'
    -- The airport may be in a zone where it is still the day before.
    WHEN departure < date_sub(day, 1) THEN 'departure_date: before the search'
    WHEN parsed.passengers NOT RLIKE '^[1-9]$' THEN 'passengers: expected a whole number from 1 to 9'
END
"""


def check_lines(lines: "DataFrame", today: date) -> "DataFrame":
    """Tell events from other lines.

    Args:
        lines: rows with the columns `file` and `value`, which is a line without its end.
        today: the day (UTC) on which the lines are taken in.

    Returns:
        A row for each line: the columns of SCHEMA; `line`, its text; and `reason`, why it is no event, or null.
    """
    return (
        lines.selectExpr(
            "file",
            "is_valid_utf8(value) AS is_utf8",
            # As it is shown. A file may begin with a byte order mark.
            "regexp_replace(make_valid_utf8(value), concat('^', decode(X'EFBBBF', 'UTF-8')), '') AS line",
        )
        .selectExpr("*", f"{_PARSED} AS parsed")
        .selectExpr(
            "*",
            f"concat_ws(', ', {', '.join(_if_null(name) for name in _FIELDS)}) AS missing",
            f"{_time_of('parsed.searched_at')} AS at",
            f"{_date_of('parsed.departure_date')} AS departure",
        )
        # The day in UTC, whatever the time zone of the session is.
        .selectExpr(
            "*",
            "date_from_unix_date(CAST(floor(unix_seconds(at) / 86400) AS INT)) AS day",
            f"DATE '{today + timedelta(days=_DAYS_AHEAD)}' AS last_day",
        )
        .selectExpr(
            "day",
            "parsed.search_id AS search_id",
            "at AS searched_at",
            "parsed.origin AS origin",
            "parsed.destination AS destination",
            "departure AS departure_date",
            "try_cast(parsed.passengers AS INT) AS passengers",
            "file",
            "line",
            f"{_REASON} AS reason",
        )
    )


def _if_null(name: str) -> str:
    return f"IF(parsed.{name} IS NULL, '{name}', NULL)"


def _time_of(text: str) -> str:
    form = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
    return f"IF({text} RLIKE '{form}', try_to_timestamp({text}), NULL)"


def _date_of(text: str) -> str:
    return f"IF({text} RLIKE '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$', try_to_date({text}), NULL)"
