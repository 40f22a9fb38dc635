"""The figures of client uploads, from real tables."""

from collections.abc import Callable
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from dedp_assets.client_uploads.figures import (
    WINDOW_DAYS,
    Arrivals,
    Waits,
    interval_width,
    read_arrivals,
    read_figures,
    read_overview,
    read_version,
)


def test_a_database_without_tables_has_no_figures(empty_dsn: str) -> None:
    with closing(psycopg2.connect(empty_dsn)) as connection:
        figures = read_figures(connection)
        assert (figures.version, figures.total, figures.clients) == ("", Arrivals(), ())
        assert (figures.overview.directories, figures.overview.tick) == ((), None)
        assert read_arrivals(connection, 3600) == Arrivals()
        assert read_version(connection) == ""


def test_tables_without_rows_have_no_waits_and_no_rates(tables: Connection) -> None:
    figures = read_figures(tables)
    assert figures.total == Arrivals()
    assert figures.total.success_rate is None
    assert figures.history.intervals == ()
    assert figures.version


def test_waits_and_rates_are_those_of_the_files_of_the_window(
    tables: Connection, add_file: Callable[..., None]
) -> None:
    for number in range(1, 101):
        state = "refused" if number <= 10 else "loaded"
        add_file(file=f"{number}.csv", state=state, waited_seconds=number, lines=10, quarantined=1)
    add_file(file="long ago.csv", waited_seconds=10_000, minutes_ago=31 * 24 * 60)
    figures = read_figures(tables)
    assert figures.total == Arrivals(100, 90, 0, 10, 1000, 900, 100, Waits(50.5, 50.5, 95.05))
    assert figures.total.success_rate == 0.9
    assert [(each.client, each.files, each.refused) for each in figures.clients] == [("north", 100, 10)]


def test_a_shorter_window_has_its_own_figures(tables: Connection, add_file: Callable[..., None]) -> None:
    add_file(file="now.csv", waited_seconds=2)
    add_file(file="two hours ago.csv", waited_seconds=4, minutes_ago=120)
    assert read_arrivals(tables, 3600).waits == Waits(2, 2, 2)
    assert read_arrivals(tables, 86_400).files == 2


def test_files_are_counted_in_the_interval_in_which_they_were_dealt_with(
    tables: Connection, add_file: Callable[..., None]
) -> None:
    for number, minutes_ago in enumerate([0, 30, 60]):
        add_file(file=f"{number}.csv", waited_seconds=number, minutes_ago=minutes_ago)
    history = read_figures(tables).history
    assert history.width_seconds == 60
    assert [each.arrivals.files for each in history.intervals] == [1, 1, 1]
    assert [each.arrivals.waits for each in history.intervals] == [Waits(n, n, n) for n in (2, 1, 0)]


@pytest.mark.parametrize(
    ("span", "width"), [(0, 60), (3600, 60), (3 * 3600, 300), (86_400, 3600), (30 * 86_400, 86_400)]
)
def test_a_chart_has_a_readable_number_of_intervals(span: float, width: int) -> None:
    assert interval_width(span) == width
    assert span / width <= 75


def test_reasons_of_quarantine_come_with_the_most_lines_first_and_with_an_example(
    tables: Connection, add_file: Callable[..., None]
) -> None:
    add_file("north", "a.csv", lines=2, quarantined=2)
    add_file("south", "a.csv", lines=2, quarantined=2)
    add_file("west", "a.csv", lines=5, quarantined=5, minutes_ago=WINDOW_DAYS * 24 * 60 + 1)
    with tables, tables.cursor() as cursor:
        cursor.execute(
            "INSERT INTO dedp.upload_quarantine SELECT client, 'a.csv', line, reason, 'found ' || line, '', '' "
            "FROM (VALUES ('north', 'empty', 1), ('north', 'fields', 2), ('south', 'fields', 3), "
            "('south', 'fields', 4), ('west', 'too old', 1)) AS lines (client, reason, line)"
        )
    reasons = read_figures(tables).reasons
    assert [(each.reason, each.lines, each.clients, each.worst_client) for each in reasons] == [
        ("fields", 3, 2, "south"),
        ("empty", 1, 1, "north"),
    ]
    assert reasons[0].detail in ("found 3", "found 4")


def test_refused_files_are_named_until_a_good_version_of_them_came(
    tables: Connection, add_file: Callable[..., None]
) -> None:
    add_file(file="bad.csv", state="refused", reason="it has no header")
    add_file(file="mended.csv", state="refused", reason="it has no header")
    with tables, tables.cursor() as cursor:
        cursor.execute("UPDATE dedp.upload_files SET is_current = false WHERE file = 'mended.csv'")
    assert [(each.file, each.reason) for each in read_figures(tables).refusals] == [("bad.csv", "it has no header")]


def test_directories_that_need_somebody_come_first(
    tables: Connection, add_directory: Callable[..., None], set_tick: Callable[[], None]
) -> None:
    add_directory("a", waiting=2)
    add_directory("z", "failing", problem="can't be read", failures=3, waiting=1)
    set_tick()
    overview = read_overview(tables)
    assert [each.client for each in overview.directories] == ["z", "a"]
    assert overview.states == {"healthy": 1, "failing": 1, "silent": 0, "given up": 0}
    assert overview.waiting == 3
    assert overview.tick
    assert (overview.tick.queue_depth, overview.tick.timeouts) == (7, 2)


def test_the_version_changes_with_a_file_and_with_a_state_and_not_with_a_tick(
    tables: Connection,
    add_file: Callable[..., None],
    add_directory: Callable[..., None],
    set_tick: Callable[[], None],
) -> None:
    versions = [read_version(tables)]
    add_file()
    versions.append(read_version(tables))
    add_directory()
    versions.append(read_version(tables))
    assert len(set(versions)) == 3
    set_tick()
    with tables, tables.cursor() as cursor:
        cursor.execute("UPDATE dedp.upload_directories SET waiting = 5, failures = 2")
    assert read_version(tables) == versions[-1] == read_figures(tables).version


def test_a_file_that_is_committed_after_a_later_one_changes_the_version(
    tables: Connection, add_file: Callable[..., None]
) -> None:
    add_file(file="later.csv")
    before = read_version(tables)
    add_file(file="earlier, and committed late.csv", minutes_ago=5)
    assert read_version(tables) != before
