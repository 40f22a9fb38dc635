"""The report of the client uploads: one HTML file that loads nothing, to look at and to send around."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from dedp_assets.client_uploads import charts
from dedp_assets.client_uploads.charts import Moment
from dedp_assets.client_uploads.figures import WINDOW_DAYS, ClientArrivals, Figures
from dedp_assets.client_uploads.status import DirectoryStatus
from dedp_assets.pages.rendering import template
from dedp_assets.wording import counted, duration, in_utc

# More would make a page that a browser shows slowly. `dedp uploads` lists every client.
MOST_CLIENTS = 300
MOST_PROBLEMS = 50


@dataclass(frozen=True)
class ClientRow:
    """One client of the table: its directory, if it is watched, and what was done with its files, if it had any."""

    client: str
    directory: DirectoryStatus | None
    arrivals: ClientArrivals | None

    @property
    def state(self) -> str:
        return self.directory.state if self.directory else "not watched"

    @property
    def urgency(self) -> int:
        """0 if the directory needs somebody, 1 if files were refused, 2 for all others."""
        if self.state not in ("healthy", "not watched"):
            return 0
        return 1 if self.arrivals and self.arrivals.refused else 2


@dataclass(frozen=True)
class Approach:
    """A way to wait for files, and what it costs.

    Attributes:
        name: What it is.
        slots: The worker slots that it holds while it waits for 100 files.
        held_by: What holds the wait instead, or why it needs the slots.
        hundred: 100 files that arrive at once: until the last one was seen.
        thousand: The same for 1,000 files.
        measured: How the figures were found.
    """

    name: str
    slots: str
    held_by: str
    hundred: str
    thousand: str
    measured: str


# `benchmarks/uploads_burst.py` under `dedp up` on two cores: s until the sensor had seen the last of so many files that
# were created at once in as many directories. Its README has the same figures.
SEEN_SECONDS = {100: 0.5, 1000: 0.6}


def approaches(figures: Figures) -> list[Approach]:
    """The comparison of blocking sensors, deferrable sensors and this sensor."""
    tick = figures.overview.tick
    here = "No tick has ended yet."
    if tick:
        here = (
            f"The last tick was over {counted(tick.directories, 'directory', 'directories')} and took "
            f"{duration(tick.seconds)}, as the sensor measured it, at {in_utc(tick.ended_at)} UTC."
        )
    return [
        Approach(
            "Airflow: blocking sensors (poke)",
            "100",
            "one worker slot for each wait, until its file is there",
            "not measured: they need 100 slots",
            "not measured: they need 1,000 slots",
            "Airflow 3.3.2, LocalExecutor, PostgreSQL, one machine: a pipeline with two poking sensors held two slots "
            "until its files came. 100 waits are calculated: one slot each. By the same calculation, three silent "
            "suppliers with a new wait a day each fill 16 slots on the sixth day.",
        ),
        Approach(
            "Airflow: deferrable sensors",
            "0",
            "the triggerer; a slot for a moment to begin each wait, and again to end it",
            "29.3 s",
            "321 s",
            "The same Airflow with its triggerer. It took 27 s until all of 100 waits were deferred, and 297 s for "
            "1,000. Then all files were created at once; Airflow's database says when the last task ended.",
        ),
        Approach(
            "Here: one sensor over all directories",
            "0",
            "an entry in the sensor's cursor",
            f"{SEEN_SECONDS[100]:g} s",
            f"{SEEN_SECONDS[1000]:g} s",
            "This system on two cores, its daemon and PostgreSQL beside each other, measured with "
            "benchmarks/uploads_burst.py: the files were created at once, and a file is seen when it is in the "
            f"sensor's cursor. No run exists while a file is awaited, so nothing can hold a slot. {here}",
        ),
    ]


def report_html(figures: Figures, moments: Sequence[Moment]) -> str:
    """Write the report.

    Args:
        figures: What it shows.
        moments: What the reports before it and this one say of the sensor, oldest first.

    Returns:
        A page of HTML that needs no other file. Text from clients is escaped.
    """
    rows = client_rows(figures)
    problems = [each for each in figures.overview.directories if each.state != "healthy"]
    most_lines = max((reason.lines for reason in figures.reasons), default=0)
    return template("dedp_assets.client_uploads", "report.html.jinja").render(
        figures=figures,
        overview=figures.overview,
        total=figures.total,
        states=figures.overview.states,
        verdict=verdict(figures),
        window_days=WINDOW_DAYS,
        problems=problems[:MOST_PROBLEMS],
        more_problems=max(0, len(problems) - MOST_PROBLEMS),
        rows=rows[:MOST_CLIENTS],
        more_rows=max(0, len(rows) - MOST_CLIENTS),
        most_lines=most_lines,
        approaches=approaches(figures),
        waits_chart=charts.waits_chart(figures.history) if figures.history.intervals else "",
        files_chart=charts.files_chart(figures.history) if figures.history.intervals else "",
        ticks_chart=charts.ticks_chart(moments) if moments else "",
        queue_chart=charts.queue_chart(moments) if moments else "",
    )


def verdict(figures: Figures) -> tuple[str, str]:
    """Say in one sentence whether somebody has to act.

    Returns:
        `good`, `bad` or `none`, and the sentence.
    """
    states = figures.overview.states
    watched = len(figures.overview.directories)
    if not watched:
        return "none", "No directory has been watched yet."
    wrong = [
        f"{number:,} {'is' if number == 1 else 'are'} {state}"
        for state, number in states.items()
        if number and state != "healthy"
    ]
    refused = figures.total.refused
    sentences = []
    if wrong:
        sentences.append(f"Of {counted(watched, 'directory', 'directories')}, {', '.join(wrong)}.")
    else:
        sentences.append(f"{counted(watched, 'directory', 'directories')}: all healthy.")
    if refused:
        was = "was" if refused == 1 else "were"
        sentences.append(f"{counted(refused, 'file')} {was} refused in the last {WINDOW_DAYS} days.")
    return ("bad" if wrong or refused else "good"), " ".join(sentences)


def client_rows(figures: Figures) -> list[ClientRow]:
    """The clients that are watched or had files: directories that need somebody first."""
    directories = {each.client: each for each in figures.overview.directories}
    arrivals = {each.client: each for each in figures.clients}
    rows = [
        ClientRow(client, directories.get(client), arrivals.get(client)) for client in directories.keys() | arrivals
    ]
    return sorted(rows, key=lambda row: (row.urgency, -(row.arrivals.files if row.arrivals else 0), row.client))


def numbers(figures: Figures) -> dict[str, int | float]:
    """The figures of the report as numbers, for the metadata of the asset: the UI plots them over time."""
    total, overview, tick = figures.total, figures.overview, figures.overview.tick
    states = overview.states
    found: dict[str, int | float] = {
        "files": total.files,
        "files_loaded": total.loaded,
        "files_received": total.received,
        "files_refused": total.refused,
        "lines_read": total.lines_read,
        "rows_loaded": total.rows_loaded,
        "rows_quarantined": total.rows_quarantined,
        "clients": len(figures.clients),
        "directories": len(overview.directories),
        "directories_healthy": states["healthy"],
        "directories_failing": states["failing"],
        "directories_silent": states["silent"],
        "directories_given_up": states["given up"],
        "files_waiting": overview.waiting,
    }
    if total.success_rate is not None:
        found |= {"success_rate": round(total.success_rate, 4), "refusal_rate": round(1 - total.success_rate, 4)}
    if total.waits:
        found |= {
            "wait_mean_seconds": round(total.waits.mean, 3),
            "wait_p50_seconds": round(total.waits.p50, 3),
            "wait_p95_seconds": round(total.waits.p95, 3),
        }
    if tick:
        found |= {"tick_seconds": round(tick.seconds, 4), "queue_depth": tick.queue_depth, "timeouts": tick.timeouts}
    return found


def moment(figures: Figures) -> Moment | None:
    """What this report says of the sensor. None before its first tick."""
    overview = figures.overview
    if overview.tick is None:
        return None
    healthy = overview.states["healthy"]
    return Moment(
        overview.at,
        overview.tick.seconds,
        overview.tick.queue_depth,
        healthy,
        len(overview.directories) - healthy,
    )


def moment_of(at_seconds: float, values: Mapping[str, object]) -> Moment | None:
    """What an earlier report said of the sensor, from the metadata of its materialization.

    Args:
        at_seconds: When it was made, in s since the epoch.
        values: Its `numbers`.

    Returns:
        None if it does not say it.
    """
    wanted = ("tick_seconds", "queue_depth", "directories", "directories_healthy")
    found = [values.get(name) for name in wanted]
    if not all(isinstance(value, int | float) for value in found):
        return None
    seconds, depth, directories, healthy = (float(value) for value in found)  # type: ignore[arg-type]
    at = datetime.fromtimestamp(at_seconds, timezone.utc)
    return Moment(at, seconds, int(depth), int(healthy), int(directories - healthy))
