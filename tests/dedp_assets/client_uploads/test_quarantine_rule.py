"""The rule over quarantined lines: when an incident begins, goes on and ends."""

import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.client_uploads.quarantine_rule import Incident, Lines, judge, last_lines
from dedp_assets.client_uploads.settings_file import QuarantineLimits
from tests.dedp_assets.client_uploads.conftest import AddFile

OPEN = Incident(since="2024-01-03T08:00:00+00:00", is_told=True)
NOW = "2024-01-03T09:00:00+00:00"
LIMITS = QuarantineLimits()


@pytest.mark.parametrize(
    ("read", "quarantined", "begins"),
    [(0, 0, False), (99, 99, False), (100, 20, False), (100, 21, True), (1_000_000, 300_000, True)],
)
def test_an_incident_begins_above_the_limit_if_there_are_enough_lines(
    read: int, quarantined: int, begins: bool
) -> None:
    assert judge(Lines(read, quarantined), None, NOW, LIMITS) == (Incident(since=NOW) if begins else None)


@pytest.mark.parametrize(
    ("read", "quarantined", "goes_on"),
    [(1000, 900, True), (1000, 150, True), (10, 9, True), (1000, 100, False), (0, 0, False)],
)
def test_an_incident_goes_on_until_the_share_is_half_of_the_limit(read: int, quarantined: int, goes_on: bool) -> None:
    assert judge(Lines(read, quarantined), OPEN, NOW, LIMITS) == (OPEN if goes_on else None)


def test_the_limits_are_settings() -> None:
    limits = QuarantineLimits(share=0.5, lines=10)
    assert judge(Lines(9, 9), None, NOW, limits) is None
    assert judge(Lines(10, 5), None, NOW, limits) is None
    assert judge(Lines(10, 6), None, NOW, limits) == Incident(since=NOW)
    assert judge(Lines(100, 26), OPEN, NOW, limits) == OPEN
    assert judge(Lines(100, 25), OPEN, NOW, limits) is None


def test_only_the_lines_of_the_window_count(tables: Connection, add_file: AddFile) -> None:
    assert last_lines(tables, 3600) == (0, 0)
    add_file("north", lines=100, quarantined=10, minutes_ago=59)
    add_file("south", lines=50, quarantined=50)
    add_file("west", lines=1000, quarantined=1000, minutes_ago=61)
    add_file("east", state="refused", reason="no CSV")
    assert last_lines(tables, 3600) == (150, 60)
    assert last_lines(tables, 1800) == (50, 50)
