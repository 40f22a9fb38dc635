"""Draws the picture of late data: a row for each day, with a dot for each commit that changed it.

A dot is at the time of the commit.
"""

import io
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from dedp_assets.days import day_after
from dedp_assets.delta.commits import Commit, Snapshot, add_fingerprints
from dedp_assets.late_data_integrator import state
from dedp_assets.late_data_integrator.overview import History
from dedp_assets.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# We draw at most this many days, those that changed last. A row is two pixels high then.
MAX_DAYS = 400
# A row is divided into this many cells. Of dots that look the same in one cell, we draw one.
_CELLS = 250
# A picture with at most this many dots and days has the version beside each dot. With more it would be unreadable.
_DOTS_WITH_VERSIONS = 60
_DAYS_WITH_VERSIONS = 20
_DAYS_NAMED = 25

_DPI = 100
_WIDTH, _TITLE, _LINE, _BOTTOM = 9.2, 0.56, 0.19, 1.05  # inches
_INK, _FAINT, _CLOSED = "#333333", "#767676", "#fdf0e0"

Kind: TypeAlias = Literal["first", "more", "late"]


class _Style(NamedTuple):
    colour: str
    marker: str
    meaning: str


_STYLES: dict[Kind, _Style] = {
    "first": _Style("#1f4e8c", "o", "first load of the day"),
    "more": _Style("#6f9fd8", "o", "more, before it was closed"),
    "late": _Style("#d9480f", "D", "late: after it was closed"),
}


class Dot(NamedTuple):
    """A commit that changed a day.

    Attributes:
        version: the version that the commit made.
        at: when it was made (UTC).
        kind: "first" for the first load of the day, "late" for a commit after the day was closed, else "more".
        counted: whether the counts reflect it.
    """

    version: int
    at: datetime
    kind: Kind
    counted: bool


@dataclass(frozen=True)
class Timeline:
    """The history of a day.

    Attributes:
        dots: the commits that changed the day, oldest first.
        closed: when the first commit to the next day closed this day (UTC), or None.
        counts_version: the version of the input that its counts reflect, or None.
        is_behind: whether it was counted and has changed since.
    """

    day: str
    dots: tuple[Dot, ...]
    closed: datetime | None
    counts_version: int | None
    is_behind: bool


def timelines(progress: state.Progress, history: History, known: Collection[str]) -> list[Timeline]:
    """The history of every day that a commit changed, in order.

    Args:
        progress: how far every day is.
        history: the commits to the input table.
        known: the days that Dagster has a partition for. Other partitions of the table are left out.
    """
    commits: dict[str, list[Commit]] = defaultdict(list)
    for commit in history.commits:
        for day in commit.changes.keys() & known:
            commits[day].append(commit)
    earlier, late = _partitions_before(history, progress.snapshot), set(progress.late)
    found = []
    for day in sorted(commits):
        closed = _closed(day, commits, history, earlier)
        recorded = progress.recorded.get(day)
        counted_to = -1
        if recorded:
            counted_to = recorded.version if day in late else progress.snapshot.version
        dots = [
            Dot(
                commit.version,
                commit.timestamp,
                _kind(commit, is_first=number == 0 and day not in earlier, closed=closed),
                commit.version <= counted_to,
            )
            for number, commit in enumerate(commits[day])
        ]
        version = recorded.version if recorded else None
        found.append(Timeline(day, tuple(dots), closed and closed.at, version, is_behind=day in late))
    return found


class _Closed(NamedTuple):
    version: int
    at: datetime


def _closed(day: str, commits: dict[str, list[Commit]], history: History, earlier: Collection[str]) -> _Closed | None:
    next_day = day_after(day)
    if next_day in earlier:
        # It was closed by a commit that the log does not have any more.
        return _Closed(history.commits[0].version - 1, history.commits[0].timestamp)
    return _Closed(commits[next_day][0].version, commits[next_day][0].timestamp) if next_day in commits else None


def _kind(commit: Commit, *, is_first: bool, closed: _Closed | None) -> Kind:
    if is_first:
        return "first"
    return "late" if closed and commit.version > closed.version else "more"


def _partitions_before(history: History, snapshot: Snapshot) -> set[str]:
    """The partitions that had files before the first commit of the history."""
    if not history.missing:
        return set()
    # If these commits do not add up to the files that a partition has now, it had files before.
    changed = add_fingerprints({}, history.commits)
    return {day for day in {*snapshot.files, *changed} if snapshot.fingerprint(day) != changed.get(day, 0)}


def late_data_picture(days: Sequence[Timeline], missing: int = 0) -> bytes:
    """Draw the picture.

    Args:
        days: the history of each day.
        missing: how many older commits are not among the dots.

    Returns:
        A PNG, 920 pixels wide and at most 1,100 pixels high.
    """
    # Imported here because it takes a second, and a code location should load quickly. We don't use pyplot, which keeps
    # every figure until the process ends.
    from matplotlib.figure import Figure

    drawn = days_to_draw(days)
    subtitle = describe_picture(days, len(drawn), missing)
    top = _TITLE + _LINE * len(subtitle)
    rows = min(max(0.32 * len(drawn), 1.5), 9.0) if drawn else 0  # inches
    height = top + rows + (_BOTTOM if drawn else 0)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    figure.text(0.012, 1 - 0.28 / height, "Late data: commits to lake/devices", size=13, weight="bold", color=_INK)
    figure.text(0.012, 1 - 0.42 / height, "\n".join(subtitle), size=9, color=_FAINT, va="top", linespacing=1.4)
    if drawn:
        axes = figure.add_axes((0.11, _BOTTOM / height, 0.8, rows / height), facecolor="white")
        _draw_days(axes, drawn, row_height=rows * 72 / len(drawn))
        _name_days(axes, drawn)
        _name_times(axes)
        _explain(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def describe_picture(days: Sequence[Timeline], drawn: int, missing: int) -> list[str]:
    """A line about what the picture shows, and a second line about what it leaves out, if anything.

    Args:
        days: the history of each day.
        drawn: how many of the days are drawn.
        missing: how many older commits are not among the dots.
    """
    commits = {dot.version for timeline in days for dot in timeline.dots}
    late = {dot.version for timeline in days for dot in timeline.dots if dot.kind == "late"}
    behind = sum(timeline.is_behind for timeline in days)
    shown = (
        f"{counted(len(commits), 'commit')} to {counted(len(days), 'day')}, {len(late):,} of them late; "
        f"{counted(behind, 'day')} with late data that the counts don't reflect yet"
    )
    not_shown = []
    if missing:
        not_shown.append(f"{counted(missing, 'older commit')}, not read or gone from the log")
    if drawn < len(days):
        not_shown.append(f"all days but the {drawn} that changed last")
    return [shown, f"Not shown: {'; '.join(not_shown)}"] if not_shown else [shown]


def days_to_draw(days: Sequence[Timeline]) -> list[Timeline]:
    """The MAX_DAYS days that changed last, in order."""
    by_change = sorted(days, key=lambda timeline: timeline.dots[-1].version, reverse=True)
    return sorted(by_change[:MAX_DAYS], key=lambda timeline: timeline.day)


def _draw_days(axes: "Axes", days: Sequence[Timeline], row_height: float) -> None:
    """Draw the dots, and the time after which each day was closed. `row_height` is in points."""
    times = [_axis_days(dot.at) for timeline in days for dot in timeline.dots]
    margin = max((max(times) - min(times)) * 0.03, 1 / 86_400)  # days
    left, right = min(times) - margin, max(times) + margin
    closed = [(row, max(_axis_days(timeline.closed), left)) for row, timeline in enumerate(days) if timeline.closed]
    widths, starts = [right - start for _, start in closed], [start for _, start in closed]
    axes.barh([row for row, _ in closed], widths, left=starts, height=1, color=_CLOSED, zorder=0)

    size = min(max(0.5 * row_height, 2.4), 6.5)
    for (kind, is_counted), at_rows in dot_positions(days, left, right).items():
        style = _STYLES[kind]
        axes.scatter(
            [at for at, _ in at_rows],
            [row for _, row in at_rows],
            s=size**2,
            marker=style.marker,
            facecolor=style.colour if is_counted else "white",
            edgecolor=style.colour,
            linewidth=size / 5,
            zorder=3 if kind == "late" else 2,
        )
    if len(days) <= _DAYS_WITH_VERSIONS and len(times) <= _DOTS_WITH_VERSIONS:
        for row, timeline in enumerate(days):
            for at, text in _versions(timeline.dots, (right - left) / 25):
                axes.annotate(
                    text, (at, row), (0, 5.5), textcoords="offset points", size=7, color=_FAINT, ha="center", zorder=4
                )
    behind = [row for row, timeline in enumerate(days) if timeline.is_behind]
    axes.scatter([right] * len(behind), behind, s=22, marker="<", color=_STYLES["late"].colour, clip_on=False, zorder=5)
    axes.set_xlim(left, right)
    axes.set_ylim(len(days) - 0.5, -0.5)


def dot_positions(
    days: Sequence[Timeline], left: float, right: float
) -> dict[tuple[Kind, bool], list[tuple[float, int]]]:
    """Where to draw dots. Of dots that would cover each other, only the last one is drawn.

    Args:
        days: the days, a row each.
        left, right: the ends of the time axis, in days since 1970-01-01 (UTC).

    Returns:
        For each kind, and whether the counts reflect the commits: the times (in days) and row numbers of its dots.
    """
    found: dict[tuple[Kind, bool], dict[tuple[int, int], tuple[float, int]]] = defaultdict(dict)
    for row, timeline in enumerate(days):
        for dot in timeline.dots:
            at = _axis_days(dot.at)
            found[dot.kind, dot.counted][int((at - left) / (right - left) * _CELLS), row] = (at, row)
    # Hollow dots come after filled ones, so that they are drawn above them.
    return {(kind, counted): [*found[kind, counted].values()] for kind in _STYLES for counted in (True, False)}


def _versions(dots: Sequence[Dot], near: float) -> list[tuple[float, str]]:
    """Texts with their times: the version of each dot, or one text for dots that are close. All times are in days."""
    groups: list[list[tuple[float, int]]] = []
    for at, version in sorted((_axis_days(dot.at), dot.version) for dot in dots):
        if groups and at - groups[-1][0][0] < near:
            groups[-1].append((at, version))
        else:
            groups.append([(at, version)])
    return [(_middle(group), _some([version for _, version in group])) for group in groups]


def _middle(group: Sequence[tuple[float, int]]) -> float:
    return (group[0][0] + group[-1][0]) / 2


def _some(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) if len(versions) <= 2 else f"{min(versions)} … {max(versions)}"


def _name_days(axes: "Axes", days: Sequence[Timeline]) -> None:
    """Write the day to the left of a row, and to the right what its counts reflect. Of many rows, name only some."""
    rows = range(0, len(days), ceil(len(days) / _DAYS_NAMED))
    axes.set_yticks(rows, [days[row].day for row in rows])
    axes.set_ylabel("day (event_time)", color=_INK, size=9)
    right_axis = axes.secondary_yaxis("right")
    versions = [days[row].counts_version for row in rows]
    right_axis.set_yticks(rows, ["none" if version is None else str(version) for version in versions])
    right_axis.set_ylabel("counts reflect version", color=_INK, size=9)
    for side, pad in ((axes, 4), (right_axis, 7)):
        side.tick_params(axis="y", length=0, pad=pad, labelsize=8, labelcolor=_INK)
        for spine in side.spines.values():
            spine.set_visible(False)
    if len(days) <= _DAYS_NAMED:
        axes.hlines([row + 0.5 for row in range(len(days) - 1)], *axes.get_xlim(), color="#e8e8e8", linewidth=0.6)


def _matplotlib_dates() -> Any:
    """matplotlib.dates, for mypy without types: the library has annotations, but not in this module."""
    from matplotlib import dates

    return dates


def _axis_days(at: datetime) -> float:
    """A moment as a position on the time axis, in matplotlib's unit: days since 1970-01-01 (UTC)."""
    return float(_matplotlib_dates().date2num(at))


def _name_times(axes: "Axes") -> None:
    dates = _matplotlib_dates()
    locator = dates.AutoDateLocator(tz=timezone.utc, minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=timezone.utc))
    axes.xaxis.get_offset_text().set(size=8, color=_INK)
    axes.tick_params(axis="x", color=_FAINT, labelsize=8, labelcolor=_INK)
    axes.set_xlabel("time of the commit (UTC)", color=_INK, size=9)
    axes.spines["bottom"].set(visible=True, color=_FAINT)
    axes.grid(axis="x", color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)


def _explain(figure: "Figure") -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def dot(marker: str, colour: str, face: str, meaning: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=face, ms=6, label=meaning)

    late = _STYLES["late"].colour
    figure.legend(
        # The legend fills its columns from top to bottom: first the dots.
        handles=[
            *[dot(style.marker, style.colour, style.colour, style.meaning) for style in _STYLES.values()],
            dot("o", _FAINT, "white", "hollow: the counts don't reflect it yet"),
            dot("<", late, late, "day with late data not in the counts yet"),
            Patch(facecolor=_CLOSED, label="day is closed: the next day has appeared"),
        ],
        loc="lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
        labelcolor=_INK,
        handletextpad=0.6,
        columnspacing=4,
    )
