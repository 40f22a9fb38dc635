"""`dedp uploads`: the watched directories and what became of their files, in the terminal."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dedp_assets.servers_from_settings import database_dsn
from dedp_assets.text_tables import text_table
from dedp_assets.wording import counted, duration, in_utc

if TYPE_CHECKING:
    from dedp_assets.client_uploads.figures import Arrivals, Overview
    from dedp_assets.client_uploads.status import DirectoryStatus

_HEADER = ("client", "directory", "state", "since (UTC)", "waiting", "failures", "problem")
_TO_THE_RIGHT = ("waiting", "failures")
_COLOURS = {"failing": "red", "given up": "red", "silent": "yellow", "healthy": "green"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def uploads(as_json: bool) -> None:
    """Show the directories of client uploads as the last tick of the sensor found them, and what became of the files.

    A directory is:

    \b
    failing   it can't be scanned; it is tried again, ever more seldom
    silent    nothing has arrived for longer than its limit; it is still watched
    given up  the same, and it is not watched any more
    healthy   none of these

    waiting: files that are not loaded yet. failures: tries to scan it that failed, one after the other. A directory
    is healthy also if its files are refused: the last line counts those. This starts nothing and changes no table.
    """
    # Not at the top, and so below: the other commands need not wait for Dagster's import.
    from dedp_assets.client_uploads.figures import DAY_SECONDS, read_arrivals, read_overview
    from dedp_assets.resources.postgres import connect

    with connect(database_dsn()) as connection:
        overview, last_day = read_overview(connection), read_arrivals(connection, DAY_SECONDS)
    if as_json:
        click.echo(json.dumps(_as_json(overview, last_day), indent=2))
    else:
        for line in [*_table(overview.directories), in_short(overview), *files_in_short(last_day)]:
            click.echo(line)


def in_short(overview: Overview) -> str:
    """The line below the table."""
    if not overview.directories:
        return (
            "No directory has been watched yet: put files into $DEDP_LANDING/clients/<client>/ while the system is up."
        )
    states = ", ".join(f"{number:,} {state}" for state, number in overview.states.items() if number)
    line = f"{counted(len(overview.directories), 'directory', 'directories')}: {states}."
    tick = overview.tick
    if tick is None:
        return line
    ago = (overview.at - tick.ended_at).total_seconds()
    return (
        f"{line} The last tick ended {duration(ago)} ago and took {duration(tick.seconds)}; "
        f"{counted(tick.queue_depth, 'complete file')} waited for a free run."
    )


def files_in_short(last_day: Arrivals) -> list[str]:
    """The line below that: what became of the files of the last day. None if there were none."""
    if not last_day.files:
        return []
    states = (("loaded", last_day.loaded), ("only received", last_day.received), ("refused", last_day.refused))
    line = f"Files of the last day: {', '.join(f'{number:,} {state}' for state, number in states if number)}."
    if last_day.rows_quarantined:
        line += f" Of {counted(last_day.lines_read, 'line')}, {last_day.rows_quarantined:,} are in quarantine."
    if last_day.refused or last_day.rows_quarantined:
        from dedp_assets.client_uploads.contract import report_file

        line += f" {report_file()} says why."
    return [line]


def _table(directories: tuple[DirectoryStatus, ...]) -> list[str]:
    rows = [_cells(directory) for directory in directories]
    return text_table(_HEADER, rows, to_the_right=_TO_THE_RIGHT, coloured="state", colours=_COLOURS)


def _cells(directory: DirectoryStatus) -> tuple[str, ...]:
    return (
        directory.client,
        directory.directory,
        directory.state,
        in_utc(directory.since),
        str(directory.waiting or ""),
        str(directory.failures or ""),
        directory.problem,
    )


def _as_json(overview: Overview, last_day: Arrivals) -> dict[str, Any]:
    tick = overview.tick
    return {
        "directories": [
            {**directory._asdict(), "since": directory.since.isoformat()} for directory in overview.directories
        ],
        "states": overview.states,
        "tick": tick
        and {
            "ended_at": tick.ended_at.isoformat(),
            "seconds": tick.seconds,
            "directories": tick.directories,
            "queue_depth": tick.queue_depth,
            "timeouts": tick.timeouts,
        },
        "last_day": {name: value for name, value in asdict(last_day).items() if name != "waits"},
    }
