"""A rule over what was loaded: too many of the last hour's lines are in quarantine. Somebody is told once."""

from typing import NamedTuple

from psycopg2.extensions import connection as Connection
from pydantic import BaseModel

# An incident begins when more than this share of the lines is in quarantine, and ends at half of it. Without the gap
# between the two, a share that moves around the limit would be an incident again and again.
LIMIT = 0.2
# Fewer lines begin no incident: of three lines, one is a third.
FEWEST_LINES = 100
HOUR_SECONDS = 3600

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


def lines_of_last_hour(connection: Connection) -> Lines:
    """The lines of all files that were dealt with in the last hour, by the database's clock."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_LINES, [HOUR_SECONDS])
        read, quarantined = cursor.fetchone() or (0, 0)
    return Lines(read, quarantined)


def judge(lines: Lines, incident: Incident | None, now: str) -> Incident | None:
    """Whether there is an incident now: the one that goes on, a new one, or None.

    Args:
        lines: Of the last hour.
        incident: The one that was there before, if there was one.
        now: As ISO 8601. A new incident begins now.
    """
    if incident is not None:
        return incident if lines.share > LIMIT / 2 else None
    return Incident(since=now) if lines.read >= FEWEST_LINES and lines.share > LIMIT else None
