"""The charts of the dashboard: a line or a bar for each of a supplier's last deliveries."""

from collections.abc import Sequence
from datetime import datetime, time, timezone

from dedp_assets.pages.charts import BLUE, GREY, LIGHT_BLUE, ORANGE, chart, finish, position, to_svg, whole_numbers
from dedp_assets.promotions.reports.figures import Delivered

# Small enough that its text can still be read on a telephone.
_WIDTH, _HEIGHT = 4.4, 2.0
# So wide is the axis at least, in days, that one delivery is not as broad as the chart.
_LEAST_DAYS = 7


def discounts_chart(deliveries: Sequence[Delivered]) -> str:
    """The mean and the highest discount of each delivery."""
    with chart(_WIDTH, _HEIGHT) as (figure, axes):
        days = [_position(each) for each in deliveries]
        means, highest = [each.mean_discount for each in deliveries], [each.max_discount for each in deliveries]
        axes.fill_between(days, means, highest, color=LIGHT_BLUE, alpha=0.15, linewidth=0)
        for label, colour, values in (("highest", LIGHT_BLUE, highest), ("mean", BLUE, means)):
            axes.plot(days, values, color=colour, label=label, linewidth=1.4, marker="o", markersize=2.6)
        axes.set_ylim(0, 100)
        axes.set_yticks(range(0, 101, 25))
        finish(figure, axes, days, "discount, % of the price", _margin(days))
        return to_svg(figure)


def products_chart(deliveries: Sequence[Delivered]) -> str:
    """How many products each delivery has on promotion; late deliveries have another colour."""
    with chart(_WIDTH, _HEIGHT) as (figure, axes):
        days = [_position(each) for each in deliveries]
        for label, colour, is_late in (("on time", BLUE, False), ("late", ORANGE, True)):
            bars = [(day, each.products) for day, each in zip(days, deliveries, strict=True) if each.is_late == is_late]
            if bars or not is_late:
                axes.bar([day for day, _ in bars], [bar for _, bar in bars], width=0.7, color=colour, label=label)
        axes.axhline(0, color=GREY, linewidth=0.5)
        axes.set_ylim(bottom=0)
        whole_numbers(axes)
        finish(figure, axes, days, "products on promotion", _margin(days))
        return to_svg(figure)


def _position(delivered: Delivered) -> float:
    return position(datetime.combine(delivered.day, time(), timezone.utc))


def _margin(days: Sequence[float]) -> float:
    return max(0.6, (_LEAST_DAYS - (max(days) - min(days))) / 2)
