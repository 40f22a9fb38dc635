"""What the ticks leave of each directory in `dedp.upload_directories`."""

from collections.abc import Sequence
from pathlib import Path

from psycopg2.extensions import connection as Connection

from dedp_assets.client_uploads.status import StatusTables
from dedp_assets.landing.arrivals import Cursor, Situation, files_to_compare, plan_arrivals
from dedp_assets.landing.directories import Directory, Scan
from dedp_assets.landing.versions import FileVersion


class Ticks:
    """Ticks over directories, of which the ledger knows nothing, each 5 s after the one before."""

    def __init__(self, tables: Connection) -> None:
        self._tables, self._status, self.cursor, self._now = tables, StatusTables(), Cursor(), 1e9

    def restart(self) -> None:
        """The code server starts anew."""
        self._status = StatusTables()

    def tick(self, directories: Sequence[Directory], **scans: Scan) -> dict[str, tuple[str, int]]:
        """The state and the number of waiting files of each directory after the tick."""
        self._now += 5
        found = {directory.client: scans.get(directory.client, Scan()) for directory in directories}
        compared = files_to_compare(directories, found, self.cursor)
        plan = plan_arrivals(directories, found, compared, {}, self.cursor, Situation(self._now, (), 0))
        self._status.write(self._tables, directories, plan, self._now, 0.1, self.cursor)
        self.cursor = plan.cursor
        with self._tables, self._tables.cursor() as cursor:
            cursor.execute("SELECT client, state, waiting FROM dedp.upload_directories")
            return {client: (state, waiting) for client, state, waiting in cursor.fetchall()}


NORTH, SOUTH = (Directory(client, Path("/clients") / client) for client in ("north", "south"))
ONE_FILE = Scan({"a.csv": FileVersion(1, 2, 3, 4)})


def test_what_a_tick_finds_is_kept_and_what_is_over_is_gone(tables: Connection) -> None:
    ticks = Ticks(tables)
    assert ticks.tick([NORTH, SOUTH]) == {"north": ("healthy", 0), "south": ("healthy", 0)}
    found = ticks.tick([NORTH, SOUTH], north=ONE_FILE, south=Scan(failure="gone"))
    assert found == {"north": ("healthy", 1), "south": ("failing", 0)}
    assert ticks.tick([NORTH, SOUTH]) == {"north": ("healthy", 0), "south": ("healthy", 0)}


def test_a_directory_stands_in_the_table_as_long_as_it_is_watched(tables: Connection) -> None:
    ticks = Ticks(tables)
    assert set(ticks.tick([NORTH])) == {"north"}
    assert set(ticks.tick([NORTH, SOUTH])) == {"north", "south"}
    ticks.restart()
    assert set(ticks.tick([SOUTH])) == {"south"}


def test_a_tick_whose_cursor_was_lost_leaves_no_wrong_state_after_a_restart(tables: Connection) -> None:
    ticks = Ticks(tables)
    before = (ticks.tick([NORTH]), ticks.cursor)[1]
    ticks.tick([NORTH], north=ONE_FILE)
    ticks.cursor = before  # the daemon was killed before it stored the cursor
    ticks.restart()
    assert ticks.tick([NORTH]) == {"north": ("healthy", 0)}
