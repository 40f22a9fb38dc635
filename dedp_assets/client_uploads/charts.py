"""The charts of the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dedp_assets.client_uploads.figures import DAY_SECONDS, History, Interval
from dedp_assets.pages.charts import BLUE, GREY, LIGHT_BLUE, ORANGE, chart, finish, position, to_svg, whole_numbers

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
    with chart() as (figure, axes):
        points = [(_middle(each, history), each.arrivals.waits) for each in history.intervals]
        known = [(at, waits) for at, waits in points if waits]
        times = [at for at, _ in known]
        series = (
            ("95 % are shorter", ORANGE, [waits.p95 for _, waits in known]),
            ("mean", LIGHT_BLUE, [waits.mean for _, waits in known]),
            ("half are shorter", BLUE, [waits.p50 for _, waits in known]),
        )
        for label, colour, values in series:
            axes.plot(times, values, color=colour, label=label, linewidth=1.4, marker="o", markersize=2.6)
        positive = [value for _, _, values in series for value in values if value > 0]
        if positive and max(positive) / min(positive) > _LOG_FROM_RATIO:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        finish(figure, axes, times, "seconds", history.width_seconds / DAY_SECONDS)
        return to_svg(figure)


def files_chart(history: History) -> str:
    """How many files were loaded, received and refused over time."""
    with chart() as (figure, axes):
        times = [_middle(each, history) for each in history.intervals]
        arrivals = [each.arrivals for each in history.intervals]
        below = [0] * len(times)
        for label, colour, values in (
            ("loaded", BLUE, [each.loaded for each in arrivals]),
            ("only received", GREY, [each.received for each in arrivals]),
            ("refused", ORANGE, [each.refused for each in arrivals]),
        ):
            if any(values) or label != "only received":
                width = history.width_seconds * 0.82 / DAY_SECONDS
                axes.bar(times, values, bottom=below, width=width, color=colour, label=label)
            below = [a + b for a, b in zip(below, values, strict=True)]
        whole_numbers(axes)
        unit = f"files in {_width_in_words(history)}"
        finish(figure, axes, times, unit, history.width_seconds / DAY_SECONDS)
        return to_svg(figure)


def ticks_chart(moments: Sequence[Moment]) -> str:
    """How long ticks took over time."""
    with chart() as (figure, axes):
        times = [position(moment.at) for moment in moments]
        values = [moment.tick_seconds * 1000 for moment in moments]
        axes.plot(times, values, color=BLUE, label="duration of a tick", linewidth=1.4, marker="o", markersize=2.6)
        axes.set_ylim(bottom=0)
        finish(figure, axes, times, "milliseconds", 60 / DAY_SECONDS)
        return to_svg(figure)


def queue_chart(moments: Sequence[Moment]) -> str:
    """The files that waited for a free run, and the directories that were not healthy, over time."""
    with chart() as (figure, axes):
        times = [position(moment.at) for moment in moments]
        for label, colour, values in (
            ("files that wait for a free run", BLUE, [moment.queue_depth for moment in moments]),
            ("directories that are not healthy", ORANGE, [moment.not_healthy for moment in moments]),
        ):
            axes.step(times, values, where="post", color=colour, label=label, linewidth=1.4, marker="o", markersize=2.6)
        axes.set_ylim(bottom=0, top=max([1, *(max(each.queue_depth, each.not_healthy) for each in moments)]) * 1.08)
        whole_numbers(axes)
        finish(figure, axes, times, "number", 60 / DAY_SECONDS)
        return to_svg(figure)


def _middle(interval: Interval, history: History) -> float:
    return position(interval.start) + history.width_seconds / 2 / DAY_SECONDS


def _width_in_words(history: History) -> str:
    minutes = history.width_seconds // 60
    if minutes >= 60 * 24:
        return "a day"
    if minutes >= 60:
        return "an hour" if minutes == 60 else f"{minutes // 60} hours"
    return "a minute" if minutes == 1 else f"{minutes} minutes"
