"""The charts of the report, as SVG that stands inside an HTML page and loads nothing."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from dedp_assets.client_uploads.figures import DAY_SECONDS, History, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_INCHES, _HEIGHT_INCHES = 5.6, 2.5
_INK, _FAINT, _GRID = "#333333", "#767676", "#ececec"
_BLUE, _LIGHT_BLUE, _GREY, _ORANGE = "#1f4e8c", "#6f9fd8", "#b9c2cc", "#d9480f"
# From this ratio of the longest wait to the shortest on, a linear axis would show only the longest.
_LOG_FROM_RATIO = 100


@dataclass(frozen=True)
class Moment:
    """What a report said of the sensor when it was made: `tick_seconds`, in s, and numbers of files and directories."""

    at: datetime
    tick_seconds: float
    queue_depth: int
    healthy: int
    not_healthy: int


def waits_chart(history: History) -> str:
    """Mean, median and 95th percentile of the waits over time."""
    with _chart() as (figure, axes):
        points = [(_middle(each, history), each.arrivals.waits) for each in history.intervals]
        known = [(at, waits) for at, waits in points if waits]
        times = [at for at, _ in known]
        series = (
            ("95 % are shorter", _ORANGE, [waits.p95 for _, waits in known]),
            ("mean", _LIGHT_BLUE, [waits.mean for _, waits in known]),
            ("half are shorter", _BLUE, [waits.p50 for _, waits in known]),
        )
        for label, colour, values in series:
            axes.plot(times, values, color=colour, label=label, linewidth=1.4, marker="o", markersize=2.6)
        positive = [value for _, _, values in series for value in values if value > 0]
        if positive and max(positive) / min(positive) > _LOG_FROM_RATIO:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        _finish(figure, axes, times, "seconds", history.width_seconds / DAY_SECONDS)
        return _svg(figure)


def files_chart(history: History) -> str:
    """How many files were loaded, received and refused over time."""
    with _chart() as (figure, axes):
        times = [_middle(each, history) for each in history.intervals]
        arrivals = [each.arrivals for each in history.intervals]
        below = [0] * len(times)
        for label, colour, values in (
            ("loaded", _BLUE, [each.loaded for each in arrivals]),
            ("only received", _GREY, [each.received for each in arrivals]),
            ("refused", _ORANGE, [each.refused for each in arrivals]),
        ):
            if any(values) or label != "only received":
                width = history.width_seconds * 0.82 / DAY_SECONDS
                axes.bar(times, values, bottom=below, width=width, color=colour, label=label)
            below = [a + b for a, b in zip(below, values, strict=True)]
        _whole_numbers(axes)
        unit = f"files in {_width_in_words(history)}"
        _finish(figure, axes, times, unit, history.width_seconds / DAY_SECONDS)
        return _svg(figure)


def ticks_chart(moments: Sequence[Moment]) -> str:
    """How long ticks took over time."""
    with _chart() as (figure, axes):
        times = [_position(moment.at) for moment in moments]
        values = [moment.tick_seconds * 1000 for moment in moments]
        axes.plot(times, values, color=_BLUE, label="duration of a tick", linewidth=1.4, marker="o", markersize=2.6)
        axes.set_ylim(bottom=0)
        _finish(figure, axes, times, "milliseconds", 60 / DAY_SECONDS)
        return _svg(figure)


def queue_chart(moments: Sequence[Moment]) -> str:
    """The files that waited for a free run, and the directories that were not healthy, over time."""
    with _chart() as (figure, axes):
        times = [_position(moment.at) for moment in moments]
        for label, colour, values in (
            ("files that wait for a free run", _BLUE, [moment.queue_depth for moment in moments]),
            ("directories that are not healthy", _ORANGE, [moment.not_healthy for moment in moments]),
        ):
            axes.step(times, values, where="post", color=colour, label=label, linewidth=1.4, marker="o", markersize=2.6)
        axes.set_ylim(bottom=0, top=max([1, *(max(each.queue_depth, each.not_healthy) for each in moments)]) * 1.08)
        _whole_numbers(axes)
        _finish(figure, axes, times, "number", 60 / DAY_SECONDS)
        return _svg(figure)


@contextmanager
def _chart() -> "Iterator[tuple[Figure, Axes]]":
    # Not at the top: the import takes a second, and a code location need not wait for it. And nothing of pyplot, which
    # keeps every figure for the whole process.
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text: it is small, it can be searched, and the page sets its font.
    with matplotlib.rc_context({"svg.fonttype": "none", "timezone": "UTC"}):
        figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), facecolor="none")
        axes = figure.add_axes((0.105, 0.15, 0.875, 0.7), facecolor="none")
        yield figure, axes


def _finish(figure: "Figure", axes: "Axes", times: Sequence[float], unit: str, margin: float) -> None:
    """Draw all but the data. `times`, and the `margin` around them: in days."""
    from matplotlib import dates

    untyped: Any = dates  # its functions have no types
    locator = untyped.AutoDateLocator(tz=timezone.utc, minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator, tz=timezone.utc))
    axes.xaxis.get_offset_text().set(size=8, color=_FAINT)
    if times:
        axes.set_xlim(min(times) - margin, max(times) + margin)
    axes.tick_params(axis="both", length=0, labelsize=8, labelcolor=_INK)
    axes.set_title(unit, loc="left", size=8, color=_FAINT, pad=8)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=_FAINT)
    figure.legend(
        loc="upper right", ncols=3, frameon=False, fontsize=8, labelcolor=_INK, handlelength=1.2, columnspacing=1.2
    )


def _whole_numbers(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _position(time: datetime) -> float:
    """Where a time is on matplotlib's axis: in days since the epoch."""
    return time.timestamp() / DAY_SECONDS


def _middle(interval: Interval, history: History) -> float:
    return _position(interval.start) + history.width_seconds / 2 / DAY_SECONDS


def _width_in_words(history: History) -> str:
    minutes = history.width_seconds // 60
    if minutes >= 60 * 24:
        return "a day"
    if minutes >= 60:
        return "an hour" if minutes == 60 else f"{minutes // 60} hours"
    return "a minute" if minutes == 1 else f"{minutes} minutes"


def _svg(figure: "Figure") -> str:
    content = io.StringIO()
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    # Without the prologue, which names a file on the web, and without fixed sizes.
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'(<svg\b[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
