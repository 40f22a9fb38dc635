"""A rule over what was loaded: too many of the last lines are in quarantine. Somebody is told once per incident.

How many are too many, and how far back lines count, is a setting (`QuarantineLimits`).
"""

from typing import NamedTuple

from psycopg2.extensions import connection as Connection
from pydantic import BaseModel

from dedp_assets.client_uploads.settings_file import QuarantineLimits

_LINES = """
    SELECT coalesce(sum(lines_read), 0)::bigint, coalesce(sum(rows_quarantined), 0)::bigint
    FROM dedp.upload_files
    WHERE dealt_with_at > now() - %s * interval '1 second'
"""


class Lines(NamedTuple):
    """How many lines were read, and how many of them are in quarantine."""

    read: int
    quarantined: int

    @property
    def share(self) -> float:
        """The part that is in quarantine, from 0 to 1. 0 if no line was read."""
        return self.quarantined / self.read if self.read else 0.0


class Incident(BaseModel):
    """An incident that goes on. `since`: when it was noticed, as ISO 8601; `is_told`: whether people know of it."""

    since: str
    is_told: bool = False


def last_lines(connection: Connection, seconds: float) -> Lines:
    """The lines of all files that were dealt with in the last `seconds`, by the database's clock."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_LINES, [seconds])
        read, quarantined = cursor.fetchone() or (0, 0)
    return Lines(read, quarantined)


def judge(lines: Lines, incident: Incident | None, now: str, limits: QuarantineLimits) -> Incident | None:
    """Whether there is an incident now: the one that goes on, a new one, or None.

    Args:
        lines: Of the window.
        incident: The one that was there before, if there was one.
        now: As ISO 8601. A new incident begins now.
        limits: By the settings.
    """
    if incident is not None:
        # Without the gap, a share that moves around the limit would be an incident again and again.
        return incident if lines.share > limits.share / 2 else None
    return Incident(since=now) if lines.read >= limits.lines and lines.share > limits.share else None
