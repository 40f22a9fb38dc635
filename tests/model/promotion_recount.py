"""What the tables of the promotions have to hold, counted again from the bytes of files in the simplest way there is.

It shares no code with the pipeline: the files are split at commas, numbers are fractions, and everything is in memory.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from fractions import Fraction
from math import floor
from typing import NamedTuple

HEADER = "product_id,product,price,promotion_price,starts_on,ends_on"

# The data files of a delivery, by name.
Files = Mapping[str, bytes]
# A supplier and a day.
Key = tuple[str, str]


class Offer(NamedTuple):
    """A product as it has to stand in `dedp.promotions`."""

    product: str
    price: Fraction
    promotion_price: Fraction
    starts_on: str
    ends_on: str


class Recount(NamedTuple):
    """A delivery, counted again.

    Attributes:
        version: A SHA-256 over the names and contents of its files.
        offers: By product id.
        quarantine: The reason of each line that was set aside, by the name of its file and its number.
    """

    version: str
    offers: dict[str, Offer]
    quarantine: dict[tuple[str, int], str]

    @property
    def metrics(self) -> tuple[int, Fraction, Fraction]:
        """How many products; the mean and the highest discount in percent, with two decimals."""
        discounts = [(offer.price - offer.promotion_price) / offer.price * 100 for offer in self.offers.values()]
        return len(discounts), _cents(sum(discounts, Fraction()) / len(discounts)), _cents(max(discounts))


def recount(files: Files) -> Recount:
    """Count the files of a delivery."""
    named = "".join(f"{name}\0{hashlib.sha256(content).hexdigest()}\n" for name, content in sorted(files.items()))
    offers: dict[str, tuple[Offer, tuple[str, int]]] = {}
    quarantine: dict[tuple[str, int], str] = {}
    for name, content in sorted(files.items()):
        lines = content.decode().removesuffix("\n").split("\n")
        if lines[0] != HEADER or len(lines) == 1:
            quarantine |= {(name, number): "unusable file" for number in range(1, len(lines) + 1)}
            continue
        for number, line in enumerate(lines[1:], start=2):
            reason = _reason(line)
            if reason:
                quarantine[name, number] = reason
                continue
            product_id, product, price, promotion_price, starts_on, ends_on = line.split(",")
            if product_id in offers:
                quarantine[offers[product_id][1]] = "duplicate"
            offer = Offer(product, Fraction(price), Fraction(promotion_price), starts_on, ends_on)
            offers[product_id] = offer, (name, number)
    version = hashlib.sha256(named.encode()).hexdigest()
    return Recount(version, {product_id: offer for product_id, (offer, _) in offers.items()}, quarantine)


def _reason(line: str) -> str:
    values = line.split(",")
    if line == "":
        return "empty line"
    if len(values) != 6:
        return "missing field" if len(values) < 6 else "extra field"
    if line == HEADER:
        return "repeated header"
    if "" in values:
        return "missing value"
    price, promotion_price, starts_on, ends_on = values[2:]
    if not all(re.fullmatch(r"\d+(\.\d+)?", number) for number in (price, promotion_price)):
        return "not a number"
    if not _is_day(starts_on) or not _is_day(ends_on):
        return "not a date"
    if Fraction(price) == 0:
        return "price not above zero"
    if Fraction(promotion_price) > Fraction(price):
        return "promotion above price"
    return "ends before it starts" if ends_on < starts_on else ""


def _is_day(text: str) -> bool:
    try:
        return datetime.strptime(text, "%Y-%m-%d").strftime("%Y-%m-%d") == text  # noqa: DTZ007  a day has no zone
    except ValueError:
        return False


def _cents(number: Fraction) -> Fraction:
    return Fraction(floor(number * 100 + Fraction(1, 2)), 100)


# supplier, day, previous day, product, change, price before, price after
Difference = tuple[str, str, str, str, str, Fraction | None, Fraction | None]


def differences(deliveries: Mapping[Key, Recount]) -> list[Difference]:
    """What has changed from each delivery to the supplier's next one there is."""
    found: list[Difference] = []
    for supplier, day in deliveries:
        earlier = [other for name, other in deliveries if name == supplier and other < day]
        if not earlier:
            continue
        before, after = deliveries[supplier, max(earlier)].offers, deliveries[supplier, day].offers
        for product in before.keys() | after.keys():
            old = before[product].price if product in before else None
            new = after[product].price if product in after else None
            if old != new:
                change = "added" if old is None else "removed" if new is None else "changed"
                found.append((supplier, day, max(earlier), product, change, old, new))
    return sorted(found, key=lambda row: row[:4])


class Shown(NamedTuple):
    """What the dashboard has to say of a supplier for the day: its state, and its products and discounts, or ""."""

    state: str
    products: str
    mean: str
    highest: str


def shown(
    suppliers: Sequence[str], deliveries: Mapping[Key, Recount], late: Mapping[Key, bool], now: datetime
) -> dict[str, Shown]:
    """What the dashboard has to show, by supplier. `now`: in UTC, without a time zone."""
    today = now.date()
    delivered_today = any(day == today.isoformat() for _, day in deliveries)
    day = today if now.time() >= time(16) or delivered_today else today - timedelta(days=1)
    is_open = now < datetime.combine(day + timedelta(days=1), time(2))
    return {supplier: _shown((supplier, day.isoformat()), deliveries, late, is_open) for supplier in suppliers}


def _shown(key: Key, deliveries: Mapping[Key, Recount], late: Mapping[Key, bool], is_open: bool) -> Shown:
    if key in deliveries:
        products, mean, highest = deliveries[key].metrics
        return Shown(
            "late" if late[key] else "on time", f"{products:,}", f"{float(mean):.2f} %", f"{float(highest):.2f} %"
        )
    if is_open:
        return Shown("expected", "", "", "")
    days = [date.fromisoformat(day) for supplier, day in deliveries if supplier == key[0]]
    is_missing = not days or date.fromisoformat(key[1]) >= min(days)
    return Shown("missing" if is_missing else "none", "", "", "")
