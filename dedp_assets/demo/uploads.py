"""Client uploads: one sensor watches all directories, and a silent, a missing or a growing one holds nobody up."""

import json
import time
from pathlib import Path

import click
from psycopg2.extensions import connection as Connection

from dedp_assets import settings
from dedp_assets.client_uploads.contract import COLUMNS
from dedp_assets.client_uploads.watched import settings_file
from dedp_assets.demo.timeline import Act, Counted, Timeline, checked, headline, results
from dedp_assets.whole_files import write_whole

CLIENTS = 25
ROWS = 4
GROWING_SECONDS = 6.0
_SETTINGS = """\
directories:
  - directory: clients/silent     # reported once when nothing has arrived for so long
    timeout: 10s
  - directory: clients/missing    # reported, and tried again ever more seldom
  - directory: clients/*          # everybody else, also who comes later
"""
_ROWS = "SELECT count(*) FROM dedp.upload_records WHERE %(client)s IS NULL OR client = %(client)s"
_STATES = "SELECT state, count(*) FROM dedp.upload_directories GROUP BY state"


def act(timeline: Timeline, database: Connection) -> Act:
    """Play the act; return whether every checked result is the expected one. Raises DemoFailed."""
    headline(
        f"Uploads: {CLIENTS} clients upload at once. One more file keeps growing, one client stays silent, and one "
        "directory is missing."
    )
    clients = settings.landing() / "clients"
    (clients / "silent").mkdir(parents=True)
    write_whole(settings_file(), _SETTINGS.encode())
    for number in range(1, CLIENTS + 1):
        _upload(clients / f"client{number:02}", is_json=number % 5 == 0)
    timeline.tell(f"uploaded       {CLIENTS} files below {clients}")
    lines = yield from _growing(clients / "growing" / "orders.csv")
    timeline.tell(f"complete       {clients}/growing/orders.csv, {lines} lines")
    expected = CLIENTS * ROWS + lines
    yield lambda: _records(database) >= expected and _states(database).get("silent", 0) > 0
    states = _states(database)
    with results("Uploads: one sensor, no slot held"):
        click.echo("   `dedp uploads` shows each directory; docs/client_uploads.md says how they are watched.")
        return all(
            [
                checked("rows in dedp.upload_records", _records(database), expected),
                checked("of them from the growing file", _records(database, "growing"), lines),
                checked("clients that are silent", states.get("silent", 0), 1),
                checked("directories that are failing", states.get("failing", 0), 1),
                checked("directories that are healthy", states.get("healthy", 0), CLIENTS + 1),
            ]
        )


def _upload(folder: Path, *, is_json: bool) -> None:
    folder.mkdir()
    rows = [dict(zip(COLUMNS, (str(row), f"item {row}", f"{row}.5"), strict=True)) for row in range(1, ROWS + 1)]
    if is_json:
        write_whole(folder / "orders.json", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    else:
        lines = [",".join(COLUMNS), *(",".join(row.values()) for row in rows)]
        write_whole(folder / "orders.csv", "\n".join([*lines, ""]).encode())


def _growing(path: Path) -> Counted:
    """Write a file in place, line by line; returns how many lines it has."""
    path.parent.mkdir()
    began, lines = time.monotonic(), 0
    with path.open("w", encoding="utf-8") as stream:
        stream.write(f"{','.join(COLUMNS)}\n")
        while time.monotonic() - began < GROWING_SECONDS:
            lines += 1
            stream.write(f"{lines},growing,{lines}\n")
            stream.flush()
            yield lambda: True
    return lines


def _records(database: Connection, client: str | None = None) -> int:
    with database.cursor() as cursor:
        cursor.execute("SELECT to_regclass('dedp.upload_records') IS NOT NULL")
        if cursor.fetchall() != [(True,)]:
            return 0  # the first tick makes the tables
        cursor.execute(_ROWS, {"client": client})
        return int(cursor.fetchall()[0][0])


def _states(database: Connection) -> dict[str, int]:
    if not _records(database):
        return {}
    with database.cursor() as cursor:
        cursor.execute(_STATES)
        return dict(cursor.fetchall())
