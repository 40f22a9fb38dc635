"""The figures of the client uploads, for the report, `dedp metrics` and `dedp uploads`.

They come from tables that the pipeline writes anyway: the ledger `dedp.upload_files`, and what the last tick left in
`dedp.upload_directories` and `dedp.upload_ticks`. Reading them changes nothing.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from dedp_assets.client_uploads.status import DirectoryStatus

# Older arrivals are left out, so that the queries stay fast however long the ledger is.
WINDOW_DAYS = 30
DAY_SECONDS = 86_400
WINDOW_SECONDS = WINDOW_DAYS * DAY_SECONDS

# A chart has at most this many intervals. Their width is the first of these that is wide enough, in s.
_MOST_INTERVALS = 75
_WIDTHS_SECONDS = (60, 300, 900, 3600, 4 * 3600, DAY_SECONDS)

_MOST_REASONS = 12
_MOST_REFUSALS = 12

# Sorting a million waits in the default 4 MB goes through files on the disk.
_BEGIN = "SET LOCAL work_mem = '64MB'"

_HAS_TABLES = """
    SELECT pg_catalog.to_regclass('dedp.upload_files') IS NOT NULL
       AND pg_catalog.to_regclass('dedp.upload_quarantine') IS NOT NULL
       AND pg_catalog.to_regclass('dedp.upload_directories') IS NOT NULL
       AND pg_catalog.to_regclass('dedp.upload_ticks') IS NOT NULL
"""

_AGGREGATES = """
    count(*),
    count(*) FILTER (WHERE state = 'loaded'),
    count(*) FILTER (WHERE state = 'received'),
    count(*) FILTER (WHERE state = 'refused'),
    coalesce(sum(lines_read), 0)::bigint,
    coalesce(sum(rows_loaded), 0)::bigint,
    coalesce(sum(rows_quarantined), 0)::bigint,
    avg(waited_seconds),
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY waited_seconds)
"""

_ARRIVALS = f"""
    SELECT {_AGGREGATES}
    FROM dedp.upload_files
    WHERE dealt_with_at > now() - %(seconds)s * interval '1 second'
"""

_FIRST = """
    SELECT extract(epoch FROM now() - min(dealt_with_at))::float8
    FROM dedp.upload_files
    WHERE dealt_with_at > now() - %(seconds)s * interval '1 second'
"""

# Interval by interval, which sorts a few thousand waits at a time: to group a million rows takes twice as long.
_INTERVALS = f"""
    SELECT interval_start, arrivals.*
    FROM generate_series(
        date_bin(
            %(width)s * interval '1 second', now() - %(span)s * interval '1 second', timestamptz '2001-01-01 00:00Z'
        ),
        now(),
        %(width)s * interval '1 second'
    ) AS interval_start
    CROSS JOIN LATERAL (
        SELECT {_AGGREGATES}
        FROM dedp.upload_files
        WHERE dealt_with_at >= interval_start
          AND dealt_with_at < interval_start + %(width)s * interval '1 second'
          AND dealt_with_at > now() - %(seconds)s * interval '1 second'
    ) AS arrivals (files)
    WHERE arrivals.files > 0
    ORDER BY interval_start
"""

_CLIENTS = """
    SELECT
        client,
        count(*),
        count(*) FILTER (WHERE state = 'refused'),
        coalesce(sum(lines_read), 0)::bigint,
        coalesce(sum(rows_loaded), 0)::bigint,
        coalesce(sum(rows_quarantined), 0)::bigint,
        avg(waited_seconds),
        max(dealt_with_at)
    FROM dedp.upload_files
    WHERE dealt_with_at > now() - %(seconds)s * interval '1 second'
    GROUP BY client
"""

# By client first: to count distinct clients of a million lines takes twenty times as long. A line is as old as
# the version of the file that was loaded last. A later version that was refused has left the line where it was.
_REASONS = """
    WITH recent AS (
        SELECT DISTINCT client, file
        FROM dedp.upload_files
        WHERE rows_quarantined > 0 AND dealt_with_at > now() - %(seconds)s * interval '1 second'
    ),
    by_client AS (
        SELECT reason, client, count(*) AS lines
        FROM dedp.upload_quarantine
        JOIN recent USING (client, file)
        GROUP BY reason, client
    ),
    by_reason AS (
        SELECT
            reason,
            sum(lines)::bigint AS lines,
            count(*) AS clients,
            (array_agg(client ORDER BY lines DESC, client))[1] AS worst_client
        FROM by_client
        GROUP BY reason
        ORDER BY lines DESC, reason
        LIMIT %(limit)s
    )
    SELECT reason, lines, clients, worst_client, example.file, example.line_number, example.detail
    FROM by_reason
    CROSS JOIN LATERAL (
        SELECT file, line_number, detail
        FROM dedp.upload_quarantine AS quarantine
        JOIN recent USING (client, file)
        WHERE quarantine.client = by_reason.worst_client AND quarantine.reason = by_reason.reason
        LIMIT 1
    ) AS example
    ORDER BY lines DESC, reason
"""

_REFUSALS = """
    SELECT client, file, reason, dealt_with_at
    FROM dedp.upload_files
    WHERE state = 'refused' AND is_current AND dealt_with_at > now() - %(seconds)s * interval '1 second'
    ORDER BY dealt_with_at DESC, client, file
    LIMIT %(limit)s
"""

_DIRECTORIES = """
    SELECT client, directory, state, since, waiting, failures, problem
    FROM dedp.upload_directories
    ORDER BY (state = 'healthy'), client
"""

_TICK = "SELECT ended_at, seconds, directories, queue_depth, timeouts FROM dedp.upload_ticks"

# `dealt_with_at` is when a transaction began, and one that began earlier may be committed later. So the latest time
# alone does not tell that a row has come; the number of rows of the hour before it does.
_VERSION = """
    SELECT
        latest.at AT TIME ZONE 'UTC',
        (SELECT count(*) FROM dedp.upload_files WHERE dealt_with_at >= latest.at - interval '1 hour'),
        (
            SELECT md5(string_agg(concat_ws(' ', client, directory, state, problem), chr(10) ORDER BY client))
            FROM dedp.upload_directories
        )
    FROM (SELECT max(dealt_with_at) AS at FROM dedp.upload_files) AS latest
"""


@dataclass(frozen=True)
class Waits:
    """How long files waited, from when a tick saw them first until a run was requested, in s."""

    mean: float
    p50: float
    p95: float


@dataclass(frozen=True)
class Arrivals:
    """What was done with the files of some time. `waits`: None if there were no files."""

    files: int = 0
    loaded: int = 0
    received: int = 0
    refused: int = 0
    lines_read: int = 0
    rows_loaded: int = 0
    rows_quarantined: int = 0
    waits: Waits | None = None

    @property
    def success_rate(self) -> float | None:
        """The share of the files that were not refused, from 0 to 1. None if there were no files."""
        return (self.files - self.refused) / self.files if self.files else None


@dataclass(frozen=True)
class Interval:
    """The arrivals of one interval of a chart. An interval without arrivals is not there."""

    start: datetime
    arrivals: Arrivals


@dataclass(frozen=True)
class History:
    """The arrivals of the window over time. `width_seconds`: of each interval."""

    width_seconds: int = _WIDTHS_SECONDS[0]
    intervals: tuple[Interval, ...] = ()


@dataclass(frozen=True)
class ClientArrivals:
    """What was done with the files of one client. `mean_wait`: in s."""

    client: str
    files: int
    refused: int
    lines_read: int
    rows_loaded: int
    rows_quarantined: int
    mean_wait: float
    last_at: datetime


@dataclass(frozen=True)
class Reason:
    """Why lines are in quarantine: how many, of how many clients, and one of them as an example."""

    reason: str
    lines: int
    clients: int
    worst_client: str
    file: str
    line_number: int
    detail: str


@dataclass(frozen=True)
class Refusal:
    """A file of which nothing could be loaded."""

    client: str
    file: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class Tick:
    """The last tick of the sensor. `timeouts`: how many were reported in all, since the tables were made."""

    ended_at: datetime
    seconds: float
    directories: int
    queue_depth: int
    timeouts: int


@dataclass(frozen=True)
class Overview:
    """What the last tick found, at `at` by the clock of the database. Directories that are not healthy come first."""

    at: datetime
    directories: tuple[DirectoryStatus, ...] = ()
    tick: Tick | None = None

    @property
    def states(self) -> dict[str, int]:
        """How many directories are in each state."""
        found = dict.fromkeys(("healthy", "failing", "silent", "given up"), 0)
        for directory in self.directories:
            found[directory.state] += 1
        return found

    @property
    def waiting(self) -> int:
        """How many files are not in the ledger yet, complete or not."""
        return sum(directory.waiting for directory in self.directories)


@dataclass(frozen=True)
class Figures:
    """All that the report shows. `version` changes when any of it does, except by the passing of time."""

    overview: Overview
    version: str = ""
    total: Arrivals = Arrivals()
    history: History = History()
    clients: tuple[ClientArrivals, ...] = ()
    reasons: tuple[Reason, ...] = ()
    refusals: tuple[Refusal, ...] = ()


def read_figures(connection: Connection) -> Figures:
    """Read all that the report shows, as of one moment.

    Args:
        connection: To a database, which need not have the tables yet.
    """
    with _reading(connection) as cursor:
        overview = _overview(cursor)
        if not _has_tables(cursor):
            return Figures(overview)
        return Figures(
            overview=overview,
            version=_version(cursor),
            total=_arrivals(cursor, WINDOW_SECONDS),
            history=_history(cursor),
            clients=_clients(cursor),
            reasons=_reasons(cursor),
            refusals=_refusals(cursor),
        )


def read_overview(connection: Connection) -> Overview:
    """Read what the last tick found: nothing if there are no tables yet."""
    with _reading(connection) as cursor:
        return _overview(cursor)


def read_arrivals(connection: Connection, seconds: int) -> Arrivals:
    """Read what was done with the files of the last `seconds`."""
    with _reading(connection) as cursor:
        return _arrivals(cursor, seconds) if _has_tables(cursor) else Arrivals()


def read_version(connection: Connection) -> str:
    """Read the version of the figures: "" if there are no tables yet."""
    with _reading(connection) as cursor:
        return _version(cursor) if _has_tables(cursor) else ""


@contextmanager
def _reading(connection: Connection) -> Iterator[Cursor]:
    """A transaction that writes nothing, and in which all queries see the same moment."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute(_BEGIN)
        yield cursor


def _has_tables(cursor: Cursor) -> bool:
    cursor.execute(_HAS_TABLES)
    return bool(_row(cursor)[0])


def _overview(cursor: Cursor) -> Overview:
    cursor.execute("SELECT now()")
    at = _row(cursor)[0]
    if not _has_tables(cursor):
        return Overview(at)
    cursor.execute(_DIRECTORIES)
    directories = tuple(DirectoryStatus(*row) for row in cursor.fetchall())
    cursor.execute(_TICK)
    ticks = [Tick(*row) for row in cursor.fetchall()]
    return Overview(at, directories, ticks[0] if ticks else None)


def _arrivals(cursor: Cursor, seconds: int) -> Arrivals:
    cursor.execute(_ARRIVALS, {"seconds": seconds})
    return _arrivals_of(_row(cursor))


def _arrivals_of(row: tuple[Any, ...]) -> Arrivals:
    mean, percentiles = row[-2:]
    return replace(Arrivals(*row[:-2]), waits=None if mean is None else Waits(mean, *percentiles))


def _history(cursor: Cursor) -> History:
    cursor.execute(_FIRST, {"seconds": WINDOW_SECONDS})
    span = _row(cursor)[0]
    if span is None:
        return History()
    width = interval_width(span)
    cursor.execute(_INTERVALS, {"seconds": WINDOW_SECONDS, "span": span, "width": width})
    return History(width, tuple(Interval(start, _arrivals_of(tuple(rest))) for start, *rest in cursor.fetchall()))


def interval_width(span_seconds: float) -> int:
    """How wide the intervals of a chart over so many seconds are, in s."""
    wide_enough = [width for width in _WIDTHS_SECONDS if span_seconds / width <= _MOST_INTERVALS]
    return wide_enough[0] if wide_enough else _WIDTHS_SECONDS[-1]


def _clients(cursor: Cursor) -> tuple[ClientArrivals, ...]:
    cursor.execute(_CLIENTS, {"seconds": WINDOW_SECONDS})
    return tuple(ClientArrivals(*row) for row in cursor.fetchall())


def _reasons(cursor: Cursor) -> tuple[Reason, ...]:
    cursor.execute(_REASONS, {"seconds": WINDOW_SECONDS, "limit": _MOST_REASONS})
    return tuple(Reason(*row) for row in cursor.fetchall())


def _refusals(cursor: Cursor) -> tuple[Refusal, ...]:
    cursor.execute(_REFUSALS, {"seconds": WINDOW_SECONDS, "limit": _MOST_REFUSALS})
    return tuple(Refusal(*row) for row in cursor.fetchall())


def _version(cursor: Cursor) -> str:
    cursor.execute(_VERSION)
    return hashlib.sha256(repr(_row(cursor)).encode()).hexdigest()[:16]


def _row(cursor: Cursor) -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row is not None
    return row
