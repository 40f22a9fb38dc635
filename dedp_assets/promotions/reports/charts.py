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
    days = [each.day for each in deliveries]
    means, highest = [each.mean_discount for each in deliveries], [each.max_discount for each in deliveries]
    outline = [*_points(axes, days, highest), *reversed(_points(axes, days, means))]
    parts = [f'<polygon points="{" ".join(outline)}" fill="{LIGHT_BLUE}" fill-opacity="0.15"/>']
    for colour, values in ((LIGHT_BLUE, highest), (BLUE, means)):
        points = _points(axes, days, values)
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
        parts += [_dot(point, colour) for point in points]
    legend = (("highest", LIGHT_BLUE), ("mean", BLUE))
    return _chart(axes, "discount, % of the price", range(0, 101, 25), _days_to_label(days), legend, parts)


def products_chart(deliveries: Sequence[Delivered]) -> str:
    """How many products each delivery has on promotion; late deliveries have another colour."""
    ticks = whole_ticks(max(each.products for each in deliveries))
    axes = _axes(deliveries, ticks[-1])
    width = max(1.0, 0.7 * axes.day_width)
    parts = [
        f'<rect x="{axes.x(each.day) - width / 2:.1f}" y="{axes.y(each.products):.1f}" width="{width:.1f}" '
        f'height="{_BOTTOM - axes.y(each.products):.1f}" fill="{ORANGE if each.is_late else BLUE}"/>'
        for each in deliveries
    ]
    legend = [("on time", BLUE)] + [("late", ORANGE)] * any(each.is_late for each in deliveries)
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


def _points(axes: _Axes, days: Sequence[date], values: Sequence[float]) -> list[str]:
    return [f"{axes.x(day):.1f},{axes.y(value):.1f}" for day, value in zip(days, values, strict=True)]


def _dot(point: str, colour: str) -> str:
    x, y = point.split(",")
    return f'<circle cx="{x}" cy="{y}" r="1.6" fill="{colour}"/>'


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
