"""`dedp uploads` and `dedp metrics`: the watched directories and the figures, in the terminal and for Prometheus."""

import json
from typing import Any

import click

from dedp_assets.client_uploads.figures import Overview, read_arrivals, read_overview
from dedp_assets.client_uploads.status import DirectoryStatus
from dedp_assets.resources.postgres import connect
from dedp_assets.resources_from_settings import database_dsn
from dedp_assets.wording import counted, duration, in_utc, printable

_HEADER = ("client", "directory", "state", "since (UTC)", "waiting", "failures", "problem")
_TO_THE_RIGHT = ("waiting", "failures")
_COLOURS = {"failing": "red", "given up": "red", "silent": "yellow", "healthy": "green"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def uploads(as_json: bool) -> None:
    """Show the directories of client uploads as the last tick of the sensor found them.

    \b
    failing   it can't be scanned; it is tried again, ever more seldom
    silent    nothing has arrived for longer than its limit; it is still watched
    given up  the same, and it is not watched any more
    healthy   none of these

    waiting: files that are not loaded yet. failures: tries to scan it that failed, one after the other. This starts
    nothing and changes no table.
    """
    with connect(database_dsn()) as connection:
        overview = read_overview(connection)
    if as_json:
        click.echo(json.dumps(_as_json(overview), indent=2))
    else:
        for line in [*_table(overview.directories), in_short(overview)]:
            click.echo(line)


@click.command()
def metrics() -> None:
    """Print the figures of the client uploads in Prometheus' text format.

    They are of the last hour, day and 30 days. For node_exporter's textfile collector, write them to a file beside
    the one that it reads, and rename it. This starts nothing and changes no table.
    """
    # Not at the top: the other commands need not wait for it.
    from dedp_assets.client_uploads.metrics import WINDOWS, prometheus_text

    with connect(database_dsn()) as connection:
        overview = read_overview(connection)
        arrivals = {window: read_arrivals(connection, seconds) for window, seconds in WINDOWS.items()}
    click.echo(prometheus_text(overview, arrivals), nl=False)


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


def _table(directories: tuple[DirectoryStatus, ...]) -> list[str]:
    if not directories:
        return []
    rows = [_HEADER, *(_cells(directory) for directory in directories)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    colours = ["", *(_COLOURS[directory.state] for directory in directories)]
    return [_line(row, widths, colour) for row, colour in zip(rows, colours, strict=True)]


def _cells(directory: DirectoryStatus) -> tuple[str, ...]:
    return (
        printable(directory.client),
        printable(directory.directory),
        directory.state,
        in_utc(directory.since),
        str(directory.waiting or ""),
        str(directory.failures or ""),
        printable(directory.problem),
    )


def _line(cells: tuple[str, ...], widths: list[int], colour: str) -> str:
    padded = [
        cell.rjust(width) if name in _TO_THE_RIGHT else cell.ljust(width)
        for cell, width, name in zip(cells, widths, _HEADER, strict=True)
    ]
    if colour:
        padded[2] = click.style(padded[2], fg=colour)
    return "  ".join(padded).rstrip()


def _as_json(overview: Overview) -> dict[str, Any]:
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
    }
