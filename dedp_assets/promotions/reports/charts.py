"""The charts of the dashboard: a line or a bar for each of a supplier's last deliveries, as SVG inside the page.

The page is written again on each change, with two charts for each supplier. A plotting library would need most of the
time of such a run, so these few lines draw them.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from dedp_assets.pages.charts import BLUE, FAINT, GREY, GRID, INK, LIGHT_BLUE, ORANGE
from dedp_assets.promotions.reports.figures import Delivered

# Small enough that its text, of 8 units, can still be read on a telephone.
_WIDTH, _HEIGHT = 317.0, 144.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 42.5, 305.0, 22.0, 122.0
# So wide is the axis at least, in days, that one delivery is not as broad as the chart.
_LEAST_DAYS = 7
_MOST_LABELS = 6
_DAY_STEPS = (1, 2, 3, 7, 14, 28, 56, 91, 182, 364)
# How wide a letter is, about, to put the legend at the right end.
_LETTER = 4.5


class _Axes(NamedTuple):
    """Where days and values are in a chart."""

    first: float
    last: float
    highest: float

    def x(self, day: date) -> float:
        return _LEFT + (day.toordinal() - self.first) / (self.last - self.first) * (_RIGHT - _LEFT)

    def y(self, value: float) -> float:
        return _BOTTOM - value / self.highest * (_BOTTOM - _TOP)

    @property
    def day_width(self) -> float:
        return (_RIGHT - _LEFT) / (self.last - self.first)


def discounts_chart(deliveries: Sequence[Delivered]) -> str:
    """The mean and the highest discount of each delivery."""
    axes = _axes(deliveries, 100)
    highest = [f"{axes.x(each.day):.1f},{axes.y(each.max_discount):.1f}" for each in deliveries]
    means = [f"{axes.x(each.day):.1f},{axes.y(each.mean_discount):.1f}" for each in deliveries]
    between = " ".join([*highest, *reversed(means)])
    parts = [
        f'<polygon points="{between}" fill="{LIGHT_BLUE}" fill-opacity="0.15"/>',
        *_line(highest, LIGHT_BLUE),
        *_line(means, BLUE),
    ]
    legend = (("highest", LIGHT_BLUE), ("mean", BLUE))
    days = _days_to_label([each.day for each in deliveries])
    return _chart(axes, "discount, % of the price", range(0, 101, 25), days, legend, parts)


def products_chart(deliveries: Sequence[Delivered]) -> str:
    """How many products each delivery has on promotion; late deliveries have another colour."""
    ticks = whole_ticks(max(each.products for each in deliveries))
    axes = _axes(deliveries, ticks[-1])
    late = [each for each in deliveries if each.is_late]
    parts = [_bars(axes, [each for each in deliveries if not each.is_late], BLUE), _bars(axes, late, ORANGE)]
    legend = [("on time", BLUE)] + [("late", ORANGE)] * bool(late)
    days = _days_to_label([each.day for each in deliveries])
    return _chart(axes, "products on promotion", ticks, days, legend, parts)


def whole_ticks(highest: int) -> list[int]:
    """Up to six round whole numbers from 0 on. The last one is not below `highest`, which is 1 or more."""
    steps = (factor * 10**power for power in range(20) for factor in (1, 2, 5))
    step = next(step for step in steps if step * 5 >= highest)
    return list(range(0, highest + step, step))


def _axes(deliveries: Sequence[Delivered], highest: float) -> _Axes:
    first, last = deliveries[0].day.toordinal(), deliveries[-1].day.toordinal()
    margin = max(0.6, (_LEAST_DAYS - (last - first)) / 2)
    return _Axes(first - margin, last + margin, highest)


def _days_to_label(days: Sequence[date]) -> list[date]:
    """The latest day, and days before it at equal distances."""
    span = (days[-1] - days[0]).days
    step = next((step for step in _DAY_STEPS if span < step * _MOST_LABELS), span)
    return [days[-1] - timedelta(days=before) for before in range(0, span + 1, step)]


def _line(points: Sequence[str], colour: str) -> Iterator[str]:
    """A line with a dot at each point. The dots are one path: so a page costs about the same whatever it shows."""
    yield f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
    dots = "".join(f"M{point}h0" for point in points)
    yield f'<path d="{dots}" stroke="{colour}" stroke-width="3.2" stroke-linecap="round"/>'


def _bars(axes: _Axes, deliveries: Sequence[Delivered], colour: str) -> str:
    bars = "".join(f"M{axes.x(each.day):.1f},{_BOTTOM:g}V{axes.y(each.products):.1f}" for each in deliveries)
    return f'<path d="{bars}" stroke="{colour}" stroke-width="{max(1.0, 0.7 * axes.day_width):.1f}"/>' if bars else ""


def _chart(
    axes: _Axes,
    unit: str,
    ticks: Sequence[int],
    days: Sequence[date],
    legend: Sequence[tuple[str, str]],
    parts: Sequence[str],
) -> str:
    lines = [
        f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{axes.y(tick):.1f}" y2="{axes.y(tick):.1f}" stroke="{GRID}"/>'
        for tick in ticks
    ]
    numbers = [_text(_LEFT - 5, axes.y(tick) + 2.8, f"{tick:,}", "end") for tick in ticks]
    dates = [_text(axes.x(day), _BOTTOM + 12, f"{day.day} {day:%b}", "middle") for day in days]
    base = f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{_BOTTOM}" y2="{_BOTTOM}" stroke="{GREY}"/>'
    title = _text(_LEFT, 11, unit, "start", FAINT)
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" font-size="8" role="img" aria-label="{unit}">'
        f"{''.join([*lines, *parts, base, *numbers, *dates, title, *_legend(legend)])}</svg>"
    )


def _legend(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    x = _RIGHT
    for label, colour in reversed(entries):
        x -= len(label) * _LETTER
        yield _text(x, 11, label, "start")
        x -= 12
        yield f'<rect x="{x:.1f}" y="6.5" width="9" height="3" rx="1.5" fill="{colour}"/>'
        x -= 8


def _text(x: float, y: float, text: str, anchor: str, colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
