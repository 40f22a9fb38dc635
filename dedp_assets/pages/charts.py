"""The charts of pages: SVG that stands inside an HTML page and loads nothing."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DAY_SECONDS = 86_400
INK, FAINT, GRID = "#333333", "#767676", "#ececec"
BLUE, LIGHT_BLUE, GREY, ORANGE = "#1f4e8c", "#6f9fd8", "#b9c2cc", "#d9480f"


@contextmanager
def chart(width: float = 5.6, height: float = 2.5) -> "Iterator[tuple[Figure, Axes]]":
    """A new chart to draw on, and then to `finish`. `width` and `height`: in inches, at which its text has 8 points."""
    # Not at the top: the import takes a second, and a code location need not wait for it. And nothing of pyplot, which
    # keeps every figure for the whole process.
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text: it is small, it can be searched, and the page sets its font.
    with matplotlib.rc_context({"svg.fonttype": "none", "timezone": "UTC"}):
        figure = Figure(figsize=(width, height), facecolor="none")
        left = 0.59 / width  # the numbers beside the axis are as wide in every chart
        axes = figure.add_axes((left, 0.15, 0.98 - left, 0.7), facecolor="none")
        yield figure, axes


def finish(figure: "Figure", axes: "Axes", times: Sequence[float], unit: str, margin: float) -> None:
    """Draw all but the data. `times`, and the `margin` around them: in days."""
    from matplotlib import dates

    untyped: Any = dates  # its functions have no types
    locator = untyped.AutoDateLocator(tz=timezone.utc, minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator, tz=timezone.utc))
    axes.xaxis.get_offset_text().set(size=8, color=FAINT)
    if times:
        axes.set_xlim(min(times) - margin, max(times) + margin)
    axes.tick_params(axis="both", length=0, labelsize=8, labelcolor=INK)
    axes.set_title(unit, loc="left", size=8, color=FAINT, pad=8)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=FAINT)
    figure.legend(
        loc="upper right", ncols=3, frameon=False, fontsize=8, labelcolor=INK, handlelength=1.2, columnspacing=1.2
    )


def whole_numbers(axes: "Axes") -> None:
    """Let the vertical axis have whole numbers alone."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def position(time: datetime) -> float:
    """Where a time is on matplotlib's axis: in days since the epoch."""
    return time.timestamp() / _DAY_SECONDS


def to_svg(figure: "Figure") -> str:
    """The chart as an SVG element, which is as wide as the page makes it. Text from others is escaped in it."""
    content = io.StringIO()
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    # Without the prologue, which names a file on the web, and without fixed sizes.
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'(<svg\b[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
