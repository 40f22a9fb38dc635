"""Deliveries of supermarkets to try the pipeline with: products, prices and promotions that change as real ones do.

The same seed gives the same delivery for a supplier and a day, whatever else is generated. From one day to the next
most products and prices stay: a promotion lasts a week and a price a month, from a day of each product on.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import NamedTuple

from dedp_assets.whole_files import write_whole

HEADER = "product_id,product,price,promotion_price,starts_on,ends_on"
MARKER = "_SUCCESS"

_BRANDS = ("Alta", "Bellmont", "Casa Verde", "Dorfgut", "Eiland", "Fjord", "Gaia", "Hofladen", "Iris", "Jardin")
# What there is, the sizes that it comes in, and about what the smallest costs.
_GOODS = (
    ("whole milk", ("1 l", "1.5 l"), 1.29),
    ("salted butter", ("250 g", "500 g"), 2.49),
    ("gouda, sliced", ("150 g", "400 g"), 1.99),
    ("yoghurt, strawberry", ("150 g", "4 x 125 g"), 0.69),
    ("free-range eggs", ("6", "10"), 2.19),
    ("espresso beans", ("500 g", "1 kg"), 7.99),
    ("black tea, 50 bags", ("100 g", "200 g"), 2.79),
    ("orange juice, not from concentrate", ("1 l", "2 l"), 2.29),
    ("mineral water", ("6 x 1.5 l", "12 x 0.7 l"), 3.49),
    ("pilsner", ("6 x 0.5 l", "20 x 0.5 l"), 5.49),
    ("olive oil, extra virgin", ("500 ml", "1 l"), 6.99),
    ("spaghetti no. 5", ("500 g", "1 kg"), 1.09),
    ("basmati rice", ("500 g", "1 kg"), 2.39),
    ("tomatoes, peeled", ("400 g", "3 x 400 g"), 0.89),
    ("tuna in sunflower oil", ("160 g", "3 x 80 g"), 1.79),
    ("chocolate, 70 % cocoa", ("100 g", "300 g"), 1.49),
    ("crisps, salted", ("175 g", "300 g"), 1.89),
    ("pizza margherita, frozen", ("350 g", "3 x 350 g"), 2.59),
    ("salmon fillet", ("250 g", "500 g"), 7.49),
    ("chicken breast", ("400 g", "1 kg"), 5.99),
    ("sourdough bread", ("500 g", "1 kg"), 2.99),
    ("bananas", ("1 kg", "2 kg"), 1.79),
    ("apples, Elstar", ("1 kg", "2 kg"), 2.49),
    ("washing powder", ("1.2 kg", "5 kg"), 6.49),
    ("kitchen roll", ("4", "8"), 2.99),
    ("shampoo", ("250 ml", "400 ml"), 2.45),
    ("toothpaste", ("75 ml", "2 x 75 ml"), 1.35),
    ('dog food, "Bello\'s best"', ("400 g", "12 x 400 g"), 1.19),
)
# Discounts in percent, and how often each is given.
_DISCOUNTS = ((5, 3), (10, 10), (15, 9), (20, 12), (25, 8), (30, 4), (33, 3), (40, 2), (50, 2), (70, 0.3))
_STAYS_ON_PROMOTION = 0.85


class Offer(NamedTuple):
    """A line of a delivery, as text."""

    product_id: str
    product: str
    price: str
    promotion_price: str
    starts_on: str
    ends_on: str

    @property
    def line(self) -> str:
        return ",".join(_quoted(value) for value in self)


def offers(supplier: str, day: date, rows: int, seed: int = 0) -> list[Offer]:
    """The products that a supplier has on promotion on a day.

    Args:
        supplier: Its name; each has other products and prices.
        day: The day of the delivery.
        rows: How many products.
        seed: Another number gives another delivery.
    """
    found: list[Offer] = []
    number = 0
    while len(found) < rows:
        offer = _offer(supplier, number, day, seed)
        number += 1
        if offer:
            found.append(offer)
    return found


def _offer(supplier: str, number: int, day: date, seed: int) -> Offer | None:
    """The promotion of a product on a day, or None if it has none."""
    product = Random(f"{seed}/{supplier}/{number}")
    goods, sizes, least = _GOODS[number % len(_GOODS)]
    size = product.randrange(len(sizes))
    name = f"{product.choice(_BRANDS)} {goods}, {sizes[size]}"
    base = least * (1 + 1.4 * size) * product.uniform(0.8, 1.35)
    phase = product.randrange(28)
    week, into_week = divmod(day.toordinal() + phase, 7)
    this_week = Random(f"{seed}/{supplier}/{number}/week {week}")
    if this_week.random() > _STAYS_ON_PROMOTION:
        return None
    this_month = Random(f"{seed}/{supplier}/{number}/month {(day.toordinal() + phase) // 28}")
    price = max(0.19, round(base * this_month.uniform(0.94, 1.1) * 10) / 10 - 0.01)
    (percent,) = this_week.choices([each for each, _ in _DISCOUNTS], [often for _, often in _DISCOUNTS])
    starts = day - timedelta(days=into_week)
    return Offer(
        f"{1000 + number}",
        name,
        f"{price:.2f}",
        f"{price * (100 - percent) / 100:.2f}",
        starts.isoformat(),
        (starts + timedelta(days=6)).isoformat(),
    )


def corrected(good: Sequence[Offer]) -> list[Offer]:
    """The same delivery as a supplier sends it again after a mistake: other prices, and the last product is gone."""
    kept = list(good[:-1]) or list(good)
    return [
        offer._replace(price=f"{float(offer.price) + 0.1:.2f}") if number % 5 == 0 else offer
        for number, offer in enumerate(kept)
    ]


def dirty_lines(good: Sequence[Offer], count: int, seed: int = 0) -> list[str]:
    """Lines that do not get into the table, of each kind in turn. A repeated product costs one of its two lines.

    Args:
        good: The lines of the delivery.
        count: How many to make.
        seed: Chooses the products.
    """
    random = Random(f"{seed}/dirty")
    return [_dirty_line(number, random.choice(good)) for number in range(count)]


def _dirty_line(number: int, offer: Offer) -> str:
    other = offer._replace(product_id=f"bad-{number}")
    return (
        offer.line,  # once more: one of the two is a duplicate
        other._replace(price="0").line,
        other._replace(promotion_price="9999.99").line,
        other._replace(price=other.price.replace(".", ",")).line,
        other._replace(starts_on=other.ends_on, ends_on=other.starts_on).line,
        other._replace(product="").line,
        other.line.rpartition(",")[0],
    )[number % 7]


def write_delivery(folder: Path, lines: Sequence[str], *, files: int = 1, marker: bool = True) -> list[Path]:
    """Write a delivery: the data files, each whole, and then the marker.

    An earlier delivery in the folder is replaced. Its marker goes first, so nobody takes a part of both.

    Args:
        folder: The folder of the supplier and the day.
        lines: The lines without header.
        files: How many data files to spread them over. A file may be without lines.
        marker: Whether to write the marker.

    Returns:
        The files in the order in which they were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).unlink(missing_ok=True)
    size = -(-len(lines) // files)
    written = []
    for number in range(files):
        path = folder / f"data-{number + 1:02}.csv"
        write_whole(path, "\n".join([HEADER, *lines[number * size : (number + 1) * size], ""]).encode())
        written.append(path)
    for path in folder.glob("data-*.csv"):
        if path not in written:
            path.unlink()
    if marker:
        write_whole(folder / MARKER, b"")
        written.append(folder / MARKER)
    return written


def _quoted(value: str) -> str:
    return f'"{value.replace(chr(34), chr(34) * 2)}"' if any(each in value for each in ',"') else value
